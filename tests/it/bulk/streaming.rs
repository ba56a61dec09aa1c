//! Results that are streamed row by row.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::process::Command;

use db_service::{DatabaseService, DbError, Params, params, values};
use tests::TestDatabase;

on_both_backends!(
    streamed_rows_match_execute_query,
    connection_is_usable_after_a_stream_stops_early,
    error_in_the_middle_of_a_stream_is_returned,
    queries_in_the_row_callback_are_counted_separately,
    streamed_statements_that_write_are_committed,
    streaming_uses_bounded_memory,
);

#[derive(Debug, thiserror::Error)]
enum CallerError {
    #[error("enough at {0}")]
    Enough(i64),
    #[error(transparent)]
    Database(#[from] DbError),
}

/// Returns a query with so many rows that reading all of them would take minutes.
fn endless(url: &str) -> &'static str {
    if url.starts_with("postgres") {
        "SELECT generate_series(1, 3000000000) AS n"
    } else {
        "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers"
    }
}

fn read(sql: &str, params: Params, maximum: usize) -> Result<Vec<i64>, CallerError> {
    let mut found = Vec::new();
    DatabaseService::for_each_row(sql, params, |row| {
        found.push(row.get("n").map_err(CallerError::from)?);
        Ok::<_, CallerError>(if found.len() == maximum {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    })?;
    Ok(found)
}

fn streamed_rows_match_execute_query(database: &TestDatabase) {
    database.scope().run(|| {
        DatabaseService::execute_query(
            "CREATE TABLE numbers (n INTEGER, x TEXT, y DATE)",
            params! {},
        )
        .unwrap();
        let rows = (0_i32..5_000).map(|n| {
            values![
                n,
                "é".repeat(n as usize % 9),
                (n % 2 == 0).then_some("2026-11-23")
            ]
        });
        DatabaseService::bulk_insert("numbers", &["n", "x", "y"], rows).unwrap();
        let sql = "SELECT * FROM numbers WHERE n >= :from AND (y = :day OR y IS NULL) ORDER BY n;";
        for from in [0_i32, 1, 4_984, 4_999, 5_000] {
            let params = params! { "from" => from, "day" => "2026-11-23" };
            let mut streamed = Vec::new();
            let outcome: Result<(), DbError> =
                DatabaseService::for_each_row(sql, params.clone(), |row| {
                    streamed.push(row);
                    Ok(ControlFlow::Continue(()))
                });
            outcome.unwrap();
            assert_eq!(
                streamed,
                DatabaseService::execute_query(sql, params).unwrap()
            );
            assert_eq!(streamed.len(), 5_000 - from as usize);
        }
    });
}

fn connection_is_usable_after_a_stream_stops_early(database: &TestDatabase) {
    let sql = endless(database.url());
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            for maximum in [1, 16, 17, 5_000] {
                assert_eq!(read(sql, params! {}, maximum).unwrap().len(), maximum);
            }
            let failed =
                DatabaseService::for_each_row(sql, params! {}, |row| match row.get("n")? {
                    n if n > 20 => Err(CallerError::Enough(n)),
                    _ => Ok(ControlFlow::Continue(())),
                });
            assert!(matches!(failed, Err(CallerError::Enough(21))), "{failed:?}");
            let panicked = panic::catch_unwind(|| {
                DatabaseService::for_each_row(sql, params! {}, |_| -> Result<_, DbError> {
                    panic!("no more")
                })
            });
            assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"no more"));
            assert_eq!(DatabaseService::get_pool_status().unwrap().checked_out, 0);
            let committed: Result<_, CallerError> = DatabaseService::transaction(|connection| {
                connection.execute_query("CREATE TABLE pets (id INTEGER)", params! {})?;
                let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                    connection.for_each_row(sql, params! {}, |_| -> Result<_, DbError> {
                        panic!("no more")
                    })
                }));
                assert!(caught.is_err());
                for _ in 0..2 {
                    connection.for_each_row(sql, params! {}, |_| {
                        Ok::<_, DbError>(ControlFlow::Break(()))
                    })?;
                }
                connection.execute_query("INSERT INTO pets VALUES (1)", params! {})?;
                Ok(())
            });
            committed.unwrap();
            assert_eq!(
                DatabaseService::get_table_info("pets").unwrap().row_count,
                1
            );
        });
}

fn error_in_the_middle_of_a_stream_is_returned(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database.scope().run(|| {
        let sql = if is_postgres {
            "SELECT 100 / (100 - n) AS n FROM generate_series(1, 200) AS n"
        } else {
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT abs(CASE n WHEN 100 THEN -9223372036854775808 ELSE n END) AS n FROM numbers"
        };
        let mut rows = 0;
        let outcome: Result<(), DbError> = DatabaseService::for_each_row(sql, params! {}, |_| {
            rows += 1;
            Ok(ControlFlow::Continue(()))
        });
        assert!(matches!(outcome, Err(DbError::Query(_))), "{outcome:?}");
        // The rows of one fetch arrive together or not at all.
        assert!(if is_postgres { (16..100).contains(&rows) } else { rows == 99 }, "{rows}");
        for sql in ["SELECT n FROM nowhere", "SELEC 1", "", "SELECT :n AS n"] {
            read(sql, params! {}, 1).unwrap_err();
        }
        let statistics = DatabaseService::statistics().unwrap();
        let entry = statistics.statements.iter().find(|entry| entry.statement == sql).unwrap();
        assert_eq!((entry.calls, entry.errors, entry.rows), (1, 1, rows), "{statistics}");
        assert_eq!((statistics.pool.failed_queries, statistics.pool.successful_queries, statistics.pool.invalid), (5, 0, 0));
    });
}

fn queries_in_the_row_callback_are_counted_separately(database: &TestDatabase) {
    let sql = endless(database.url());
    database.scope().run(|| {
        let mut other = DatabaseService::connection().unwrap();
        let mut left = 30;
        let outcome: Result<(), DbError> = DatabaseService::for_each_row(sql, params! {}, |_| {
            other.execute_query("SELECT 1 AS other", params! {})?;
            left -= 1;
            Ok(if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        outcome.unwrap();
        let statistics = DatabaseService::statistics().unwrap();
        assert_eq!(statistics.pool.successful_queries, 31, "{statistics}");
        let calls = |text: &str| {
            statistics
                .statements
                .iter()
                .find(|entry| entry.statement == text)
                .map(|entry| (entry.calls, entry.rows))
        };
        assert_eq!(
            (calls(sql), calls("SELECT 1 AS other")),
            (Some((1, 30)), Some((30, 30)))
        );
        assert_eq!(statistics.statements.len(), 2, "{statistics}");
        drop(other);
        let before = DatabaseService::get_pool_status()
            .unwrap()
            .successful_queries;
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .for_each_row(sql, params! {}, |_| {
                Ok::<_, DbError>(ControlFlow::Break(()))
            })
            .unwrap();
        assert_eq!(
            DatabaseService::get_pool_status()
                .unwrap()
                .successful_queries,
            before + 1
        );
    });
}

fn streamed_statements_that_write_are_committed(database: &TestDatabase) {
    database.scope().run(|| {
        DatabaseService::execute_query("CREATE TABLE pets (n INTEGER)", params! {}).unwrap();
        let sql = "INSERT INTO pets VALUES (:a), (:b), (3) RETURNING n";
        assert_eq!(
            read(sql, params! { "a" => 1, "b" => 2 }, 2).unwrap(),
            [1, 2]
        );
        let failed = DatabaseService::for_each_row(sql, params! { "a" => 4, "b" => 5 }, |_| {
            Err::<ControlFlow<()>, _>(CallerError::Enough(0))
        });
        assert!(matches!(failed, Err(CallerError::Enough(0))), "{failed:?}");
        assert_eq!(
            DatabaseService::get_table_info("pets").unwrap().row_count,
            6
        );
    });
}

/// Text parameters are sent with the type that the column had when the statement first ran.
#[test]
fn stream_works_after_a_column_type_change() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let run = |sql: &str| DatabaseService::execute_query(sql, params! {}).unwrap();
    database.scope().run(|| {
        for (data_type, text) in [("text", "a"), ("date", "2026-11-23"), ("int[]", "{1}")] {
            run(&format!("CREATE TABLE t (n BIGINT, x {data_type})"));
            for (sql, expected) in [
                ("INSERT INTO t VALUES (1, :x) RETURNING n", 1),
                ("SELECT n FROM t WHERE x = :x", 1),
            ] {
                let found = read(sql, params! { "x" => text }, 2).unwrap();
                assert_eq!(found, [expected], "{data_type}: {sql}");
            }
            run("DROP TABLE t");
        }
    });
}

#[test]
fn rows_already_delivered_are_not_delivered_again() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let one_connection =
        database.scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0));
    one_connection.run(|| {
        // The error looks like the error of a statement that was prepared before its table changed.
        let function = "CREATE FUNCTION until_20 (n BIGINT) RETURNS BIGINT LANGUAGE plpgsql AS $$ BEGIN \
                        IF n = 20 THEN RAISE 'column is date but expression is of type text'; END IF; \
                        RETURN n; END $$";
        DatabaseService::execute_query(function, params! {}).unwrap();
        DatabaseService::execute_query("SELECT :n::int", params! { "n" => 1 }).unwrap();
        let mut found: Vec<i64> = Vec::new();
        let sql = "SELECT until_20(n) AS n FROM generate_series(1, 40) AS n";
        let result = DatabaseService::for_each_row(sql, params! {}, |row| {
            found.push(row.get("n")?);
            Ok::<_, DbError>(ControlFlow::Continue(()))
        });
        assert!(matches!(result, Err(DbError::Query(_))), "{result:?}");
        assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
        assert!(found.contains(&16), "{found:?}");
    });
}

/// Runs in a separate process, so that other tests do not affect its memory.
fn streaming_uses_bounded_memory(database: &TestDatabase) {
    let output = Command::new(env!("CARGO_BIN_EXE_stream"))
        .arg(database.url())
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = output_text
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let [bytes, kib_more] = numbers[..] else {
        panic!("{output_text}{}", String::from_utf8_lossy(&output.stderr));
    };
    assert!(bytes > 150_000_000, "{bytes} bytes were read");
    assert!(
        kib_more < 32 * 1024,
        "{kib_more} KiB more than at the start"
    );
}
