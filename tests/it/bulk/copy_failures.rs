//! A `bulk_insert` that fails early does not desynchronize the connection: no later statement gets the answer of an
//! earlier one.

use std::panic::{self, AssertUnwindSafe};

use db_service::{Connection, DatabaseService, DbError, params, values};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use tests::TestDatabase;

/// The number of runs per case. A desynchronized connection gives a wrong answer in about one of eight runs.
const RUNS: i32 = 200;

const SCHEMA: [&str; 14] = [
    "CREATE TABLE markers (n int PRIMARY KEY)",
    "CREATE TABLE plain (n int CHECK (n < 100), g int GENERATED ALWAYS AS (n + 1) STORED)",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$",
    "CREATE TABLE before_statement (n int)",
    "CREATE TRIGGER t BEFORE INSERT ON before_statement EXECUTE FUNCTION refuse()",
    "CREATE TABLE partitioned (n int) PARTITION BY RANGE (n)",
    "CREATE TABLE part PARTITION OF partitioned FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE before_row (n int)",
    "CREATE TRIGGER t BEFORE INSERT ON before_row FOR EACH ROW EXECUTE FUNCTION refuse()",
    "CREATE VIEW several AS SELECT a.n FROM plain a JOIN plain b ON a.n = b.n",
    "CREATE MATERIALIZED VIEW stored AS SELECT 1 AS n",
    "CREATE EXTENSION file_fdw",
    "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
    "CREATE FOREIGN TABLE foreign_file (n int) SERVER files OPTIONS (filename '/dev/null')",
];

/// Table, column and value of an insert that fails, at the latest when the server reads the value.
const FAILURES: [(&str, &str, &str); 9] = [
    ("before_statement", "n", "1"),
    ("several", "n", "1"),
    ("stored", "n", "1"),
    ("foreign_file", "n", "1"),
    ("before_row", "n", "1"),
    ("partitioned", "n", "11"),
    ("plain", "nowhere", "1"),
    ("plain", "g", "1"),
    ("plain", "n", "x"),
];

fn prepare() {
    for sql in SCHEMA {
        DatabaseService::execute_query(sql, params! {}).unwrap();
    }
}

/// Runs an insert that fails. Then runs a query through db-service and one through diesel, and checks that each gets
/// its own answer.
fn fail_insert_and_check_answers(
    connection: &mut Connection,
    failure: (&str, &str, &str),
    run: i32,
) {
    let (table, column, value) = failure;
    let error = connection
        .bulk_insert(table, &[column], [values![value]])
        .expect_err(table);
    assert!(
        !matches!(error, DbError::ConnectionLost(_)),
        "{table}: {error}"
    );
    let rows = connection
        .execute_query("SELECT CAST(:n AS int) AS n", params! { "n" => run })
        .unwrap();
    assert_eq!(rows[0].get::<i32>("n").unwrap(), run, "{table}");
    let typed: i32 = diesel::select(sql::<Integer>(&(-run).to_string()))
        .get_result(connection)
        .unwrap();
    assert_eq!(typed, -run, "{table}");
}

fn insert_marker(connection: &mut Connection, n: i32) -> Result<(), DbError> {
    let insert = "INSERT INTO markers VALUES (:n)";
    connection
        .execute_query(insert, params! { "n" => n })
        .map(drop)
}

fn markers() -> i64 {
    let sql = "SELECT count(*) AS count FROM markers";
    DatabaseService::execute_query(sql, params! {}).unwrap()[0]
        .get("count")
        .unwrap()
}

#[test]
fn statements_after_a_failed_insert_get_their_own_answers() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for (cache, runs) in [(512, RUNS), (0, RUNS / 10)] {
        let scope = database.scope_with(|config| config.statement_cache_size = cache);
        scope.run(|| {
            let drop = "DROP SCHEMA public CASCADE";
            DatabaseService::execute_query(drop, params! {}).unwrap();
            DatabaseService::execute_query("CREATE SCHEMA public", params! {}).unwrap();
            prepare();
            for failure in FAILURES {
                for run in 0..runs {
                    let committed: Result<(), DbError> =
                        DatabaseService::transaction(|connection| {
                            fail_insert_and_check_answers(connection, failure, run);
                            let nested: Result<(), DbError> =
                                connection.transaction(|connection| {
                                    fail_insert_and_check_answers(connection, failure, run);
                                    insert_marker(connection, run)
                                });
                            nested
                        });
                    committed.unwrap();
                }
                let mut connection = DatabaseService::connection().unwrap();
                for run in 0..runs {
                    fail_insert_and_check_answers(&mut connection, failure, run);
                }
                std::mem::drop(connection);
                assert_eq!(markers(), i64::from(runs), "{failure:?}");
                DatabaseService::execute_query("DELETE FROM markers", params! {}).unwrap();
            }
            let status = DatabaseService::get_pool_status().unwrap();
            assert_eq!(status.invalid, 0, "no connection was closed as invalid");
        });
    }
}

#[test]
fn deferred_violation_after_a_failed_insert_is_reported() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        prepare();
        let deferred = "CREATE TABLE deferred (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
        DatabaseService::execute_query(deferred, params! {}).unwrap();
        for run in 0..RUNS {
            let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
                fail_insert_and_check_answers(connection, FAILURES[0], run);
                let twice = "INSERT INTO deferred VALUES (1), (1)";
                connection.execute_query(twice, params! {}).map(drop)
            });
            assert!(
                matches!(committed, Err(DbError::UniqueViolation { .. })),
                "{committed:?}"
            );
        }
    });
}

diesel::table! {
    before_statement (n) {
        n -> Integer,
    }
}

/// A failed `copy_from` of diesel can desynchronize the connection, which db-service cannot prevent. A transaction
/// still never reports a commit that did not happen.
#[test]
fn desynchronized_connection_is_reported_as_lost() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        prepare();
        for run in 0..RUNS {
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                DatabaseService::transaction(|connection| {
                    let nested = connection.transaction(|connection| {
                        let Connection::Postgres(inner) = connection else {
                            unreachable!()
                        };
                        diesel::copy_from(before_statement::table)
                            .from_raw_data(before_statement::table, |out| {
                                out.write_all(b"1\n").map_err(|error| {
                                    diesel::result::Error::SerializationError(error.into())
                                })
                            })
                            .execute(inner)
                    });
                    assert!(nested.is_err());
                    for _ in 0..3 {
                        let rows = connection.execute_query("SELECT 7 AS n", params! {});
                        match rows {
                            Ok(rows) => assert_eq!(rows[0].get::<i32>("n").unwrap(), 7),
                            Err(error) => {
                                assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
                                assert!(
                                    connection
                                        .execute_query("SELECT 7 AS n", params! {})
                                        .is_err()
                                );
                                let typed: QueryResult<i32> =
                                    diesel::select(sql::<Integer>("7")).get_result(connection);
                                assert_ne!(typed.as_ref().unwrap_or(&0), &8);
                            }
                        }
                    }
                    let _ = insert_marker(connection, run);
                    Ok::<_, DbError>(())
                })
            }));
            let found = markers();
            match outcome {
                Ok(Ok(())) => assert_eq!(found, 1, "a reported commit is in the database"),
                Ok(Err(error)) => {
                    assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
                    assert_eq!(found, 0, "a failed transaction changes nothing");
                }
                Err(_) => panic!("the driver panicked in run {run}"),
            }
            DatabaseService::execute_query("DELETE FROM markers", params! {}).unwrap();
        }
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!(status.checked_out, 0);
    });
}

/// After a failed rollback, the state of the session is unknown.
#[test]
fn failed_rollback_closes_the_connection() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        prepare();
        let outcome: Result<(), DbError> = DatabaseService::transaction(|connection| {
            insert_marker(connection, 1)?;
            let nested: Result<(), DbError> = connection.transaction(|connection| {
                // Without diesel's savepoint, the rollback to it fails.
                let Connection::Postgres(inner) = &mut *connection else {
                    unreachable!()
                };
                diesel::sql_query("RELEASE SAVEPOINT diesel_savepoint_1").execute(inner)?;
                Err(DbError::EmptyStatement)
            });
            assert!(nested.is_err());
            // Statements of db-service and statements of diesel both fail.
            let error = insert_marker(connection, 2).unwrap_err();
            assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
            let typed: QueryResult<i32> =
                diesel::select(sql::<Integer>("1")).get_result(connection);
            assert!(typed.is_err());
            let nested: Result<(), DbError> = connection.transaction(|_| Ok(()));
            assert!(
                matches!(nested, Err(DbError::ConnectionLost(_))),
                "{nested:?}"
            );
            Ok(())
        });
        assert!(
            matches!(outcome, Err(DbError::ConnectionLost(_))),
            "{outcome:?}"
        );
        assert_eq!(markers(), 0);
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.invalid, status.transactions_committed), (1, 0));
    });
}
