//! Migrations, by one process or by many.

use std::sync::Barrier;
use std::thread;

use db_service::{DatabaseService, DbError, MigrationStatus, Migrations, params};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tests::TestDatabase;
use user_repo::{MIGRATIONS, UserRepository};

on_both_backends!(
    they_are_applied_once_and_listed,
    many_at_once_apply_them_once,
    a_failed_one_leaves_nothing_of_itself
);

const BROKEN: EmbeddedMigrations = embed_migrations!("migrations/broken");
static BROKEN_ON_BOTH: Migrations = Migrations::new()
    .sqlite(BROKEN)
    .postgres(embed_migrations!("migrations/broken"));

fn applied(source: &Migrations) -> Vec<bool> {
    let status: Vec<MigrationStatus> = DatabaseService::migration_status(source).unwrap();
    status.iter().map(|migration| migration.applied).collect()
}

fn they_are_applied_once_and_listed(database: &TestDatabase) {
    database.scope().run(|| {
        assert_eq!(applied(&MIGRATIONS), [false]);
        assert_eq!(
            DatabaseService::run_migrations(&MIGRATIONS).unwrap(),
            ["20261123000000"]
        );
        assert_eq!(applied(&MIGRATIONS), [true]);
        assert_eq!(
            DatabaseService::run_migrations(&MIGRATIONS).unwrap(),
            [""; 0]
        );
        let error = DatabaseService::run_migrations(&Migrations::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("migration failed: there are no migrations for "),
            "{error}"
        );
    });
}

/// A scope has a pool of its own, so to the database each is a process of its own.
fn many_at_once_apply_them_once(database: &TestDatabase) {
    const PROCESSES: usize = 8;
    let together = Barrier::new(PROCESSES);
    let counts: Vec<i64> = thread::scope(|threads| {
        let running: Vec<_> = (0..PROCESSES)
            .map(|number| {
                let together = &together;
                threads.spawn(move || {
                    let scope = database.scope();
                    together.wait();
                    scope.run(|| {
                        UserRepository::create_user(
                            &format!("user{number}"),
                            &format!("{number}@x"),
                            "secret",
                        )
                        .unwrap()
                        .id
                    })
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(counts.len(), PROCESSES);
    database
        .scope()
        .run(|| assert_eq!(UserRepository::count_users(true).unwrap(), PROCESSES as i64));
}

fn a_failed_one_leaves_nothing_of_itself(database: &TestDatabase) {
    database.scope().run(|| {
        let error = DatabaseService::run_migrations(&BROKEN_ON_BOTH).unwrap_err();
        assert!(
            matches!(error, DbError::Migration(_)) && error.to_string().contains("nowhere"),
            "{error}"
        );
        assert!(DatabaseService::get_table_info("half_done").is_err());
        assert!(DatabaseService::execute_query("SELECT 1", params! {}).is_ok());
        assert_eq!(DatabaseService::get_pool_status().unwrap().checked_out, 0);
        // The lock was given back: others can go on.
        database
            .scope()
            .run(|| assert!(DatabaseService::run_migrations(&MIGRATIONS).is_ok()));
    });
}
