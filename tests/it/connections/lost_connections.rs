//! Idle connections: when they are checked, and what becomes of those that were lost.

use std::time::Duration;

use db_service::{DatabaseService, DbError, PoolStatus, params};
use tests::TestDatabase;

use crate::reporting::logs;

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

/// How many connections are idle and in use.
fn counts() -> [u32; 2] {
    [status().checked_in, status().checked_out]
}

/// What the server knows of the last statement of each connection of the database, the asking one apart.
const LAST_STATEMENT: &str = "SELECT query, state_change FROM pg_stat_activity \
                              WHERE datname = current_database() AND pid = :pid";

#[test]
fn a_connection_used_lately_is_handed_out_without_a_round_trip() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let rows = DatabaseService::execute_query("SELECT pg_backend_pid() AS pid", params! {})
                .unwrap();
            let pid: i64 = rows[0].get("pid").unwrap();
            // Another pool looks on.
            let last = || {
                let look = || {
                    DatabaseService::execute_query(LAST_STATEMENT, params! { "pid" => pid })
                        .unwrap()
                        .remove(0)
                };
                database.scope().run(look)
            };
            let before = last();
            for _ in 0..10 {
                drop(DatabaseService::connection().unwrap());
            }
            assert_eq!(last(), before, "the server has heard nothing");
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
                "after 500 ms it is checked"
            );
        });
}

#[test]
fn a_killed_connection_is_replaced() {
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
                // Waits until the process is gone.
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

/// Used again at once, so that the check of idle connections does not find it.
#[test]
fn a_connection_killed_while_idle_fails_once() {
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

/// What is logged while connecting is the user's code.
#[test]
fn a_panic_while_connecting_costs_no_place() {
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
