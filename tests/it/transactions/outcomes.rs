//! Commits with an unknown outcome, stale plans, and misuse of the connection that must not change an outcome.

use std::panic::{self, AssertUnwindSafe};

use db_service::{Connection, DatabaseService, DbError, TransactionOptions, params, values};
use diesel::connection::{
    AnsiTransactionManager, Connection as _, InstrumentationEvent, SimpleConnection,
    TransactionManager,
};
use diesel::prelude::*;
use tests::TestDatabase;

use super::commit_and_rollback::{INSERT, create_table, n, numbers};

on_both_backends!(
    panic_in_a_transaction_of_the_drivers_connection_is_not_committed,
    rollback_inside_a_transaction_of_the_drivers_connection_leaves_it_open,
    forgotten_cursor_does_not_hide_a_commit,
    forgotten_cursor_does_not_reach_the_next_caller,
    panic_while_rows_are_read_rolls_back,
    replaced_instrumentation_does_not_allow_a_commit,
    transaction_begun_on_the_drivers_connection_after_an_end_is_rolled_back,
    panic_in_the_instrumentation_does_not_reach_the_next_caller,
    panic_in_the_rows_of_bulk_insert_rolls_back_only_these,
);

diesel::table! {
    t (n) {
        n -> Integer,
    }
}

diesel::table! {
    words (word) {
        word -> Text,
    }
}

fn with_one_connection(database: &TestDatabase, test: impl FnOnce()) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(test);
}

/// Executes on the driver's connection.
fn on_driver(connection: &mut Connection, sql: &str) -> QueryResult<()> {
    match connection {
        Connection::Postgres(inner) => inner.batch_execute(sql),
        Connection::Sqlite(inner) => inner.batch_execute(sql),
    }
}

fn insert_in_generic_code<C>(connection: &mut C) -> QueryResult<()>
where
    C: diesel::Connection,
{
    connection.transaction(|connection| connection.batch_execute("INSERT INTO t VALUES (4)"))
}

/// A deferred trigger ends the session in the `COMMIT` of each insert.
#[test]
fn connection_lost_during_commit_is_an_unknown_outcome_in_every_call() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    with_one_connection(&database, || {
        create_table();
        for sql in [
            "CREATE FUNCTION quit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER quits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION quit()",
        ] {
            DatabaseService::execute_query(sql, params! {}).unwrap();
        }
        type Call = fn(&mut Connection) -> Result<(), DbError>;
        let calls: [(&str, Call); 6] = [
            ("execute_many", |connection| {
                connection.execute_many(INSERT, &[n(1)]).map(drop)
            }),
            ("bulk_insert", |connection| {
                connection.bulk_insert("t", &["n"], [values![2]]).map(drop)
            }),
            ("transaction", |connection| {
                connection
                    .transaction(|connection| connection.execute_query(INSERT, n(3)).map(drop))
            }),
            ("transaction with an error of diesel", |connection| {
                let outcome: QueryResult<()> = connection
                    .transaction(|connection| connection.batch_execute("INSERT INTO t VALUES (3)"));
                let error = outcome.unwrap_err();
                assert!(
                    matches!(&error, diesel::result::Error::QueryBuilderError(error)
                        if matches!(error.downcast_ref(), Some(DbError::OutcomeUnknown(_)))),
                    "{error:?}"
                );
                Err(error.into())
            }),
            ("generic code", |connection| {
                Ok(insert_in_generic_code(connection)?)
            }),
            ("transaction_with", |connection| {
                let options = TransactionOptions {
                    retries: 2,
                    ..TransactionOptions::default()
                };
                connection.transaction_with(&options, |connection| {
                    connection.execute_query(INSERT, n(5)).map(drop)
                })
            }),
        ];
        for (name, call) in calls {
            let mut connection = DatabaseService::connection().unwrap();
            let outcome = call(&mut connection);
            assert!(
                matches!(outcome, Err(DbError::OutcomeUnknown(_))),
                "{name}: {outcome:?}"
            );
            let later = connection.execute_query("SELECT 1", params! {});
            assert!(
                matches!(later, Err(DbError::ConnectionLost(_))),
                "{name}: {later:?}"
            );
        }
        let outcome = DatabaseService::execute_many(INSERT, &[n(6)]);
        assert!(
            matches!(outcome, Err(DbError::OutcomeUnknown(_))),
            "{outcome:?}"
        );
        let outcome = DatabaseService::bulk_insert("t", &["n"], [values![7]]);
        assert!(
            matches!(outcome, Err(DbError::OutcomeUnknown(_))),
            "{outcome:?}"
        );
        assert!(numbers().is_empty());
    });
}

#[test]
fn stale_plan_is_healed_or_retried() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    type Read = fn(&mut Connection) -> Result<usize, DbError>;
    let reads: [(&str, Read); 2] = [
        ("DSL", |connection| {
            Ok(words::table
                .select(words::word)
                .load::<String>(connection)?
                .len())
        }),
        ("execute_query", |connection| {
            let rows = connection.execute_query("SELECT word FROM words", params! {})?;
            Ok(rows.len())
        }),
    ];
    with_one_connection(&database, || {
        DatabaseService::execute_query("CREATE TABLE words (word text)", params! {}).unwrap();
        DatabaseService::execute_query("INSERT INTO words VALUES ('a')", params! {}).unwrap();
        let mut types = ["varchar", "text"].iter().cycle();
        let mut change_type = || {
            let to = types.next().unwrap();
            let sql = format!("ALTER TABLE words ALTER COLUMN word TYPE {to}");
            database
                .scope()
                .run(|| DatabaseService::execute_query(&sql, params! {}))
                .unwrap();
        };
        let read_once = |read: Read| {
            let mut runs = 0;
            let rows = DatabaseService::with_connection(|connection| {
                runs += 1;
                Ok(read(connection).unwrap())
            });
            assert_eq!((rows.unwrap(), runs), (1, 1));
        };
        for (kind, read) in reads {
            read_once(read);
            change_type();
            read_once(read);

            // Without a transaction, the statement was executed unprepared.
            read_once(read);
            change_type();
            let in_transaction = DatabaseService::transaction(|connection| {
                let error = read(connection).unwrap_err();
                assert!(
                    matches!(error, DbError::StalePlan(_)) && error.is_retryable(),
                    "{kind}: {error:?}"
                );
                Err::<(), _>(error)
            });
            assert!(
                matches!(in_transaction, Err(DbError::StalePlan(_))),
                "{kind}: {in_transaction:?}"
            );
            read_once(read);
            read_once(read);

            change_type();
            let options = TransactionOptions {
                retries: 1,
                ..TransactionOptions::default()
            };
            let mut runs = 0;
            let rows = DatabaseService::transaction_with(&options, |connection| {
                runs += 1;
                read(connection)
            });
            assert_eq!((rows.unwrap(), runs), (1, 2), "{kind}");
        }
    });
}

/// diesel's `transaction` does not roll back on panic. The closure around it catches the panic and goes on.
fn panic_in_a_transaction_of_the_drivers_connection_is_not_committed(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        let outcome = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let caught = panic::catch_unwind(AssertUnwindSafe(|| match connection {
                Connection::Postgres(inner) => inner.transaction(|inner| -> QueryResult<()> {
                    inner.batch_execute("INSERT INTO t VALUES (2)")?;
                    panic::panic_any(())
                }),
                Connection::Sqlite(inner) => inner.transaction(|inner| -> QueryResult<()> {
                    inner.batch_execute("INSERT INTO t VALUES (2)")?;
                    panic::panic_any(())
                }),
            }));
            assert!(caught.is_err());
            connection.execute_query(INSERT, n(3))?;
            Ok::<_, DbError>(())
        });
        let stored = numbers();
        assert_eq!(
            outcome.is_ok(),
            stored.contains(&3),
            "{outcome:?}, {stored:?}"
        );
        assert!(!stored.contains(&2), "{outcome:?}, {stored:?}");
        assert_eq!(
            outcome.is_ok(),
            stored.contains(&1),
            "{outcome:?}, {stored:?}"
        );
    });
}

/// A transaction that the caller begins on the driver's connection is ended there.
fn rollback_inside_a_transaction_of_the_drivers_connection_leaves_it_open(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        let mut connection = DatabaseService::connection().unwrap();
        match &mut *connection {
            Connection::Postgres(inner) => AnsiTransactionManager::begin_transaction(inner),
            Connection::Sqlite(inner) => AnsiTransactionManager::begin_transaction(inner),
        }
        .unwrap();
        connection.execute_query(INSERT, n(1)).unwrap();
        let failed = connection.transaction(|connection| {
            connection.execute_query(INSERT, n(2))?;
            Err::<(), _>(DbError::NoRow)
        });
        assert!(matches!(failed, Err(DbError::NoRow)));
        connection
            .transaction(|connection| connection.execute_query(INSERT, n(3)))
            .unwrap();
        assert!(database.scope().run(numbers).is_empty());
        match &mut *connection {
            Connection::Postgres(inner) => AnsiTransactionManager::commit_transaction(inner),
            Connection::Sqlite(inner) => AnsiTransactionManager::commit_transaction(inner),
        }
        .unwrap();
        connection.execute_query(INSERT, n(4)).unwrap();
        drop(connection);
        assert_eq!(numbers(), [1, 3, 4]);
    });
}

fn forget_cursor(connection: &mut Connection) {
    let mut rows = t::table
        .select(t::n)
        .load_iter::<i32, _>(connection)
        .unwrap();
    rows.next().unwrap().unwrap();
    std::mem::forget(rows);
}

fn forgotten_cursor_does_not_hide_a_commit(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        DatabaseService::execute_many(INSERT, &[n(1), n(2)]).unwrap();
        let outcome = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(3))?;
            forget_cursor(connection);
            on_driver(connection, "COMMIT; BEGIN")?;
            let later = connection.execute_query(INSERT, n(4));
            assert!(matches!(later, Err(DbError::EndsTransaction)), "{later:?}");
            Ok::<_, DbError>(())
        });
        assert!(
            matches!(outcome, Err(DbError::EndsTransaction)),
            "{outcome:?}"
        );
        assert_eq!(numbers(), [1, 2, 3]);
    });
}

/// On SQLite, a statement runs when its rows are read.
#[test]
fn commit_whose_rows_are_not_read_leaves_no_open_transaction() {
    let database = TestDatabase::sqlite();
    with_one_connection(&database, || {
        create_table();
        for is_read in [false, true] {
            let mut connection = DatabaseService::connection().unwrap();
            connection.batch_execute("BEGIN").unwrap();
            connection.execute_query(INSERT, n(1)).unwrap();
            let commit = diesel::dsl::sql::<diesel::sql_types::Integer>("COMMIT");
            let mut rows = commit.load_iter::<i32, _>(&mut *connection).unwrap();
            if is_read {
                assert!(rows.next().is_none());
            }
            drop(rows);
            drop(connection);
            assert_eq!(numbers(), if is_read { vec![1] } else { vec![] });
            let others = database.scope();
            others.run(|| DatabaseService::execute_query(INSERT, n(2)).unwrap());
            DatabaseService::execute_query("DELETE FROM t WHERE n = 2", params! {}).unwrap();
        }
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

/// On SQLite, an unfinished query keeps its snapshot, and the next caller would read old rows.
fn forgotten_cursor_does_not_reach_the_next_caller(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        DatabaseService::execute_many(INSERT, &[n(1), n(2)]).unwrap();
        for statement_follows in [false, true] {
            let mut connection = DatabaseService::connection().unwrap();
            forget_cursor(&mut connection);
            if statement_follows {
                connection
                    .execute_query("SELECT 1 AS n", params! {})
                    .unwrap();
            }
            drop(connection);
            let added = if statement_follows { 3 } else { 4 };
            database
                .scope()
                .run(|| DatabaseService::execute_query(INSERT, n(added)))
                .unwrap();
            assert!(numbers().contains(&i64::from(added)));
            DatabaseService::execute_query(INSERT, n(added + 10)).unwrap();
        }
    });
}

fn panic_while_rows_are_read_rolls_back(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        DatabaseService::execute_many(INSERT, &[n(1), n(2)]).unwrap();
        let read = |connection: &mut Connection| {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut rows = t::table
                    .select(t::n)
                    .load_iter::<i32, _>(connection)
                    .unwrap();
                rows.next().unwrap().unwrap();
                panic::panic_any(())
            }));
            assert!(caught.is_err());
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                connection.for_each_row("SELECT n FROM t", params! {}, |_| -> Result<_, DbError> {
                    panic::panic_any(())
                })
            }));
            assert!(caught.is_err());
        };
        DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(3))?;
            read(connection);
            connection.execute_query(INSERT, n(4))?;
            Ok::<_, DbError>(())
        })
        .unwrap();
        assert_eq!(numbers(), [1, 2, 3, 4]);
        let caught = panic::catch_unwind(|| {
            DatabaseService::transaction(|connection| {
                connection.execute_query(INSERT, n(5))?;
                let mut rows = t::table.select(t::n).load_iter::<i32, _>(connection)?;
                rows.next();
                panic::panic_any(());
                #[expect(unreachable_code)]
                Ok::<_, DbError>(())
            })
        });
        assert!(caught.is_err());
        assert_eq!(numbers(), [1, 2, 3, 4]);
    });
}

/// The connection's state is unknown once the driver's instrumentation is replaced.
fn replaced_instrumentation_does_not_allow_a_commit(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        for fails in [false, true] {
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query(INSERT, n(1))?;
                match connection {
                    Connection::Postgres(inner) => {
                        inner.set_instrumentation(|_: InstrumentationEvent<'_>| {});
                    }
                    Connection::Sqlite(inner) => {
                        inner.set_instrumentation(|_: InstrumentationEvent<'_>| {});
                    }
                }
                let refused = connection.execute_query("COMMIT", params! {});
                assert!(
                    matches!(refused, Err(DbError::EndsTransaction)),
                    "{refused:?}"
                );
                match fails {
                    false => Ok(()),
                    true => Err(DbError::NoRow),
                }
            });
            let stored = numbers();
            assert_eq!(
                outcome.is_ok(),
                !stored.is_empty(),
                "{outcome:?}, {stored:?}"
            );
            DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
        }
    });
}

/// A transaction on the driver's connection in place of the ended one reaches neither the closure nor the next caller.
fn transaction_begun_on_the_drivers_connection_after_an_end_is_rolled_back(
    database: &TestDatabase,
) {
    with_one_connection(database, || {
        create_table();
        DatabaseService::execute_query(INSERT, n(0)).unwrap();
        let ends: &[&str] = match database.url().starts_with("postgres") {
            true => &["COMMIT", "ROLLBACK"],
            false => &["COMMIT", "ROLLBACK", "INSERT OR ROLLBACK INTO t VALUES (0)"],
        };
        for end in ends {
            for (is_nested, asks) in [(false, false), (false, true), (true, false), (true, true)] {
                let work = |connection: &mut Connection| {
                    let _ = on_driver(connection, end);
                    if asks {
                        assert!(connection.execute_query(INSERT, n(2)).is_err());
                    }
                    on_driver(connection, "BEGIN")?;
                    on_driver(connection, "INSERT INTO t VALUES (3)")?;
                    assert!(connection.execute_query(INSERT, n(4)).is_err());
                    Ok::<_, DbError>(())
                };
                let mut connection = DatabaseService::connection().unwrap();
                let outcome: Result<(), DbError> = connection.transaction(|connection| {
                    connection.execute_query(INSERT, n(1))?;
                    if is_nested {
                        assert!(connection.transaction(work).is_err());
                        assert!(connection.execute_query(INSERT, n(5)).is_err());
                        Ok(())
                    } else {
                        work(connection)
                    }
                });
                assert!(outcome.is_err(), "{end}");
                // Within the same checkout, the connection is in no transaction either, or it is closed.
                let stored_later = connection.execute_query(INSERT, n(6)).is_ok();
                drop(connection);
                DatabaseService::execute_query(INSERT, n(7)).unwrap();
                let mut expected = vec![0];
                expected.extend((*end == "COMMIT").then_some(1));
                expected.extend(stored_later.then_some(6));
                expected.push(7);
                assert_eq!(database.scope().run(numbers), expected, "{end}");
                DatabaseService::execute_query("DELETE FROM t WHERE n > 0", params! {}).unwrap();
            }
        }
    });
}

/// A panic may hide what a statement has done, so its connection is closed.
fn panic_in_the_instrumentation_does_not_reach_the_next_caller(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        for start in [
            "BEGIN",
            "SAVEPOINT",
            "INSERT",
            "RELEASE",
            "ROLLBACK",
            "COMMIT",
        ] {
            for at_finish in [false, true] {
                let mut connection = DatabaseService::connection().unwrap();
                connection.set_instrumentation(move |event: InstrumentationEvent<'_>| {
                    let panics = match event {
                        InstrumentationEvent::StartQuery { query, .. } => {
                            !at_finish && query.to_string().starts_with(start)
                        }
                        InstrumentationEvent::FinishQuery { query, .. } => {
                            at_finish && query.to_string().starts_with(start)
                        }
                        _ => false,
                    };
                    if panics {
                        panic::resume_unwind(Box::new(()));
                    }
                });
                let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                    connection.transaction(|connection| {
                        connection
                            .transaction(|connection| connection.execute_query(INSERT, n(1)))?;
                        let inner = connection.transaction(|connection| {
                            connection.execute_query(INSERT, n(2))?;
                            Err::<(), _>(DbError::NoRow)
                        });
                        assert!(inner.is_err());
                        Ok::<_, DbError>(())
                    })
                }));
                assert!(outcome.is_err(), "{start} panics");
                drop(connection);
                DatabaseService::execute_query(INSERT, n(3)).unwrap();
                // A panic after the `COMMIT` cannot undo it.
                let is_committed = start == "COMMIT" && at_finish;
                let expected: &[i64] = if is_committed { &[1, 3] } else { &[3] };
                assert_eq!(
                    database.scope().run(numbers),
                    expected,
                    "{start} {at_finish}"
                );
                DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
            }
        }
    });
}

fn panic_in_the_rows_of_bulk_insert_rolls_back_only_these(database: &TestDatabase) {
    with_one_connection(database, || {
        create_table();
        DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let rows = (10..20).map(|n| {
                if n == 15 {
                    panic::resume_unwind(Box::new(()));
                }
                values![n]
            });
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                connection.bulk_insert("t", &["n"], rows)
            }));
            assert!(caught.is_err());
            connection.execute_query(INSERT, n(2))?;
            Ok::<_, DbError>(())
        })
        .unwrap();
        assert_eq!(database.scope().run(numbers), [1, 2]);
    });
}

#[test]
fn failure_of_for_each_row_names_the_line_of_the_call() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let mut line = 0;
        let outcome = DatabaseService::transaction(|connection| {
            let each = |_| Ok::<_, DbError>(std::ops::ControlFlow::Continue(()));
            line = line!() + 1;
            let failed = connection.for_each_row("SELECT 1 / 0 AS n", params! {}, each);
            assert!(failed.is_err());
            Ok::<_, DbError>(())
        });
        match outcome {
            Err(DbError::TransactionAborted { at: Some(at), .. }) => {
                assert_eq!(
                    (at.file().ends_with("outcomes.rs"), at.line()),
                    (true, line)
                );
            }
            other => panic!("{other:?}"),
        }
    });
}
