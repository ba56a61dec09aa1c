//! A server process that is stopped with `SIGSTOP`. It answers nothing, while its operating system still acknowledges
//! what clients send.

use std::fs;
use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, PoolStatus, params, values,
};
use rustix::process::{Pid, Signal, kill_process};
use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use tests::TestDatabase;

/// The time by which a call may exceed its timeout.
const GRACE: Duration = Duration::from_secs(1);

/// A stopped server process. It continues when this is dropped.
struct StoppedProcess(Pid);

impl StoppedProcess {
    /// Stops the server process of a connection. Returns `None` if the process is on another machine.
    #[track_caller]
    fn of(connection: &mut Connection) -> Option<Self> {
        Some(Self::stop(server_process(connection)?))
    }

    fn stop(process: Pid) -> Self {
        kill_process(process, Signal::STOP).unwrap();
        StoppedProcess(process)
    }
}

/// Returns the server process of a connection, or `None` if it is on another machine.
#[track_caller]
fn server_process(connection: &mut Connection) -> Option<Pid> {
    let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
    let pid: i32 = rows.unwrap()[0].get("pid").unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Pid::from_raw(pid).filter(|_| name.trim() == "postgres")
}

impl Drop for StoppedProcess {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// Returns settings for the same database through the server's Unix socket.
fn unix_socket_config(database: &TestDatabase) -> DatabaseConfig {
    let sql = "SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS folder, \
               current_setting('port') AS port, current_database() AS name, current_user::text AS role";
    let row = database.scope().run(|| {
        DatabaseService::execute_query(sql, params! {})
            .unwrap()
            .remove(0)
    });
    let [folder, port, name, role] =
        ["folder", "port", "name", "role"].map(|column| row.get::<String>(column).unwrap());
    let url = format!("postgresql:///{name}?host={folder}&port={port}&user={role}");
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.pool_timeout = Duration::from_secs(10);
    config
}

#[test]
fn statement_without_an_answer_times_out() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for mut config in [database.config(), unix_socket_config(&database)] {
        let timeout = Duration::from_millis(300);
        config.postgres.socket_timeout = Some(timeout);
        let scope = Scope::new().provide(ConfigService::new(config));
        scope.run(|| {
            let mut connection = DatabaseService::connection().unwrap();
            let Some(stopped) = StoppedProcess::of(&mut connection) else {
                return;
            };
            let began = Instant::now();
            let error = connection
                .execute_query("SELECT 1", params! {})
                .unwrap_err();
            assert!(began.elapsed() < timeout + GRACE);
            assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
            assert!(
                !error.is_retryable(),
                "the server may have executed the statement"
            );
            let text = "no answer from the server within 300ms, so the connection was closed: ";
            assert!(error.to_string().starts_with(text), "{error}");
            drop(connection);
            drop(stopped);
            DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
            assert_eq!(status().invalid, 1);
        });
    }
}

/// The socket timeout applies to TCP and Unix sockets, with each setting of `tcp_user_timeout`, and while other pools
/// open connections.
#[test]
fn socket_timeout_applies_to_every_transport_and_setting() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(500);
    let separator = if database.url().contains('?') {
        '&'
    } else {
        '?'
    };
    let with_tcp_user_timeout = format!("{}{separator}tcp_user_timeout=7000", database.url());
    let mut without_tcp_user_timeout = database.config();
    without_tcp_user_timeout.postgres.tcp_user_timeout = None;
    let configs = [
        database.config(),
        without_tcp_user_timeout,
        DatabaseConfig::new(with_tcp_user_timeout.parse().unwrap()),
        unix_socket_config(&database),
    ];
    for (number, mut config) in configs.into_iter().enumerate() {
        config.postgres.socket_timeout = Some(timeout);
        config.pool_size = 8;
        let scope = Scope::new().provide(ConfigService::new(config));
        let timed_out = scope.run(|| {
            let time_out = move || {
                let mut connection = DatabaseService::connection().unwrap();
                let Some(_stopped) = StoppedProcess::of(&mut connection) else {
                    return true;
                };
                let began = Instant::now();
                let result = connection.execute_query("SELECT 1", params! {});
                matches!(result, Err(DbError::NoAnswer { .. })) && began.elapsed() < timeout + GRACE
            };
            let threads = [(); 8].map(|()| thread::spawn(ServiceContext::current().wrap(time_out)));
            // Another pool opens connections at the same time.
            database.scope().run(|| {
                let held = [(); 8].map(|()| DatabaseService::connection());
                assert!(held.iter().all(Result::is_ok));
            });
            threads.map(|thread| thread.join().unwrap())
        });
        assert_eq!(timed_out, [true; 8], "configuration {number}");
    }
}

#[test]
fn settings_incompatible_with_the_socket_timeout_are_rejected_at_start() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for (query, reason) in [
        ("service=shop", "service file"),
        ("host=/tmp&requirepeer=postgres", "requirepeer"),
        ("host=@abstract", "abstract"),
    ] {
        let url = format!("postgresql:///postgres?{query}");
        let mut config = DatabaseConfig::new(url.parse().unwrap());
        config.postgres.socket_timeout = Some(Duration::from_secs(1));
        let scope = Scope::new().provide(ConfigService::new(config));
        let error = scope
            .run(|| DatabaseService::execute_query("SELECT 1", params! {}))
            .unwrap_err();
        assert!(error.to_string().contains(reason), "{query}: {error}");
    }
    drop(database);
}

/// Without a socket timeout, the pool's own statements still time out after 5 seconds.
#[test]
fn connection_is_closed_if_rollback_times_out_without_a_socket_timeout() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("BEGIN", params! {}).unwrap();
        let Some(_stopped) = StoppedProcess::of(&mut connection) else {
            return;
        };
        let began = Instant::now();
        drop(connection);
        assert!(began.elapsed() < Duration::from_secs(5) + GRACE);
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
        assert_eq!((status().invalid, status().checked_out), (1, 0));
    });
}

/// The caller gets the error in time, whatever the connection does when the server stops.
#[test]
fn streams_and_bulk_inserts_time_out_if_the_server_stops() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(500);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INT, x TEXT)", params! {}).unwrap();
        type Work = fn(&mut Connection, &mut dyn FnMut()) -> Result<(), DbError>;
        let cases: [(&str, Work); 4] = [
            ("result stream", |connection, stop| {
                let mut left = 20;
                let sql = "SELECT generate_series(1, 100000) AS n";
                connection.for_each_row(sql, params! {}, |_| {
                    left -= 1;
                    if left == 0 {
                        stop();
                    }
                    Ok(ControlFlow::Continue(()))
                })
            }),
            (
                "bulk insert that fills the socket buffer",
                |connection, stop| {
                    let text = "x".repeat(1_000_000);
                    let rows = (0..50).map(|n| {
                        if n > 1 {
                            stop();
                        }
                        values![n, text.as_str()]
                    });
                    connection.bulk_insert("t", &["n", "x"], rows).map(drop)
                },
            ),
            ("last row of a bulk insert", |connection, stop| {
                let rows = (0..3).map(|n| {
                    if n == 2 {
                        stop();
                    }
                    values![n, "x"]
                });
                connection.bulk_insert("t", &["n", "x"], rows).map(drop)
            }),
            ("execute_many", |connection, stop| {
                stop();
                let rows: Vec<_> = (0..3).map(|n| params! { "n" => n }).collect();
                connection
                    .execute_many("INSERT INTO t (n) VALUES (:n)", &rows)
                    .map(drop)
            }),
        ];
        for (name, work) in cases {
            let mut connection = DatabaseService::connection().unwrap();
            let Some(process) = server_process(&mut connection) else {
                return;
            };
            let (mut stopped, mut since) = (None, Instant::now());
            let result = work(&mut connection, &mut || {
                let _ = stopped.get_or_insert_with(|| StoppedProcess::stop(process));
                since = Instant::now();
            });
            assert!(
                stopped.is_some() && since.elapsed() < timeout + GRACE,
                "{name}: {:?}",
                since.elapsed()
            );
            assert!(
                matches!(result, Err(DbError::NoAnswer { .. })),
                "{name}: {result:?}"
            );
        }
        // None of the rows were committed.
        let rows = DatabaseService::execute_query("SELECT n FROM t", params! {}).unwrap();
        assert!(rows.is_empty(), "{rows:?}");
    });
}

#[test]
fn commit_without_an_answer_returns_outcome_unknown() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database
        .scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_millis(300)));
    scope.run(|| {
        let mut stopped = None;
        let outcome = DatabaseService::transaction(|connection| {
            connection.execute_query("CREATE TABLE t (n int)", params! {})?;
            stopped = StoppedProcess::of(connection);
            Ok::<_, DbError>(stopped.is_some())
        });
        assert!(
            matches!(outcome, Err(DbError::OutcomeUnknown(_)) | Ok(false)),
            "{outcome:?}"
        );
    });
}

#[test]
fn transaction_that_cannot_begin_returns_no_answer() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database
        .scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_millis(300)));
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let Some(_stopped) = StoppedProcess::of(&mut connection) else {
            return;
        };
        // The pool does not check a connection that was in use less than 500 ms ago.
        drop(connection);
        let error = DatabaseService::transaction(|_| Ok::<_, DbError>(())).unwrap_err();
        assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
    });
}

/// The check of an idle connection takes at most half of the pool timeout. The other half is left to open a new
/// connection.
#[test]
fn unresponsive_idle_connection_is_replaced_within_the_pool_timeout() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_secs(2);
    let scope = database.scope_with(|config| config.pool_timeout = timeout);
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let Some(_stopped) = StoppedProcess::of(&mut connection) else {
            return;
        };
        drop(connection);
        // The pool checks a connection that was idle for at least 500 ms.
        database
            .scope()
            .run(|| DatabaseService::execute_query("SELECT pg_sleep(0.6)", params! {}))
            .unwrap();
        let began = Instant::now();
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
        let took = began.elapsed();
        assert!(
            took >= timeout / 2,
            "the pool checked the stopped connection first: {took:?}"
        );
        assert!(took < timeout + GRACE, "{took:?}");
    });
}

#[test]
fn connection_is_closed_if_its_reset_times_out() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(300);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("BEGIN", params! {}).unwrap();
        let Some(_stopped) = StoppedProcess::of(&mut connection) else {
            return;
        };
        let began = Instant::now();
        drop(connection);
        assert!(began.elapsed() < timeout + GRACE);
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
    });
}

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}
