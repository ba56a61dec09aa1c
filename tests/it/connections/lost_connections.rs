//! Idle connections: when the pool checks them, and how it replaces lost connections.

use std::time::Duration;

use db_service::{DatabaseService, DbError, PoolStatus, params};
use tests::TestDatabase;

use crate::reporting::logs;

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

/// Returns the number of idle connections and the number of connections in use.
fn counts() -> [u32; 2] {
    [status().checked_in, status().checked_out]
}

/// Selects the last statement of the session with process ID `:pid`.
const LAST_STATEMENT: &str = "SELECT query, state_change FROM pg_stat_activity \
                              WHERE datname = current_database() AND pid = :pid";

#[test]
fn recently_used_connection_is_checked_out_without_a_round_trip() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let rows = DatabaseService::execute_query("SELECT pg_backend_pid() AS pid", params! {})
                .unwrap();
            let pid: i64 = rows[0].get("pid").unwrap();
            // Another pool observes the session.
            let last = || {
                let observe = || {
                    DatabaseService::execute_query(LAST_STATEMENT, params! { "pid" => pid })
                        .unwrap()
                        .remove(0)
                };
                database.scope().run(observe)
            };
            let before = last();
            for _ in 0..10 {
                drop(DatabaseService::connection().unwrap());
            }
            assert_eq!(last(), before, "the server has received no statement");
            assert_eq!(
                before.get::<String>("query").unwrap(),
                "SELECT pg_backend_pid() AS pid"
            );
            database.scope().run(|| {
                DatabaseService::execute_query("SELECT pg_sleep(0.6)", params! {}).unwrap()
            });
            drop(DatabaseService::connection().unwrap());
            assert_eq!(
                last().get::<String>("query").unwrap(),
                "SELECT 1",
                "the pool checks a connection that was idle for 500 ms"
            );
        });
}

#[test]
fn terminated_connection_is_replaced() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let mut connection = DatabaseService::connection().unwrap();
            let rows = connection
                .execute_query("SELECT pg_backend_pid() AS pid", params! {})
                .unwrap();
            let pid: i64 = rows[0].get("pid").unwrap();
            connection.execute_query("BEGIN", params! {}).unwrap();
            database.scope().run(|| {
                // Waits up to 10 seconds until the server process has ended.
                let sql = "SELECT pg_terminate_backend(:pid::int, 10000) AS gone";
                let rows = DatabaseService::execute_query(sql, params! { "pid" => pid }).unwrap();
                assert!(rows[0].get::<bool>("gone").unwrap());
            });
            let error = connection
                .execute_query("SELECT 1", params! {})
                .unwrap_err();
            assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
            drop(connection);
            assert_eq!(
                (status().invalid, status().checked_in, status().checked_out),
                (1, 0, 0)
            );
            assert!(DatabaseService::execute_query("SELECT 1", params! {}).is_ok());
            assert_eq!(counts(), [1, 0]);
        });
}

/// The connection is used again within 500 ms, so the pool does not check it first.
#[test]
fn connection_terminated_while_idle_fails_at_most_once() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let rows = DatabaseService::execute_query("SELECT pg_backend_pid() AS pid", params! {})
                .unwrap();
            let pid: i64 = rows[0].get("pid").unwrap();
            database.scope().run(|| {
                let sql = "SELECT pg_terminate_backend(:pid::int, 10000)";
                DatabaseService::execute_query(sql, params! { "pid" => pid }).unwrap();
            });
            let failed = (0..5)
                .filter(|_| DatabaseService::execute_query("SELECT 1", params! {}).is_err())
                .count();
            assert!(failed <= 1, "{failed} of 5 calls failed");
            assert_eq!((status().invalid, counts()), (1, [1, 0]));
        });
}

/// The logger is the user's code, and it runs while the pool opens a connection.
#[test]
fn panic_while_connecting_does_not_reduce_pool_capacity() {
    logs::capture();
    TestDatabase::sqlite()
        .scope_with(|config| {
            (config.pool_size, config.max_overflow) = (1, 1);
            config.sqlite.busy_timeout = Duration::from_millis(4321);
            config.echo_sql = true;
        })
        .run(|| {
            let first = DatabaseService::connection().unwrap();
            logs::panic_at("busy_timeout = 4321");
            let second = DatabaseService::connection().unwrap();
            assert!(logs::has_panicked());
            drop((first, second));
            let _both = [(); 2].map(|()| DatabaseService::connection().unwrap());
        });
}
