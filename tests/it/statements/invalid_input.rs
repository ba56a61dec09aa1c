//! Invalid statements and parameters return a typed error, change nothing and leave the pool intact.

use db_service::{Backend, DatabaseService, DbError, Params, params};
use tests::TestDatabase;

on_both_backends!(invalid_statements_and_parameters_change_nothing);

/// Executes an invalid statement and returns its error. Panics if a connection was closed or is still checked out.
#[track_caller]
fn error(sql: &str, params: Params) -> DbError {
    let error = DatabaseService::execute_query(sql, params).unwrap_err();
    let status = DatabaseService::get_pool_status().unwrap();
    assert_eq!((status.checked_out, status.invalid), (0, 0), "{error}");
    error
}

fn invalid_statements_and_parameters_change_nothing(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            DatabaseService::execute_query("CREATE TABLE t (n INTEGER NOT NULL)", params! {})
                .unwrap();
            let missing = error("INSERT INTO t VALUES (:n)", params! {});
            assert_eq!(
                missing.to_string(),
                "the statement needs a parameter :n, which was not given"
            );
            let unused = error("INSERT INTO t VALUES (1)", params! { "n" => 1 });
            assert_eq!(
                unused.to_string(),
                "the parameter :n was given, but the statement does not use it"
            );
            assert!(matches!(error("", params! {}), DbError::EmptyStatement));
            assert!(matches!(
                error(" -- nothing", params! {}),
                DbError::EmptyStatement
            ));
            for sql in [
                "SELEC 1",
                "SELECT * FROM nowhere",
                "INSERT INTO t VALUES (NULL)",
                "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)",
                "SELECT 'unterminated",
                "SELECT (1",
                "SELECT \0",
                "INSERT INTO t VALUES (1, 2, 3)",
                "COMMIT PREPARED 'x'",
            ] {
                let text = error(sql, params! {}).to_string();
                assert!(!text.is_empty(), "{sql}");
            }
            let nul = DatabaseService::execute_query(
                "SELECT :text AS text",
                params! { "text" => "a\0b" },
            );
            match DatabaseService::connection().unwrap().backend() {
                Backend::Postgres => assert!(nul.unwrap_err().to_string().contains("0x00")),
                _ => assert_eq!(nul.unwrap()[0].get::<String>("text").unwrap(), "a\0b"),
            }
            let insert = "INSERT INTO t VALUES (:n)";
            assert!(
                DatabaseService::execute_many(
                    insert,
                    &[params! { "n" => 1 }, params! { "m" => 1 }]
                )
                .is_err()
            );
            assert!(
                DatabaseService::execute_many(
                    insert,
                    &[params! { "n" => 1 }, params! { "n" => None::<i32> }]
                )
                .is_err()
            );
            assert_eq!(
                DatabaseService::get_table_info("t").unwrap().row_count,
                0,
                "nothing was changed"
            );
        });
}
