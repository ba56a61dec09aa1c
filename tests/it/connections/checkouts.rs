//! Checkouts: session state does not outlive them, timeouts report who holds connections, and shutdown waits for them.

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use db_service::{DatabaseService, DbError, params};
use diesel::connection::SimpleConnection as _;
use singleton_core::ServiceContext;
use singleton_core::registry;
use tests::TestDatabase;

use crate::reporting::logs;

on_both_backends!(
    session_state_is_reset_when_a_connection_returns_to_the_pool,
    pool_timeout_reports_where_the_longest_checkout_began,
    shutdown_waits_for_connections_in_use,
    leaks_and_slow_statements_are_logged,
);

fn session_state_is_reset_when_a_connection_returns_to_the_pool(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let execute = |sql: &str| DatabaseService::execute_query(sql, params! {});
            let changes = if is_postgres {
                [
                    ("SET statement_timeout = '4711s'", "SELECT current_setting('statement_timeout') = '0' AS clean"),
                    ("CREATE TEMP TABLE mine (n int)", "SELECT to_regclass('mine') IS NULL AS clean"),
                    ("SELECT pg_advisory_lock(7)", "SELECT count(*) = 0 AS clean FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"),
                    ("LISTEN news", "SELECT count(*) = 0 AS clean FROM pg_listening_channels()"),
                ]
            } else {
                [
                    ("PRAGMA foreign_keys = OFF", "SELECT foreign_keys AS clean FROM pragma_foreign_keys"),
                    ("CREATE TEMP TABLE mine (n)", "SELECT count(*) = 0 AS clean FROM sqlite_temp_master"),
                    ("PRAGMA query_only = ON", "SELECT query_only = 0 AS clean FROM pragma_query_only"),
                    ("ATTACH ':memory:' AS other", "SELECT count(*) = 0 AS clean FROM pragma_database_list WHERE name = 'other'"),
                ]
            };
            for (change, check) in changes {
                execute(change).unwrap();
                let rows = execute(check).unwrap();
                assert!(rows[0].get::<bool>("clean").unwrap(), "{change}");
            }
            // The same holds for a batch that diesel executes, whatever its SQL.
            let mut connection = DatabaseService::connection().unwrap();
            connection.batch_execute(&format!("SELECT 1; {}", changes[0].0)).unwrap();
            drop(connection);
            assert!(execute(changes[0].1).unwrap()[0].get::<bool>("clean").unwrap());
            assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0, "no connection counts as invalid");
        });
}

#[test]
fn lost_connection_causes_replacement_of_all_older_connections() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let process = |connection: &mut db_service::Connection| -> i64 {
            let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
            rows.unwrap()[0].get("pid").unwrap()
        };
        let mut old: Vec<_> = (0..3)
            .map(|_| DatabaseService::connection().unwrap())
            .collect();
        let processes: Vec<_> = old
            .iter_mut()
            .map(|connection| process(connection))
            .collect();
        let mut lost = old.pop().unwrap();
        let sql = "SELECT pg_terminate_backend(:pid::int, 10000)";
        old[0]
            .execute_query(sql, params! { "pid" => processes[2] })
            .unwrap();
        lost.execute_query("SELECT 1", params! {}).unwrap_err();
        // One old connection is idle when the pool detects the loss. The other one returns afterwards.
        drop(old.pop());
        drop(lost);
        drop(old);
        let mut new: Vec<_> = (0..3)
            .map(|_| DatabaseService::connection().unwrap())
            .collect();
        for connection in &mut new {
            let process = process(connection);
            assert!(!processes.contains(&process), "{process} of {processes:?}");
        }
    });
}

fn pool_timeout_reports_where_the_longest_checkout_began(database: &TestDatabase) {
    database
        .scope_with(|config| {
            (config.pool_size, config.max_overflow) = (1, 0);
            config.pool_timeout = Duration::from_millis(20);
        })
        .run(|| {
            let (line, held) = (line!(), DatabaseService::connection().unwrap());
            let error = DatabaseService::execute_query("SELECT 1", params! {}).unwrap_err();
            let text = error.to_string();
            assert!(error.is_retryable(), "{text}");
            let DbError::PoolTimeout {
                idle,
                in_use,
                waiting,
                longest,
                last_failure,
                ..
            } = error
            else {
                panic!("{text}");
            };
            assert_eq!((idle, in_use, waiting, last_failure), (0, 1, 0, None));
            let location = longest.unwrap().location;
            assert_eq!((location.file(), location.line()), (file!(), line));
            let shown = format!("checked out at {}:{line}:", file!());
            assert!(
                text.contains("1 in use, 0 idle, 0 waiting") && text.contains(&shown),
                "{text}"
            );
            drop(held);
            // Inside a transaction, the error shows the line that began the transaction.
            let (line, error) = (line!() + 1, Mutex::new(None));
            let done: Result<(), DbError> = DatabaseService::transaction(|_| {
                *error.lock().unwrap() = DatabaseService::connection().err();
                Ok(())
            });
            done.unwrap();
            let text = error.lock().unwrap().take().unwrap().to_string();
            assert!(
                text.contains(&format!("checked out at {}:{line}:", file!())),
                "{text}"
            );
        });
}

#[test]
fn pool_timeout_reports_the_last_connect_failure() {
    let Some((database, other)) = TestDatabase::postgres().zip(TestDatabase::postgres()) else {
        return;
    };
    database
        .scope_with(|config| config.pool_timeout = Duration::from_secs(2))
        .run(|| {
            DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
            let name = database
                .url()
                .rsplit('/')
                .next()
                .unwrap()
                .split('?')
                .next()
                .unwrap();
            let lock = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
            let lock = || DatabaseService::execute_query(&lock, params! {});
            other.scope().run(lock).unwrap();
            let _held = DatabaseService::connection().unwrap();
            let error = DatabaseService::connection().map(drop).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("is not currently accepting connections"),
                "{text}"
            );
        });
}

fn shutdown_waits_for_connections_in_use(database: &TestDatabase) {
    let config = |config: &mut db_service::DatabaseConfig| {
        (config.pool_size, config.max_overflow) = (1, 0);
        config.drain_timeout = Duration::from_secs(60);
    };
    database.scope_with(config).run(|| {
        let execute = |sql: &str| DatabaseService::execute_query(sql, params! {});
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let mut held = DatabaseService::connection().unwrap();
        let scope = ServiceContext::current();
        // This caller waits for the held connection. The shutdown ends the wait.
        let waiter = thread::spawn(scope.wrap(|| DatabaseService::connection().map(drop)));
        let (ended, has_ended) = mpsc::channel();
        let shutdown = thread::spawn(scope.wrap(move || {
            let report = registry().shutdown_all();
            ended.send(report.is_clean()).unwrap();
        }));
        let refused = waiter.join().unwrap();
        assert!(
            matches!(refused, Err(DbError::Closed | DbError::Service(_))),
            "{refused:?}"
        );
        let early = has_ended.recv_timeout(Duration::from_millis(100));
        assert!(
            early.is_err(),
            "the shutdown ended while a connection was in use"
        );
        held.execute_query("INSERT INTO t VALUES (1)", params! {})
            .unwrap();
        drop(held);
        assert!(has_ended.recv_timeout(Duration::from_secs(60)).unwrap());
        shutdown.join().unwrap();
    });
    database.scope().run(|| {
        let rows = DatabaseService::execute_query("SELECT n FROM t", params! {}).unwrap();
        assert_eq!(rows.len(), 1);
    });
}

fn leaks_and_slow_statements_are_logged(database: &TestDatabase) {
    logs::capture();
    let threshold = Duration::from_millis(1);
    database
        .scope_with(|config| {
            config.leak_threshold = Some(threshold);
            config.slow_query_threshold = Some(Duration::from_nanos(1));
        })
        .run(|| {
            let line = line!();
            let held = DatabaseService::connection().unwrap();
            let checkout_time = Instant::now();
            while checkout_time.elapsed() < 2 * threshold {
                thread::yield_now();
            }
            let sql = format!("SELECT :value AS {}", database.url().len());
            let sql = sql.replace("AS ", "AS slow_");
            DatabaseService::execute_query(&sql, params! { "value" => 4_711_815 }).unwrap();
            drop(held);
            let place = format!("checked out at {}:{}:", file!(), line + 1);
            let leaks = logs::lines_with(&place).len();
            assert!(
                (1..=2).contains(&leaks),
                "one log line per backend: {leaks}"
            );
            let slow = logs::lines_with("AS slow_");
            assert!(
                !slow.is_empty() && slow.iter().all(|line| !line.contains("4711815")),
                "{slow:?}"
            );
        });
    let before = logs::lines_with("AS not_slow").len();
    database.scope().run(|| {
        DatabaseService::execute_query("SELECT 1 AS not_slow", params! {}).unwrap();
    });
    assert_eq!(logs::lines_with("AS not_slow").len(), before);
}
