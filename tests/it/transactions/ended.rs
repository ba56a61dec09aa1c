//! Transactions that end before their closure: by an error of SQLite, by a `COMMIT`, or by a failed statement on
//! PostgreSQL.

use std::ops::ControlFlow;
use std::panic::Location;

use db_service::{Connection, DatabaseService, DbError, PoolStatus, params, values};
use diesel::connection::SimpleConnection;
use diesel::connection::{AnsiTransactionManager, TransactionManager as _};
use diesel::prelude::*;
use tests::TestDatabase;

use super::commit_and_rollback::{INSERT, create_table, n, numbers};

on_both_backends!(
    text_that_ends_the_transaction_is_refused,
    commit_on_the_drivers_connection_fails_the_transaction,
    commit_and_begin_on_the_drivers_connection_fail_the_transaction,
    transaction_inside_a_raw_one_is_refused,
    failed_savepoint_does_not_change_how_the_transaction_counts,
);

diesel::table! {
    t (n) {
        n -> Integer,
    }
}

diesel::table! {
    strict (n) {
        n -> Integer,
    }
}

/// Executes on the driver's connection.
fn on_driver(connection: &mut Connection, sql: &str) -> QueryResult<()> {
    match connection {
        Connection::Postgres(inner) => inner.batch_execute(sql),
        Connection::Sqlite(inner) => inner.batch_execute(sql),
    }
}

/// Returns the errors of one statement of each kind.
fn statements(connection: &mut Connection) -> Vec<(&'static str, DbError)> {
    let mut errors = Vec::new();
    let mut note = |kind, result: Result<(), DbError>| match result {
        Ok(()) => panic!("{kind} was executed"),
        Err(error) => errors.push((kind, error)),
    };
    let query = connection.execute_query(INSERT, n(90));
    note("execute_query", query.map(drop));
    let count = diesel::sql_query("INSERT INTO t VALUES (91)").execute(connection);
    note("sql_query", count.map(drop).map_err(DbError::from));
    let count = diesel::insert_into(t::table)
        .values(t::n.eq(92))
        .execute(connection);
    note("a typed insert", count.map(drop).map_err(DbError::from));
    let rows = t::table.select(t::n).load::<i32>(connection);
    note("a typed query", rows.map(drop).map_err(DbError::from));
    let batch = connection.batch_execute("INSERT INTO t VALUES (93)");
    note("batch_execute", batch.map_err(DbError::from));
    let many = connection.execute_many(INSERT, &[n(94), n(95)]);
    note("execute_many", many.map(drop));
    let bulk = connection.bulk_insert("t", &["n"], [values![96]]);
    note("bulk_insert", bulk.map(drop));
    let each = connection.for_each_row("SELECT n FROM t", params! {}, |_| {
        Ok::<_, DbError>(ControlFlow::Continue(()))
    });
    note("for_each_row", each);
    let nested = connection.transaction(|_| Ok::<_, DbError>(()));
    note("a nested transaction", nested);
    errors
}

#[track_caller]
fn assert_all_aborted(connection: &mut Connection, place: Option<&'static Location<'static>>) {
    for (kind, error) in statements(connection) {
        match error {
            DbError::TransactionAborted { at, .. } => assert_eq!(
                at.map(|at| (at.file(), at.line())),
                place.map(|place| (place.file(), place.line())),
                "{kind}"
            ),
            other => panic!("{kind}: {other:?}"),
        }
    }
}

#[track_caller]
fn assert_all_refused_after_an_end(connection: &mut Connection) {
    for (kind, error) in statements(connection) {
        assert!(
            matches!(error, DbError::EndsTransaction),
            "{kind}: {error:?}"
        );
    }
}

/// Asserts that the pool's only connection works, and that it is in no transaction.
#[track_caller]
fn assert_connection_works(database: &TestDatabase, expected: &[i64]) {
    assert_eq!(numbers(), expected);
    DatabaseService::execute_query(INSERT, n(1_000)).unwrap();
    let seen_by_others = database.scope().run(numbers);
    assert_eq!(seen_by_others.last(), Some(&1_000), "it was committed");
    DatabaseService::execute_query("DELETE FROM t WHERE n = 1000", params! {}).unwrap();
}

fn ends() -> (u64, u64) {
    let PoolStatus {
        transactions_committed,
        transactions_rolled_back,
        ..
    } = DatabaseService::get_pool_status().unwrap();
    (transactions_committed, transactions_rolled_back)
}

fn with_one_connection(database: &TestDatabase, test: impl FnOnce()) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(test);
}

type Failure = fn(&mut Connection) -> Option<&'static Location<'static>>;

/// Returns the location of the calling line.
#[track_caller]
fn here() -> &'static Location<'static> {
    Location::caller()
}

#[test]
fn sqlite_error_that_ends_the_transaction_fails_all_of_it() {
    const OR_ROLLBACK: &str = "INSERT OR ROLLBACK INTO t VALUES (1)";
    let failures: [(&str, Failure); 5] = [
        ("execute_query", |connection| {
            #[rustfmt::skip]
            let (result, at) = (connection.execute_query(OR_ROLLBACK, params! {}), here());
            assert!(matches!(result, Err(DbError::UniqueViolation { .. })));
            Some(at)
        }),
        ("sql_query", |connection| {
            let result = diesel::sql_query(OR_ROLLBACK).execute(connection);
            assert!(result.is_err());
            None
        }),
        ("batch_execute", |connection| {
            assert!(connection.batch_execute(OR_ROLLBACK).is_err());
            None
        }),
        ("get_result", |connection| {
            let result = diesel::insert_into(strict::table)
                .values(strict::n.eq(1))
                .returning(strict::n)
                .get_result::<i32>(connection);
            assert!(result.is_err());
            None
        }),
        ("the driver's connection", |connection| {
            assert!(on_driver(connection, OR_ROLLBACK).is_err());
            None
        }),
    ];
    let database = TestDatabase::sqlite();
    with_one_connection(&database, || {
        create_table();
        let strict = "CREATE TABLE strict (n INTEGER PRIMARY KEY ON CONFLICT ROLLBACK)";
        DatabaseService::execute_query(strict, params! {}).unwrap();
        for table in ["t", "strict"] {
            let sql = format!("INSERT INTO {table} VALUES (1)");
            DatabaseService::execute_query(&sql, params! {}).unwrap();
        }
        for (kind, fail) in failures {
            for nested in [false, true] {
                let before = ends();
                let outcome = DatabaseService::transaction(|connection| {
                    connection.execute_query(INSERT, n(2))?;
                    let at = if nested {
                        let mut at = None;
                        let inner = connection.transaction(|connection| {
                            connection.execute_query(INSERT, n(3))?;
                            at = fail(connection);
                            assert_all_aborted(connection, at);
                            Ok::<_, DbError>(())
                        });
                        assert!(
                            matches!(inner, Err(DbError::TransactionAborted { .. })),
                            "{kind}: {inner:?}"
                        );
                        at
                    } else {
                        fail(connection)
                    };
                    assert_all_aborted(connection, at);
                    Ok::<_, DbError>(())
                });
                assert!(
                    matches!(outcome, Err(DbError::TransactionAborted { .. })),
                    "{kind}: {outcome:?}"
                );
                assert_eq!(ends(), (before.0, before.1 + 1), "{kind}");
                assert_connection_works(&database, &[1]);
            }
        }
    });
}

/// A transaction that the driver's connection begins in place of the ended one does not take its place.
#[test]
fn begin_on_the_drivers_connection_does_not_revive_an_ended_transaction() {
    let database = TestDatabase::sqlite();
    with_one_connection(&database, || {
        create_table();
        DatabaseService::execute_query(INSERT, n(1)).unwrap();
        let begins: [fn(&mut Connection) -> QueryResult<()>; 2] = [
            |connection| on_driver(connection, "BEGIN"),
            |connection| match connection {
                Connection::Sqlite(inner) => AnsiTransactionManager::begin_transaction(inner),
                Connection::Postgres(_) => Ok(()),
            },
        ];
        for begin in begins {
            let outcome: Result<(), DbError> = DatabaseService::transaction(|connection| {
                let or_rollback = "INSERT OR ROLLBACK INTO t VALUES (1)";
                connection
                    .execute_query(or_rollback, params! {})
                    .unwrap_err();
                begin(connection).unwrap();
                let refused = connection.execute_query(INSERT, n(2)).unwrap_err();
                assert!(
                    matches!(refused, DbError::TransactionAborted { .. }),
                    "{refused:?}"
                );
                Ok(())
            });
            assert!(
                matches!(outcome, Err(DbError::TransactionAborted { .. })),
                "{outcome:?}"
            );
            assert_connection_works(&database, &[1]);
        }
    });
}

#[test]
fn sqlite_full_disk_fails_all_of_the_transaction() {
    let database = TestDatabase::sqlite();
    with_one_connection(&database, || {
        create_table();
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .batch_execute("CREATE TABLE blobs (b BLOB); PRAGMA max_page_count = 10")
            .unwrap();
        let outcome = connection.transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let sql = "INSERT INTO blobs VALUES (randomblob(1000000))";
            let full = connection.execute_query(sql, params! {});
            assert!(matches!(full, Err(DbError::DiskFull(_))), "{full:?}");
            // SQLite documents that it may or may not end the transaction.
            let later = connection.execute_query(INSERT, n(2));
            if let Err(error) = &later {
                assert!(
                    matches!(error, DbError::TransactionAborted { .. }),
                    "{error:?}"
                );
            }
            Ok::<_, DbError>(())
        });
        drop(connection);
        match outcome {
            Ok(()) => assert_connection_works(&database, &[1, 2]),
            Err(error) => {
                assert!(
                    matches!(error, DbError::TransactionAborted { .. }),
                    "{error:?}"
                );
                assert_connection_works(&database, &[]);
            }
        }
    });
}

fn text_that_ends_the_transaction_is_refused(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        let texts: [(&str, &str); 6] = [
            ("COMMIT", ""),
            ("COMMIT; INSERT INTO t VALUES (50)", "several"),
            ("COMMIT; BEGIN", "several"),
            ("ROLLBACK; BEGIN", "several"),
            ("/* x */ end;", ""),
            ("PREPARE TRANSACTION 'x'", ""),
        ];
        // SQLite takes `$a(')` as one variable.
        let hidden = ("SELECT $a(') ; COMMIT ; SELECT 1 --'", "several");
        let is_sqlite = database.url().starts_with("sqlite");
        for (text, several) in texts.into_iter().chain(is_sqlite.then_some(hidden)) {
            for level in [1, 2] {
                let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
                    connection.execute_query(INSERT, n(1))?;
                    let refused = |connection: &mut Connection| {
                        let batch = connection.batch_execute(text).map_err(DbError::from);
                        assert!(matches!(batch, Err(DbError::EndsTransaction)), "{batch:?}");
                        let query = diesel::sql_query(text).execute(connection);
                        assert!(
                            matches!(&query, Err(diesel::result::Error::QueryBuilderError(error))
                            if matches!(error.downcast_ref(), Some(DbError::EndsTransaction))),
                            "{query:?}"
                        );
                        if several.is_empty() {
                            let query = connection.execute_query(text, params! {});
                            assert!(matches!(query, Err(DbError::EndsTransaction)), "{query:?}");
                            let many = connection.execute_many(text, &[params! {}]);
                            assert!(matches!(many, Err(DbError::EndsTransaction)), "{many:?}");
                            let each = connection.for_each_row(text, params! {}, |_| {
                                Ok::<_, DbError>(ControlFlow::Continue(()))
                            });
                            assert!(matches!(each, Err(DbError::EndsTransaction)), "{each:?}");
                        }
                    };
                    if level == 1 {
                        refused(connection);
                    } else {
                        connection.transaction(|connection| {
                            refused(connection);
                            Ok::<_, DbError>(())
                        })?;
                    }
                    let seen_by_others = database.scope().run(numbers);
                    assert!(seen_by_others.is_empty(), "{text} was executed");
                    connection.execute_query(INSERT, n(2))?;
                    Ok(())
                });
                // A refused text has no effect, so the transaction goes on.
                committed.unwrap();
                assert_connection_works(database, &[1, 2]);
                DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
            }
        }
    });
}

fn commit_on_the_drivers_connection_fails_the_transaction(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        for level in [1, 2] {
            for end_with_error in [false, true] {
                let outcome = DatabaseService::transaction(|connection| {
                    connection.execute_query(INSERT, n(1))?;
                    if level == 1 {
                        on_driver(connection, "COMMIT").unwrap();
                        assert_all_refused_after_an_end(connection);
                    } else {
                        let inner: Result<(), DbError> = connection.transaction(|connection| {
                            on_driver(connection, "COMMIT").unwrap();
                            assert_all_refused_after_an_end(connection);
                            Ok(())
                        });
                        assert!(matches!(inner, Err(DbError::EndsTransaction)), "{inner:?}");
                        assert_all_refused_after_an_end(connection);
                    }
                    match end_with_error {
                        false => Ok(()),
                        true => Err(DbError::NoRow),
                    }
                });
                match end_with_error {
                    false => assert!(
                        matches!(outcome, Err(DbError::EndsTransaction)),
                        "{outcome:?}"
                    ),
                    true => assert!(matches!(outcome, Err(DbError::NoRow)), "{outcome:?}"),
                }
                assert_connection_works(database, &[1]);
                DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
            }
        }
    });
}

fn commit_and_begin_on_the_drivers_connection_fail_the_transaction(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        for text in ["COMMIT; BEGIN", "ROLLBACK; BEGIN"] {
            let before = ends();
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query(INSERT, n(1))?;
                on_driver(connection, text).unwrap();
                assert_all_refused_after_an_end(connection);
                Ok::<_, DbError>(())
            });
            assert!(
                matches!(outcome, Err(DbError::EndsTransaction)),
                "{outcome:?}"
            );
            assert_eq!(ends(), (before.0, before.1 + 1));
            let expected: &[i64] = if text.starts_with("COMMIT") {
                &[1]
            } else {
                &[]
            };
            assert_connection_works(database, expected);
            DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
        }
    });
}

fn transaction_inside_a_raw_one_is_refused(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("BEGIN", params! {}).unwrap();
        connection.execute_query(INSERT, n(1)).unwrap();
        let refused = connection.transaction(|_| Ok::<_, DbError>(()));
        assert!(refused.is_err());
        let refused = connection.execute_many(INSERT, &[n(2)]);
        assert!(refused.is_err());
        let refused = diesel::Connection::transaction(&mut *connection, |connection| {
            connection.batch_execute("INSERT INTO t VALUES (3)")
        });
        assert!(refused.is_err());
        connection.execute_query(INSERT, n(4)).unwrap();
        assert!(database.scope().run(numbers).is_empty());
        connection.execute_query("COMMIT", params! {}).unwrap();
        connection
            .transaction(|connection| connection.execute_query(INSERT, n(5)))
            .unwrap();
        drop(connection);
        assert_connection_works(database, &[1, 4, 5]);
    });
}

/// A nested closure ignores an error and returns `Ok`. Only its savepoint is rolled back.
fn failed_savepoint_does_not_change_how_the_transaction_counts(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        let is_postgres = database.url().starts_with("postgres");
        let before = ends();
        DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let inner = connection.transaction(|connection| {
                connection.execute_query(INSERT, n(2))?;
                assert!(connection.execute_query(INSERT, n(1)).is_err());
                Ok::<_, DbError>(())
            });
            match inner {
                Err(DbError::TransactionAborted { .. }) if is_postgres => {}
                Ok(()) if !is_postgres => {}
                other => panic!("{other:?}"),
            }
            connection.execute_query(INSERT, n(3))?;
            Ok::<_, DbError>(())
        })
        .unwrap();
        assert_eq!(ends(), (before.0 + 1, before.1));
        let expected: &[i64] = if is_postgres { &[1, 3] } else { &[1, 2, 3] };
        assert_connection_works(database, expected);
    });
}

#[test]
fn postgres_error_that_is_ignored_fails_all_later_statements() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let failures: [Failure; 3] = [
        |connection| {
            #[rustfmt::skip]
            let (result, at) = (connection.execute_query("SELECT 1 / 0", params! {}), here());
            assert!(result.is_err());
            Some(at)
        },
        |connection| {
            assert!(
                diesel::sql_query("SELECT 1 / 0")
                    .execute(connection)
                    .is_err()
            );
            None
        },
        |connection| {
            assert!(on_driver(connection, "SELECT 1 / 0").is_err());
            None
        },
    ];
    with_one_connection(&database, || {
        create_table();
        for fail in failures {
            let mut place = None;
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query(INSERT, n(1))?;
                place = fail(connection);
                assert_all_aborted(connection, place);
                Ok::<_, DbError>(())
            });
            match outcome {
                Err(DbError::TransactionAborted { first, at, .. }) => {
                    assert!(first.to_string().contains("division by zero"), "{first}");
                    assert_eq!(at.map(Location::line), place.map(Location::line));
                }
                other => panic!("{other:?}"),
            }
            assert_connection_works(&database, &[]);
        }
    });
}

#[test]
fn postgres_transaction_goes_on_after_a_rollback_to_a_savepoint() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    with_one_connection(&database, || {
        create_table();
        for fails_again in [false, true] {
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query("SAVEPOINT a", params! {})?;
                let first = connection.execute_query("SELECT 1 / 0", params! {});
                assert!(first.is_err());
                connection.execute_query("ROLLBACK TO a", params! {})?;
                connection.execute_query(INSERT, n(1))?;
                let nested = connection
                    .transaction(|connection| connection.execute_query("SELECT 2 / 0", params! {}));
                assert!(matches!(nested, Err(DbError::Query(_))), "{nested:?}");
                connection.execute_query(INSERT, n(2))?;
                if fails_again {
                    let again = connection.execute_query("SELECT * FROM nowhere", params! {});
                    assert!(matches!(again, Err(DbError::Query(_))), "{again:?}");
                }
                Ok::<_, DbError>(())
            });
            match (fails_again, outcome) {
                (false, Ok(())) => {
                    assert_connection_works(&database, &[1, 2]);
                    DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
                }
                (true, Err(DbError::TransactionAborted { first, .. })) => {
                    assert!(first.to_string().contains("nowhere"), "{first}");
                    assert_connection_works(&database, &[]);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}
