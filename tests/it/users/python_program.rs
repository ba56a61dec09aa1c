//! Errors of the Python program that this workspace reimplements. Each of these tests fails on that program.
//!
//! Three of its errors are tested elsewhere. It logs without importing `logging` (wherever a statement fails), its pool
//! has no `invalid()` (`connections/pool.rs`), and its unit tests open the database (`fake_database.rs`).

use std::sync::Barrier;
use std::thread;

use db_service::{DatabaseService, DbError, params};
use singleton_core::ServiceContext;
use tests::TestDatabase;
use user_repo::{ListUsers, UserError, UserRepository, UserUpdate};

on_both_backends!(
    users_persist_after_a_restart,
    transactions_and_connections_initialize_the_service,
    changes_to_users_are_committed,
    users_inserted_with_sql_are_active,
    concurrent_duplicates_report_the_username_or_email,
    duplicate_on_update_is_reported,
    updates_are_validated,
);

fn users_persist_after_a_restart(database: &TestDatabase) {
    let id = database.scope().run(|| {
        UserRepository::create_user("ada", "ada@x", "secret")
            .unwrap()
            .id
    });
    let found = database
        .scope()
        .run(|| UserRepository::get_user_by_id(id).unwrap());
    assert_eq!(found.unwrap().username, "ada");
}

fn transactions_and_connections_initialize_the_service(database: &TestDatabase) {
    let first = database.scope().run(|| {
        DatabaseService::transaction(|connection| {
            connection.execute_query("SELECT 1 AS one", params! {})
        })
    });
    assert_eq!(first.unwrap()[0].get::<i64>("one").unwrap(), 1);
    database
        .scope()
        .run(|| assert!(DatabaseService::connection().is_ok()));
}

fn changes_to_users_are_committed(database: &TestDatabase) {
    let id = database.scope().run(|| {
        let id = UserRepository::create_user("ada", "ada@x", "secret")
            .unwrap()
            .id;
        assert!(UserRepository::delete_user(id).unwrap());
        id
    });
    database.scope().run(|| {
        assert!(
            !UserRepository::get_user_by_id(id)
                .unwrap()
                .unwrap()
                .is_active
        )
    });
}

fn users_inserted_with_sql_are_active(database: &TestDatabase) {
    database.scope().run(|| {
        UserRepository::instance().unwrap();
        let sql = "INSERT INTO users (username, email, password_hash) VALUES ('ada', 'ada@x', 'x')";
        DatabaseService::execute_query(sql, params! {}).unwrap();
        let users = UserRepository::list_users(ListUsers::default()).unwrap();
        assert!(users.len() == 1 && users[0].is_active);
    });
}

fn concurrent_duplicates_report_the_username_or_email(database: &TestDatabase) {
    const THREADS: usize = 8;
    database.scope().run(|| {
        UserRepository::instance().unwrap();
        let (scope, barrier) = (&ServiceContext::current(), &Barrier::new(THREADS));
        for (field, text) in [
            ("name", "Username 'ada' already exists"),
            ("address", "Email 'ada@x' already registered"),
        ] {
            let results: Vec<_> = thread::scope(|threads| {
                let running: Vec<_> = (0..THREADS)
                    .map(|number| {
                        threads.spawn(move || {
                            let (name, email) = match field {
                                "name" => ("ada".to_owned(), format!("{number}@x")),
                                _ => (format!("other{number}"), "ada@x".to_owned()),
                            };
                            barrier.wait();
                            scope
                                .sync_scope(|| UserRepository::create_user(&name, &email, "secret"))
                        })
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert_eq!(
                results.iter().filter(|result| result.is_ok()).count(),
                1,
                "{results:?}"
            );
            for error in results.iter().filter_map(|result| result.as_ref().err()) {
                assert_eq!(error.to_string(), text);
            }
        }
    });
}

fn duplicate_on_update_is_reported(database: &TestDatabase) {
    database.scope().run(|| {
        UserRepository::create_user("ada", "ada@x", "secret").unwrap();
        let bob = UserRepository::create_user("bob", "bob@x", "secret").unwrap();
        let update_error = |update| UserRepository::update_user(bob.id, update).unwrap_err();
        assert!(matches!(update_error(UserUpdate::new().username("ada")), UserError::UsernameTaken(name) if name == "ada"));
        assert!(matches!(update_error(UserUpdate::new().email("ada@x")), UserError::EmailTaken(email) if email == "ada@x"));
        assert_eq!(UserRepository::get_user_by_id(bob.id).unwrap().unwrap(), bob, "nothing has changed");
    });
}

fn updates_are_validated(database: &TestDatabase) {
    database.scope().run(|| {
        let user = UserRepository::create_user("ada", "ada@x", "secret").unwrap();
        let error =
            UserRepository::update_user(user.id, UserUpdate::new().username("a").email("b"))
                .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Username must be at least 3 characters; Valid email address is required"
        );
        assert_eq!(
            UserRepository::get_user_by_id(user.id).unwrap().unwrap(),
            user
        );
    });
}

/// In the Python program's table, `is_active` is NULL, times have no time zone, and hashes are SHA-256.
#[test]
fn table_of_the_python_program_is_adopted() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for sql in [
            "CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR(50) NOT NULL, email VARCHAR(100) NOT NULL, \
             password_hash VARCHAR(128) NOT NULL, is_active BOOLEAN, created_at TIMESTAMP, updated_at TIMESTAMP, \
             UNIQUE (username), UNIQUE (email))",
            "INSERT INTO users (username, email, password_hash, created_at, updated_at) VALUES ('ada', 'ada@x', \
             'ef92b778bafe771e89245b89ecbc08a44a4e166c06659911881f383d4473e94f', '2024-02-29 12:00', '2024-02-29 12:00')",
        ] {
            DatabaseService::execute_query(sql, params! {}).unwrap();
        }
        let ada = UserRepository::verify_password("ada", "password123").unwrap().unwrap();
        assert_eq!(ada.created_at.to_rfc3339(), "2024-02-29T12:00:00+00:00");
        assert!(matches!(UserRepository::create_user("ada", "new@x", "secret"), Err(UserError::UsernameTaken(_))));
        assert!(matches!(UserRepository::create_user("new", "ada@x", "secret"), Err(UserError::EmailTaken(_))));
        assert_eq!(UserRepository::create_user("new", "new@x", "secret").unwrap().id, 4, "the IDs continue");
    });
}

#[test]
fn table_name_is_never_executed_as_sql() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        UserRepository::create_user("ada", "ada@x", "secret").unwrap();
        for name in [
            "users; DROP TABLE users",
            "users WHERE 1 = 0",
            "users--",
            "\"users",
            "pg_class, users",
        ] {
            let result = DatabaseService::get_table_info(name);
            assert!(
                matches!(result, Err(DbError::InvalidTableName { .. })),
                "{name}"
            );
        }
        assert_eq!(UserRepository::count_users(true).unwrap(), 1);
    });
}
