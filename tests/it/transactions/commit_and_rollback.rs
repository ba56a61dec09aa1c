//! Transactions commit or roll back as a whole, and leave no state on the connection.

use std::panic::{self, AssertUnwindSafe};

use db_service::{DatabaseService, DbError, Params, PoolStatus, params};
use diesel::connection::SimpleConnection;
use tests::TestDatabase;

on_both_backends!(
    closure_cannot_end_its_transaction,
    transaction_commits_on_ok_and_rolls_back_on_err,
    nested_transaction_rolls_back_to_its_savepoint,
    panic_rolls_back_at_any_depth,
    ignored_error_is_not_reported_as_a_commit,
    open_transaction_is_rolled_back_when_its_connection_returns,
);

/// Creates the table `t` with one column `n`.
pub(crate) fn create_table() {
    DatabaseService::execute_query("CREATE TABLE t (n INTEGER PRIMARY KEY)", params! {}).unwrap();
}

/// Returns the rows of the table in ascending order.
pub(crate) fn numbers() -> Vec<i64> {
    let rows = DatabaseService::execute_query("SELECT n FROM t ORDER BY n", params! {}).unwrap();
    rows.iter().map(|row| row.get("n").unwrap()).collect()
}

pub(crate) const INSERT: &str = "INSERT INTO t VALUES (:n)";

/// Returns the parameter of [`INSERT`].
pub(crate) fn n(number: i32) -> Params {
    params! { "n" => number }
}

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

fn transaction_commits_on_ok_and_rolls_back_on_err(database: &TestDatabase) {
    database.scope().run(|| {
        create_table();
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
        let custom = DatabaseService::transaction(|connection| {
            connection.execute_query(INSERT, n(3))?;
            Err::<(), _>(anyhow::anyhow!("changed my mind"))
        });
        assert_eq!(custom.unwrap_err().to_string(), "changed my mind");
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

fn nested_transaction_rolls_back_to_its_savepoint(database: &TestDatabase) {
    database.scope().run(|| {
        create_table();
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
            "savepoints are not counted"
        );
    });
}

fn panic_rolls_back_at_any_depth(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            create_table();
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
                panic!("while holding a connection");
            }));
            assert!(caught.is_err());
            assert_eq!(numbers(), [0; 0]);
        });
}

/// PostgreSQL answers `COMMIT` in a failed transaction with `ROLLBACK`, which is not an error.
fn ignored_error_is_not_reported_as_a_commit(database: &TestDatabase) {
    database.scope().run(|| {
        create_table();
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
        let expected = if result.is_ok() { (1, 0) } else { (0, 1) };
        assert_eq!(
            (
                status().transactions_committed,
                status().transactions_rolled_back
            ),
            expected
        );
    });
}

/// Successful calls of the same thread on other connections do not hide the failure.
#[test]
fn ignored_error_is_tracked_per_connection() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_table();
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
fn failed_commit_counts_as_rolled_back() {
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

fn open_transaction_is_rolled_back_when_its_connection_returns(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            create_table();
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
                    "the uncommitted row is rolled back"
                );
                // If the transaction were still open, this row would be part of it.
                DatabaseService::execute_query(INSERT, n(number as i32)).unwrap();
                let seen_by_others = database.scope().run(numbers);
                assert_eq!(
                    seen_by_others.len(),
                    number + 1,
                    "another pool sees all committed rows"
                );
            }
            assert_eq!(
                (status().checked_in, status().invalid),
                (1, 0),
                "the connection is reset, not closed"
            );
        });
}

fn closure_cannot_end_its_transaction(database: &TestDatabase) {
    database.scope().run(|| {
        create_table();
        for end in ["COMMIT", "rollback;", "END"] {
            let outcome: Result<(), DbError> = DatabaseService::transaction(|connection| {
                connection.execute_query(INSERT, n(1))?;
                connection.execute_query(end, params! {})?;
                Ok(())
            });
            assert!(
                matches!(outcome, Err(DbError::EndsTransaction)),
                "{outcome:?}"
            );
            assert!(numbers().is_empty(), "rolled back after {end}");
        }
        let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query("SAVEPOINT a", params! {})?;
            connection.execute_query(INSERT, n(2))?;
            connection.execute_query("ROLLBACK TO SAVEPOINT a", params! {})?;
            connection.execute_query(INSERT, n(3))?;
            Ok(())
        });
        committed.unwrap();
        assert_eq!(numbers(), [3]);
        // A caller that begins a transaction with a statement also ends it.
        let mut connection = DatabaseService::connection().unwrap();
        for sql in ["BEGIN", "INSERT INTO t VALUES (4)", "COMMIT"] {
            connection.execute_query(sql, params! {}).unwrap();
        }
        drop(connection);
        assert_eq!(numbers(), [3, 4]);
    });
}

/// NULL and text parameters are sent with the type that the column had when the statement was prepared.
#[test]
fn statement_works_after_a_column_type_change() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let run = |sql: &str, params| DatabaseService::execute_query(sql, params);
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            for (data_type, text) in [("text", "a"), ("date", "2026-11-23"), ("int[]", "{1}")] {
                run(&format!("CREATE TABLE t (x {data_type})"), params! {}).unwrap();
                for value in [None, Some(text)] {
                    let sql = "INSERT INTO t VALUES (:x)";
                    run(sql, params! { "x" => value }).unwrap();
                    DatabaseService::execute_many(sql, &[params! { "x" => value }]).unwrap();
                }
                run("DROP TABLE t", params! {}).unwrap();
            }
        });
}

/// After a stale plan, the statement cannot be prepared again in the same transaction. The connection is closed.
#[test]
fn stale_plan_fails_only_one_transaction() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let read = || {
        DatabaseService::transaction(|connection| {
            connection.execute_query("SELECT * FROM t", params! {})
        })
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            DatabaseService::execute_query("CREATE TABLE t (n INTEGER)", params! {}).unwrap();
            assert!(read().unwrap().is_empty());
            DatabaseService::execute_query("ALTER TABLE t ADD COLUMN m TEXT", params! {}).unwrap();
            let error = read().unwrap_err();
            assert!(error.to_string().contains("cached plan"), "{error}");
            assert!(read().unwrap().is_empty());
        });
}
