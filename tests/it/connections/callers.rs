//! The source locations in errors and logs: each is the line of the application that has called the library.

use std::ops::ControlFlow;
use std::time::Duration;

use db_service::{
    Connection, DatabaseService, DbError, ReadOptions, TransactionOptions, params, values,
};
use tests::{QUICK_MIGRATIONS, TestDatabase};
use user_repo::{ListUsers, UserRepository, UserUpdate};

use crate::reporting::logs;

on_both_backends!(
    checkout_belongs_to_the_line_that_has_called_the_library,
    aborted_transaction_names_the_line_that_has_failed,
);

const SELECT: &str = "SELECT 1";

/// A call of the library in this line of this file.
type Call<'a> = (u32, &'a str, &'a dyn Fn());

/// A call on a connection in this line of this file.
type ConnectionCall<'a> = (u32, &'a str, &'a dyn Fn(&mut Connection));

fn nothing(_: &mut Connection) -> Result<(), DbError> {
    Ok(())
}

fn checkout_belongs_to_the_line_that_has_called_the_library(database: &TestDatabase) {
    logs::capture();
    let options = &TransactionOptions::default();
    #[rustfmt::skip]
    let calls: &[Call<'_>] = &[
        (line!(), "execute_query", &|| drop(DatabaseService::execute_query(SELECT, params! {}))),
        (line!(), "execute", &|| drop(DatabaseService::execute(SELECT, params! {}))),
        (line!(), "query_as", &|| drop(DatabaseService::query_as::<i64>(SELECT, params! {}))),
        (line!(), "execute_many", &|| drop(DatabaseService::execute_many(SELECT, &[params! {}]))),
        (line!(), "bulk_insert", &|| drop(DatabaseService::bulk_insert("t", &["n"], [values![1]]))),
        (line!(), "for_each_row", &|| drop(DatabaseService::for_each_row(SELECT, params! {}, |_| Ok::<_, DbError>(ControlFlow::Break(()))))),
        (line!(), "transaction", &|| drop(DatabaseService::transaction(nothing))),
        (line!(), "transaction_with", &|| drop(DatabaseService::transaction_with(options, nothing))),
        (line!(), "with_connection", &|| drop(DatabaseService::with_connection(|_| Ok(())))),
        (line!(), "connection", &|| drop(DatabaseService::connection())),
        (line!(), "read", &|| drop(DatabaseService::read(nothing))),
        (line!(), "read_with", &|| drop(DatabaseService::read_with(&ReadOptions::default(), nothing))),
        (line!(), "write_position", &|| drop(DatabaseService::write_position())),
        (line!(), "list_tables", &|| drop(DatabaseService::list_tables())),
        (line!(), "get_table_info", &|| drop(DatabaseService::get_table_info("t"))),
        (line!(), "vacuum_analyze", &|| drop(DatabaseService::vacuum_analyze(Some("t")))),
        (line!(), "run_migrations", &|| drop(DatabaseService::run_migrations(&QUICK_MIGRATIONS))),
        (line!(), "plan_migrations", &|| drop(DatabaseService::plan_migrations(&QUICK_MIGRATIONS))),
        (line!(), "migration_status", &|| drop(DatabaseService::migration_status(&QUICK_MIGRATIONS))),
        (line!(), "revert_migrations", &|| drop(DatabaseService::revert_migrations(&QUICK_MIGRATIONS, 0))),
        (line!(), "baseline_migrations", &|| drop(DatabaseService::baseline_migrations(&QUICK_MIGRATIONS, "1"))),
        (line!(), "create_user", &|| drop(UserRepository::create_user("grace", "grace@example.com", "secret"))),
        (line!(), "get_user_by_id", &|| drop(UserRepository::get_user_by_id(1))),
        (line!(), "get_user_by_username", &|| drop(UserRepository::get_user_by_username("grace"))),
        (line!(), "update_user", &|| drop(UserRepository::update_user(1, UserUpdate::new().is_active(true)))),
        (line!(), "delete_user", &|| drop(UserRepository::delete_user(7))),
        (line!(), "list_users", &|| drop(UserRepository::list_users(ListUsers::default()))),
        (line!(), "count_users", &|| drop(UserRepository::count_users(true))),
        (line!(), "verify_password", &|| drop(UserRepository::verify_password("grace", "secret"))),
        (line!(), "get_user_stats", &|| drop(UserRepository::get_user_stats())),
    ];
    // Each checkout counts as a leak, so the log names its place.
    database
        .scope_with(|config| config.leak_threshold = Some(Duration::from_nanos(1)))
        .run(|| {
            DatabaseService::execute_query("CREATE TABLE t (n INTEGER)", params! {}).unwrap();
            UserRepository::count_users(true).unwrap();
            for (line, method, call) in calls {
                let place = format!("checked out at {}:{line}:", file!());
                let before = logs::lines_with(&place).len();
                call();
                let lines = logs::lines_with(&place).len();
                assert!(lines > before, "no checkout of {method} at {place}");
            }
        });
}

fn aborted_transaction_names_the_line_that_has_failed(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    // On SQLite, only some errors end a transaction.
    let insert = "INSERT OR ROLLBACK INTO t VALUES (1)";
    let insert = if is_postgres {
        "INSERT INTO t VALUES (1)"
    } else {
        insert
    };
    #[rustfmt::skip]
    let calls: &[ConnectionCall<'_>] = &[
        (line!(), "execute_query", &|connection| drop(connection.execute_query(insert, params! {}))),
        (line!(), "execute", &|connection| drop(connection.execute(insert, params! {}))),
        (line!(), "query_as", &|connection| drop(connection.query_as::<i64>(insert, params! {}))),
        (line!(), "for_each_row", &|connection| drop(connection.for_each_row(insert, params! {}, |_| Ok::<_, DbError>(ControlFlow::Break(()))))),
    ];
    // These execute more than the caller's statement.
    #[rustfmt::skip]
    let calls_of_sqlite: &[ConnectionCall<'_>] = &[
        (line!(), "execute_many", &|connection| drop(connection.execute_many(insert, &[params! {}]))),
    ];
    #[rustfmt::skip]
    let calls_of_postgres: &[ConnectionCall<'_>] = &[
        (line!(), "get_table_info", &|connection| drop(connection.get_table_info("divided"))),
    ];
    let others = if is_postgres {
        calls_of_postgres
    } else {
        calls_of_sqlite
    };
    database.scope().run(|| {
        DatabaseService::execute("CREATE TABLE t (n INTEGER UNIQUE)", params! {}).unwrap();
        DatabaseService::execute("INSERT INTO t VALUES (1)", params! {}).unwrap();
        let view = "CREATE VIEW divided AS SELECT n FROM t WHERE 1 / (n - 1) = 1";
        DatabaseService::execute(view, params! {}).unwrap();
        for (line, method, call) in calls.iter().chain(others) {
            let result = DatabaseService::transaction(|connection| {
                call(connection);
                connection.execute_query(SELECT, params! {})
            });
            let Err(DbError::TransactionAborted { at: Some(at), .. }) = &result else {
                panic!("{method}: {result:?}");
            };
            assert_eq!((at.file(), at.line()), (file!(), *line), "{method}");
        }
    });
}
