//! All or nothing, and nothing left on the connection.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use db_service::{
    DatabaseService, DbError, Isolation, Params, PoolStatus, TransactionOptions, params,
};
use diesel::connection::{Connection as _, SimpleConnection};
use singleton_core::testing::Scope;
use tests::TestDatabase;

on_both_backends!(
    they_commit_and_roll_back,
    they_nest_by_savepoint,
    a_panic_rolls_back_at_any_depth,
    a_swallowed_error_does_not_pass_for_a_commit,
    connections_come_back_clean,
);

fn table() {
    DatabaseService::execute_query("CREATE TABLE t (n INTEGER PRIMARY KEY)", params! {}).unwrap();
}

fn numbers() -> Vec<i64> {
    let rows = DatabaseService::execute_query("SELECT n FROM t ORDER BY n", params! {}).unwrap();
    rows.iter().map(|row| row.get("n").unwrap()).collect()
}

const INSERT: &str = "INSERT INTO t VALUES (:n)";

fn n(number: i32) -> Params {
    params! { "n" => number }
}

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

fn they_commit_and_roll_back(database: &TestDatabase) {
    database.scope().run(|| {
        table();
        let committed = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            Ok::<_, DbError>(7)
        });
        assert_eq!(committed.unwrap(), 7);
        let failed = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(2))?;
            connection.execute_query(INSERT, n(1)).map(|_| ())
        });
        assert!(matches!(failed, Err(DbError::UniqueViolation { .. })));
        let own = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(3))?;
            Err::<(), _>(anyhow::anyhow!("changed my mind"))
        });
        assert_eq!(own.unwrap_err().to_string(), "changed my mind");
        assert_eq!(numbers(), [1]);
        let status = status();
        assert_eq!(
            (
                status.transactions_committed,
                status.transactions_rolled_back
            ),
            (1, 2)
        );
        assert_eq!((status.checked_out, status.active_connections), (0, 0));
    });
}

fn they_nest_by_savepoint(database: &TestDatabase) {
    database.scope().run(|| {
        table();
        DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let inner = connection.transaction(|connection| {
                connection.execute_query(INSERT, n(2))?;
                connection
                    .execute_query("SELECT * FROM nowhere", params! {})
                    .map(|_| ())
            });
            assert!(inner.is_err());
            connection.transaction(|connection| connection.execute_query(INSERT, n(3)))?;
            assert_eq!(connection.execute_many(INSERT, &[n(4), n(5)])?, 2);
            Ok::<_, DbError>(())
        })
        .unwrap();
        assert_eq!(numbers(), [1, 3, 4, 5]);
        let status = status();
        assert_eq!(
            (
                status.transactions_committed,
                status.transactions_rolled_back
            ),
            (1, 0),
            "savepoints do not count"
        );
    });
}

fn a_panic_rolls_back_at_any_depth(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            table();
            let caught = panic::catch_unwind(|| {
                DatabaseService::transaction(|connection| {
                    connection.execute_query(INSERT, n(1))?;
                    connection.transaction(|connection| {
                        connection.execute_query(INSERT, n(2))?;
                        panic!("at depth two");
                        #[expect(unreachable_code)]
                        Ok::<(), DbError>(())
                    })
                })
            });
            assert_eq!(
                *caught.unwrap_err().downcast::<&str>().unwrap(),
                "at depth two"
            );
            assert_eq!(numbers(), [0; 0]);
            assert_eq!(
                (status().transactions_rolled_back, status().checked_out),
                (1, 0)
            );

            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                let mut connection = DatabaseService::connection().unwrap();
                connection.execute_query("BEGIN", params! {}).unwrap();
                connection.execute_query(INSERT, n(3)).unwrap();
                panic!("with a connection in hand");
            }));
            assert!(caught.is_err());
            assert_eq!(numbers(), [0; 0]);
        });
}

/// PostgreSQL answers COMMIT in a failed transaction with a polite ROLLBACK.
fn a_swallowed_error_does_not_pass_for_a_commit(database: &TestDatabase) {
    database.scope().run(|| {
        table();
        let result = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let _ = connection.execute_query("SELECT * FROM nowhere", params! {});
            Ok::<_, DbError>(())
        });
        assert_eq!(
            result.is_ok(),
            numbers() == [1],
            "{result:?}, but {:?}",
            numbers()
        );
        let counted = if result.is_ok() { (1, 0) } else { (0, 1) };
        assert_eq!(
            (
                status().transactions_committed,
                status().transactions_rolled_back
            ),
            counted
        );
    });
}

/// What else the thread does meanwhile, on other connections, must not hide the failure.
#[test]
fn a_swallowed_error_is_remembered_by_its_own_connection() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        table();
        let result = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(1))?;
            let _ = connection.execute_query("SELECT 1 / 0", params! {});
            DatabaseService::execute_many(INSERT, &[n(2)])?;
            Ok::<_, DbError>(())
        });
        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("current transaction is aborted")
        );
        assert_eq!(numbers(), [2]);
    });
}

#[test]
fn a_commit_that_fails_counts_as_rolled_back() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let sql = "CREATE TABLE t (n INTEGER PRIMARY KEY REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED, m INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)";
        DatabaseService::execute_query(sql, params! {}).unwrap();
        let result = DatabaseService::transaction(|connection| {
            connection.execute_query("INSERT INTO t VALUES (1, 2)", params! {})
        });
        assert!(matches!(result, Err(DbError::ForeignKeyViolation { .. })), "{result:?}");
        assert_eq!((status().transactions_committed, status().transactions_rolled_back), (0, 1));
    });
}

fn connections_come_back_clean(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            table();
            let begins: [fn(&mut db_service::Connection); 5] = [
                |connection| _ = connection.execute_query("BEGIN", params! {}).unwrap(),
                |connection| {
                    _ = connection
                        .execute_query("/* hidden */ begin;", params! {})
                        .unwrap()
                },
                |connection| connection.batch_execute("SELECT 1; BEGIN").unwrap(),
                |connection| {
                    _ = diesel::RunQueryDsl::execute(diesel::sql_query("BEGIN"), connection)
                        .unwrap()
                },
                |connection| {
                    type Manager =
                        <db_service::Connection as diesel::Connection>::TransactionManager;
                    <Manager as diesel::connection::TransactionManager<_>>::begin_transaction(
                        connection,
                    )
                    .unwrap();
                },
            ];
            for (number, begin) in begins.iter().enumerate() {
                let mut connection = DatabaseService::connection().unwrap();
                begin(&mut connection);
                connection.execute_query(INSERT, n(100)).unwrap();
                drop(connection);
                assert_eq!(
                    numbers(),
                    (0..number as i64).collect::<Vec<_>>(),
                    "what was not committed is gone"
                );
                // Were the transaction still open, this would be part of it.
                DatabaseService::execute_query(INSERT, n(number as i32)).unwrap();
                let fresh = database.scope().run(numbers);
                assert_eq!(
                    fresh.len(),
                    number + 1,
                    "what was committed is there for others"
                );
            }
            assert_eq!(
                (status().checked_in, status().invalid),
                (1, 0),
                "cleaned, not thrown away"
            );
        });
}

/// Two transactions that read what the other writes: of such a pair PostgreSQL refuses one.
fn write_skew(retries: usize) -> (Vec<Result<(), DbError>>, u32) {
    DatabaseService::execute_query("DELETE FROM t", params! {}).unwrap();
    DatabaseService::execute_query("INSERT INTO t VALUES (1), (2)", params! {}).unwrap();
    let options = TransactionOptions {
        isolation: Some(Isolation::Serializable),
        retries,
        ..TransactionOptions::default()
    };
    let (both_have_read, attempts) = (Barrier::new(2), AtomicU32::new(0));
    let scope = Scope::current();
    let outcomes = thread::scope(|threads| {
        let threads = [1, 2].map(|own| {
            let (scope, options, both, attempts) = (&scope, &options, &both_have_read, &attempts);
            threads.spawn(move || {
                scope.enter(|| {
                    let mut first = true;
                    DatabaseService::transaction_with(options, |connection| {
                        attempts.fetch_add(1, Ordering::SeqCst);
                        let sum = "SELECT sum(n) AS sum FROM t";
                        connection.execute_query(sum, params! {})?;
                        if std::mem::take(&mut first) {
                            both.wait();
                        }
                        let update = "UPDATE t SET n = n + 10 WHERE n = :n";
                        connection.execute_query(update, n(own))?;
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
fn what_the_server_rolled_back_for_another_is_repeated_if_asked_for() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        table();
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
fn a_deadlock_is_told_and_repeated() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        table();
        DatabaseService::execute_query("INSERT INTO t VALUES (1), (2)", params! {}).unwrap();
        for (retries, failures) in [(0, 1), (5, 0)] {
            let options = TransactionOptions {
                retries,
                ..TransactionOptions::default()
            };
            let (both_have_one, scope) = (Barrier::new(2), Scope::current());
            let outcomes = thread::scope(|threads| {
                let threads = [[1, 2], [2, 1]].map(|order| {
                    let (scope, options, both) = (&scope, &options, &both_have_one);
                    threads.spawn(move || {
                        scope.enter(|| {
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
        }
    });
}

#[test]
fn a_lock_that_another_process_holds_is_told_and_waited_for_again() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        table();
        let path = database.url().strip_prefix("sqlite:///").unwrap();
        let mut other = diesel::SqliteConnection::establish(path).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let mut own = DatabaseService::connection().unwrap();
        own.batch_execute("PRAGMA busy_timeout = 0").unwrap();
        let mut insert = |retries| {
            let options = TransactionOptions {
                retries,
                ..TransactionOptions::default()
            };
            own.transaction_with(&options, |connection| {
                connection.execute_query(INSERT, n(1))
            })
        };
        let error = insert(2).unwrap_err();
        assert!(
            matches!(error, DbError::LockTimeout(_)) && error.is_retryable(),
            "{error}"
        );
        // Released from another thread while this one is at it.
        let released = thread::spawn(move || other.batch_execute("ROLLBACK"));
        insert(1000).unwrap();
        released.join().unwrap().unwrap();
        drop(own);
        assert_eq!(numbers(), [1]);
    });
}

#[test]
fn options_reach_the_server() {
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
