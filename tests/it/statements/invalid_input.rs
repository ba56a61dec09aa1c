//! Invalid statements and parameters return a typed error, change nothing and leave the pool intact.

use std::ops::ControlFlow;

use db_service::{Backend, DatabaseService, DbError, Params, params};
use tests::TestDatabase;

on_both_backends!(
    invalid_statements_and_parameters_change_nothing,
    placeholders_of_other_drivers_are_refused_by_every_entry_point,
);

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

fn placeholders_of_other_drivers_are_refused_by_every_entry_point(database: &TestDatabase) {
    database.scope().run(|| {
        DatabaseService::execute("CREATE TABLE t (n INTEGER)", params! {}).unwrap();
        for (placeholder, shown) in [
            ("?", "?"),
            ("?1", "?1"),
            ("$1", "$1"),
            ("$n", "$n"),
            ("%s", "%s"),
            ("%(n)s", "%…"),
        ] {
            let sql = format!("SELECT n FROM t WHERE n = {placeholder} AND n > 0");
            let each = |_: db_service::Row| Ok::<_, DbError>(ControlFlow::Continue(()));
            let outcomes = [
                DatabaseService::execute_query(&sql, params! {}).map(drop),
                DatabaseService::execute(&sql, params! {}).map(drop),
                DatabaseService::execute_many(&sql, &[params! {}]).map(drop),
                DatabaseService::query_as::<i64>(&sql, params! {}).map(drop),
                DatabaseService::for_each_row(&sql, params! {}, each),
            ];
            for outcome in outcomes {
                match outcome {
                    Err(DbError::RawPlaceholder { placeholder, .. }) => {
                        assert_eq!(placeholder, shown)
                    }
                    other => panic!("{sql}: {other:?}"),
                }
            }
        }
        // `%` stays an operator.
        let rows = DatabaseService::execute_query(
            "SELECT 7 %n AS rest FROM (SELECT 4 AS n) x",
            params! {},
        );
        assert_eq!(rows.unwrap()[0].get::<i64>("rest").unwrap(), 3);
    });
}

#[test]
fn question_marks_stay_operators_of_json() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let sql = r#"SELECT doc ? 'a' AND doc ? :key::text AND doc?'b' AND doc ?| array['x', 'a'] AND doc ?& array['a', 'b']
                     AND doc @? '$.a ? (@ == 1)' AND NOT doc ? ('c') AS found FROM (SELECT '{"a": 1, "b": 2}'::jsonb AS doc) d"#;
        let rows = DatabaseService::execute_query(sql, params! { "key" => "b" }).unwrap();
        assert!(rows[0].get::<bool>("found").unwrap());
    });
}
