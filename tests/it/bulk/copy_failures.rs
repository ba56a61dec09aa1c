//! A `bulk_insert` that fails early leaves the connection in step: no later statement gets the answer of an earlier one.

use std::panic::{self, AssertUnwindSafe};

use db_service::{Connection, DatabaseService, DbError, params, values};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Integer;
use tests::TestDatabase;

/// Answers that do not fit come in about one of eight runs, if they come.
const RUNS: i32 = 200;

const SCHEMA: [&str; 14] = [
    "CREATE TABLE proofs (n int PRIMARY KEY)",
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

/// Where the rows go, and a value that is refused there at the latest.
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

/// Has an insert refused, and then asks for what only one answer fits, by each way to ask.
fn refuse_and_go_on(connection: &mut Connection, failure: (&str, &str, &str), run: i32) {
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

fn insert_proof(connection: &mut Connection, n: i32) -> Result<(), DbError> {
    let insert = "INSERT INTO proofs VALUES (:n)";
    connection
        .execute_query(insert, params! { "n" => n })
        .map(drop)
}

fn proofs() -> i64 {
    let sql = "SELECT count(*) AS count FROM proofs";
    DatabaseService::execute_query(sql, params! {}).unwrap()[0]
        .get("count")
        .unwrap()
}

#[test]
fn statements_after_a_refused_insert_get_their_own_answers() {
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
                            refuse_and_go_on(connection, failure, run);
                            let nested: Result<(), DbError> =
                                connection.transaction(|connection| {
                                    refuse_and_go_on(connection, failure, run);
                                    insert_proof(connection, run)
                                });
                            nested
                        });
                    committed.unwrap();
                }
                let mut connection = DatabaseService::connection().unwrap();
                for run in 0..runs {
                    refuse_and_go_on(&mut connection, failure, run);
                }
                std::mem::drop(connection);
                assert_eq!(proofs(), i64::from(runs), "{failure:?}");
                DatabaseService::execute_query("DELETE FROM proofs", params! {}).unwrap();
            }
            let status = DatabaseService::get_pool_status().unwrap();
            assert_eq!(status.invalid, 0, "no connection was given up");
        });
    }
}

#[test]
fn a_deferred_violation_after_a_refused_insert_is_reported() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        prepare();
        let deferred = "CREATE TABLE deferred (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)";
        DatabaseService::execute_query(deferred, params! {}).unwrap();
        for run in 0..RUNS {
            let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
                refuse_and_go_on(connection, FAILURES[0], run);
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

/// diesel's own `copy_from` is not ours to repair. What it leaves on the connection never becomes a commit that was none.
#[test]
fn a_connection_whose_answers_do_not_fit_is_lost() {
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
                    let _ = insert_proof(connection, run);
                    Ok::<_, DbError>(())
                })
            }));
            let found = proofs();
            match outcome {
                Ok(Ok(())) => assert_eq!(found, 1, "a commit commits"),
                Ok(Err(error)) => {
                    assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
                    assert_eq!(found, 0, "an error changes nothing");
                }
                Err(_) => panic!("the driver panicked in run {run}"),
            }
            DatabaseService::execute_query("DELETE FROM proofs", params! {}).unwrap();
        }
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!(status.checked_out, 0);
    });
}

/// A rollback that fails says nothing of what the session still holds.
#[test]
fn a_rollback_that_fails_closes_the_connection() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        prepare();
        let outcome: Result<(), DbError> = DatabaseService::transaction(|connection| {
            insert_proof(connection, 1)?;
            let nested: Result<(), DbError> = connection.transaction(|connection| {
                // Diesel's savepoint is gone, so it cannot be rolled back to.
                let Connection::Postgres(inner) = &mut *connection else {
                    unreachable!()
                };
                diesel::sql_query("RELEASE SAVEPOINT diesel_savepoint_1").execute(inner)?;
                Err(DbError::EmptyStatement)
            });
            assert!(nested.is_err());
            // By the service's own statements and by diesel's alike.
            let error = insert_proof(connection, 2).unwrap_err();
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
        assert_eq!(proofs(), 0);
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.invalid, status.transactions_committed), (1, 0));
    });
}
