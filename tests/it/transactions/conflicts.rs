//! Conflicts between transactions: serialization failures, deadlocks, locks and retries.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use db_service::{DatabaseService, DbError, Isolation, TransactionOptions, params};
use diesel::connection::{Connection as _, SimpleConnection};
use singleton_core::ServiceContext;
use tests::TestDatabase;

use super::commit_and_rollback::{INSERT, create_table, n, numbers};

/// Runs two serializable transactions that each read what the other writes, so PostgreSQL fails one of them. Returns
/// the outcomes and the number of attempts.
fn write_skew(retries: usize) -> (Vec<Result<(), DbError>>, u32) {
    DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
    DatabaseService::execute_query("INSERT INTO t VALUES (1), (2)", params! {}).unwrap();
    let options = TransactionOptions {
        isolation: Some(Isolation::Serializable),
        retries,
        ..TransactionOptions::default()
    };
    let (both_have_read, attempts) = (Barrier::new(2), AtomicU32::new(0));
    let scope = ServiceContext::current();
    let outcomes = thread::scope(|threads| {
        let threads = [1, 2].map(|id| {
            let (scope, options, both, attempts) = (&scope, &options, &both_have_read, &attempts);
            threads.spawn(move || {
                scope.sync_scope(|| {
                    let mut first = true;
                    DatabaseService::transaction_with(options, |connection| {
                        attempts.fetch_add(1, Ordering::SeqCst);
                        let sum = "SELECT sum(n) AS sum FROM t";
                        connection.execute_query(sum, params! {})?;
                        if std::mem::take(&mut first) {
                            both.wait();
                        }
                        let update = "UPDATE t SET n = n + 10 WHERE n = :n";
                        connection.execute_query(update, n(id))?;
                        Ok::<_, DbError>(())
                    })
                })
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    (outcomes.into(), attempts.into_inner())
}

#[test]
fn serialization_failure_is_retried_only_on_request() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_table();
        let (outcomes, attempts) = write_skew(0);
        let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(
            matches!(&failed[..], [DbError::SerializationFailure(_)]),
            "{failed:?}"
        );
        assert!(failed[0].is_retryable());
        assert_eq!(attempts, 2);
        let (outcomes, attempts) = write_skew(5);
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!((numbers(), attempts), (vec![11, 12], 3));
    });
}

#[test]
fn deadlock_is_reported_and_retried_on_request() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_table();
        DatabaseService::execute_query("INSERT INTO t VALUES (1), (2)", params! {}).unwrap();
        for (retries, failures) in [(0, 1), (5, 0)] {
            let before = DatabaseService::get_pool_status().unwrap();
            let options = TransactionOptions {
                retries,
                ..TransactionOptions::default()
            };
            let (both_have_one, scope) = (Barrier::new(2), ServiceContext::current());
            let outcomes = thread::scope(|threads| {
                let threads = [[1, 2], [2, 1]].map(|order| {
                    let (scope, options, both) = (&scope, &options, &both_have_one);
                    threads.spawn(move || {
                        scope.sync_scope(|| {
                            let mut first = true;
                            DatabaseService::transaction_with(options, |connection| {
                                let lock = "SELECT n FROM t WHERE n = :n FOR UPDATE";
                                connection.execute_query(lock, n(order[0]))?;
                                if std::mem::take(&mut first) {
                                    both.wait();
                                }
                                connection.execute_query(lock, n(order[1]))?;
                                Ok::<_, DbError>(())
                            })
                        })
                    })
                });
                threads.map(|thread| thread.join().unwrap())
            });
            let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            assert_eq!(failed.len(), failures, "{failed:?}");
            assert!(
                failed
                    .iter()
                    .all(|error| matches!(error, DbError::Deadlock(_)))
            );
            // A conflict that was repeated is no failure in the statistics.
            let statistics = DatabaseService::statistics().unwrap();
            let after = &statistics.pool;
            let counted = [
                after.failed_queries - before.failed_queries,
                after.retries - before.retries,
            ];
            assert_eq!(
                counted,
                [failures as u64, 1 - failures as u64],
                "{statistics}"
            );
            let lock = statistics.statements.iter();
            let lock = lock.filter(|entry| entry.statement.ends_with("FOR UPDATE"));
            assert_eq!(
                lock.map(|entry| entry.errors).sum::<u64>(),
                1,
                "{statistics}"
            );
        }
    });
}

#[test]
fn sqlite_lock_of_another_process_is_reported_and_retried() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        create_table();
        let path = database.url().strip_prefix("sqlite:///").unwrap();
        let mut other = diesel::SqliteConnection::establish(path).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 0").unwrap();
        let mut insert = |retries| {
            let options = TransactionOptions {
                retries,
                ..TransactionOptions::default()
            };
            connection.transaction_with(&options, |connection| {
                connection.execute_query(INSERT, n(1))
            })
        };
        let error = insert(2).unwrap_err();
        assert!(
            matches!(error, DbError::LockTimeout(_)) && error.is_retryable(),
            "{error}"
        );
        // Another thread releases the lock while this one retries.
        let released = thread::spawn(move || other.batch_execute("ROLLBACK"));
        insert(1000).unwrap();
        released.join().unwrap().unwrap();
        drop(connection);
        assert_eq!(numbers(), [1]);
    });
}

#[test]
fn shutdown_ends_the_pauses_between_retries() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        create_table();
        let path = database.url().strip_prefix("sqlite:///").unwrap();
        let mut other = diesel::SqliteConnection::establish(path).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        connection.batch_execute("PRAGMA busy_timeout = 0").unwrap();
        let scope = ServiceContext::current();
        thread::scope(|threads| {
            let retried = threads.spawn(|| {
                // The retries take longer than the test may.
                let options = TransactionOptions {
                    retries: 1_000_000,
                    ..TransactionOptions::default()
                };
                let result = connection.transaction_with(&options, |connection| {
                    connection.execute_query(INSERT, n(1))
                });
                drop(connection);
                result
            });
            let report = scope.sync_scope(|| singleton_core::registry().shutdown_all());
            assert!(report.is_clean());
            let result = retried.join().unwrap();
            assert!(matches!(result, Err(DbError::Closed)), "{result:?}");
        });
    });
}

#[test]
fn transaction_options_reach_the_server() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let options = TransactionOptions {
            isolation: Some(Isolation::Serializable),
            read_only: true,
            deferrable: true,
            retries: 0,
        };
        let shown = DatabaseService::transaction_with(&options, |connection| {
            let sql = "SELECT concat_ws(' ', current_setting('transaction_isolation'), \
                       current_setting('transaction_read_only'), \
                       current_setting('transaction_deferrable')) AS shown";
            connection.execute_query(sql, params! {})?[0].get::<String>("shown")
        });
        assert_eq!(shown.unwrap(), "serializable on on");
    });
}

/// A conflict that was rolled back to a savepoint does not cause a retry when the connection is lost later.
#[test]
fn lost_connection_is_not_retried_because_of_an_earlier_conflict() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let options = TransactionOptions {
        retries: 3,
        ..TransactionOptions::default()
    };
    let conflict = "DO $$ BEGIN RAISE EXCEPTION 'conflict' USING ERRCODE = '40001'; END $$";
    database.scope().run(|| {
        create_table();
        for sql in [
            "CREATE FUNCTION quit() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER quits AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION quit()",
        ] {
            DatabaseService::execute_query(sql, params! {}).unwrap();
        }
        let outcome = DatabaseService::transaction_with(&options, |connection| {
            let handled =
                connection.transaction(|connection| connection.execute_query(conflict, params! {}));
            assert!(matches!(handled, Err(DbError::SerializationFailure(_))));
            // The deferred trigger terminates the connection at `COMMIT`.
            connection.execute_query(INSERT, n(1))
        });
        assert!(
            matches!(outcome, Err(DbError::OutcomeUnknown(_))),
            "{outcome:?}"
        );
    });
}

#[test]
fn sqlite_read_only_mode_ends_with_its_transaction() {
    let options = TransactionOptions {
        read_only: true,
        ..TransactionOptions::default()
    };
    TestDatabase::sqlite().scope().run(|| {
        create_table();
        let mut connection = DatabaseService::connection().unwrap();
        let refused = connection.transaction_with(&options, |connection| {
            // A nested transaction takes no options. The error leaves the outer transaction as it is.
            let inner = connection.transaction_with(&options, |_| Ok::<_, DbError>(()));
            assert!(inner.is_err());
            connection.execute_query(INSERT, n(1))
        });
        assert!(matches!(refused, Err(DbError::ReadOnly(_))), "{refused:?}");
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            connection.transaction_with(&options, |_| -> Result<(), DbError> {
                panic::panic_any(())
            })
        }));
        assert!(panicked.is_err());
        connection.execute_query(INSERT, n(2)).unwrap();
        drop(connection);
        assert_eq!(numbers(), [2]);
    });
}
