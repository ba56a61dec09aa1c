//! A server that was stopped in the middle: it answers nothing, and its machine goes on acknowledging what is sent.

use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, PoolStatus, params, values,
};
use rustix::process::{Pid, Signal, kill_process};
use singleton_core::testing::Scope;
use tests::TestDatabase;

/// What callers are promised on top of their limits.
const GRACE: Duration = Duration::from_secs(1);

/// A server process that is stopped until this is dropped.
struct Stopped(Pid);

impl Stopped {
    /// Stops the process behind a connection; `None` where it is on another machine.
    #[track_caller]
    fn behind(connection: &mut Connection) -> Option<Self> {
        Some(Self::stop(process_behind(connection)?))
    }

    fn stop(process: Pid) -> Self {
        kill_process(process, Signal::STOP).unwrap();
        Stopped(process)
    }
}

/// The process behind a connection; `None` where it is on another machine.
#[track_caller]
fn process_behind(connection: &mut Connection) -> Option<Pid> {
    let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
    let pid: i32 = rows.unwrap()[0].get("pid").unwrap();
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Pid::from_raw(pid).filter(|_| name.trim() == "postgres")
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// The same database through the server's Unix socket.
fn on_unix_socket(database: &TestDatabase) -> DatabaseConfig {
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
fn a_statement_is_given_up_when_no_answer_comes() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for mut config in [database.config(), on_unix_socket(&database)] {
        let limit = Duration::from_millis(300);
        config.postgres.socket_timeout = Some(limit);
        let scope = Scope::new().provide(ConfigService::new(config));
        scope.run(|| {
            let mut connection = DatabaseService::connection().unwrap();
            let Some(stopped) = Stopped::behind(&mut connection) else {
                return;
            };
            let began = Instant::now();
            let error = connection
                .execute_query("SELECT 1", params! {})
                .unwrap_err();
            assert!(began.elapsed() < limit + GRACE);
            assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
            assert!(!error.is_retryable(), "it may have been executed");
            let text = "no answer from the server within 300ms, so the connection was closed: ";
            assert!(error.to_string().starts_with(text), "{error}");
            drop(connection);
            drop(stopped);
            DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
            assert_eq!(status().invalid, 1);
        });
    }
}

/// The way to the server, its settings and other pools of the program make no difference.
#[test]
fn every_statement_is_given_up_however_the_server_is_reached() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(500);
    let separator = if database.url().contains('?') {
        '&'
    } else {
        '?'
    };
    let with_own_limit = format!("{}{separator}tcp_user_timeout=7000", database.url());
    let mut without_limit = database.config();
    without_limit.postgres.tcp_user_timeout = None;
    let configs = [
        database.config(),
        without_limit,
        DatabaseConfig::new(with_own_limit.parse().unwrap()),
        on_unix_socket(&database),
    ];
    for (number, mut config) in configs.into_iter().enumerate() {
        config.postgres.socket_timeout = Some(limit);
        config.pool_size = 8;
        let scope = Scope::new().provide(ConfigService::new(config));
        let cut = scope.run(|| {
            let give_up = move || {
                let mut connection = DatabaseService::connection().unwrap();
                let Some(_stopped) = Stopped::behind(&mut connection) else {
                    return true;
                };
                let began = Instant::now();
                let result = connection.execute_query("SELECT 1", params! {});
                matches!(result, Err(DbError::NoAnswer { .. })) && began.elapsed() < limit + GRACE
            };
            let cutters = [(); 8].map(|()| Scope::current().spawn(give_up).unwrap());
            // Another pool opens connections meanwhile.
            database.scope().run(|| {
                let held = [(); 8].map(|()| DatabaseService::connection());
                assert!(held.iter().all(Result::is_ok));
            });
            cutters.map(|cutter| cutter.join().unwrap())
        });
        assert_eq!(cut, [true; 8], "configuration {number}");
    }
}

#[test]
fn what_the_limit_of_an_answer_cannot_be_kept_with_is_refused_at_the_start() {
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

/// Without a limit for answers there is still one for what the pool does on its own account.
#[test]
fn a_connection_that_cannot_be_rolled_back_in_time_is_closed_without_a_limit_for_answers() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("BEGIN", params! {}).unwrap();
        let Some(_stopped) = Stopped::behind(&mut connection) else {
            return;
        };
        let began = Instant::now();
        drop(connection);
        assert!(began.elapsed() < Duration::from_secs(5) + GRACE);
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
        assert_eq!((status().invalid, status().checked_out), (1, 0));
    });
}

/// However much is under way when the server stops, its caller gets the error in time.
#[test]
fn what_is_under_way_is_given_up_when_no_answer_comes() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(500);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(limit));
    scope.run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INT, x TEXT)", params! {}).unwrap();
        type Work = fn(&mut Connection, &mut dyn FnMut()) -> Result<(), DbError>;
        let works: [(&str, Work); 4] = [
            ("stream", |connection, stop| {
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
            ("rows that fill the socket", |connection, stop| {
                let text = "x".repeat(1_000_000);
                let rows = (0..50).map(|n| {
                    if n > 1 {
                        stop();
                    }
                    values![n, text.as_str()]
                });
                connection.bulk_insert("t", &["n", "x"], rows).map(drop)
            }),
            ("the last of the rows", |connection, stop| {
                let rows = (0..3).map(|n| {
                    if n == 2 {
                        stop();
                    }
                    values![n, "x"]
                });
                connection.bulk_insert("t", &["n", "x"], rows).map(drop)
            }),
            ("a statement for many", |connection, stop| {
                stop();
                let rows: Vec<_> = (0..3).map(|n| params! { "n" => n }).collect();
                connection
                    .execute_many("INSERT INTO t (n) VALUES (:n)", &rows)
                    .map(drop)
            }),
        ];
        for (name, work) in works {
            let mut connection = DatabaseService::connection().unwrap();
            let Some(process) = process_behind(&mut connection) else {
                return;
            };
            let (mut stopped, mut since) = (None, Instant::now());
            let result = work(&mut connection, &mut || {
                let _ = stopped.get_or_insert_with(|| Stopped::stop(process));
                since = Instant::now();
            });
            assert!(
                stopped.is_some() && since.elapsed() < limit + GRACE,
                "{name}: {:?}",
                since.elapsed()
            );
            assert!(
                matches!(result, Err(DbError::NoAnswer { .. })),
                "{name}: {result:?}"
            );
        }
        // Nothing of it is there.
        let rows = DatabaseService::execute_query("SELECT n FROM t", params! {}).unwrap();
        assert!(rows.is_empty(), "{rows:?}");
    });
}

#[test]
fn a_commit_without_an_answer_has_an_unknown_outcome() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database
        .scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_millis(300)));
    scope.run(|| {
        let mut stopped = None;
        let outcome = DatabaseService::transaction(|connection| {
            connection.execute_query("CREATE TABLE t (n int)", params! {})?;
            stopped = Stopped::behind(connection);
            Ok::<_, DbError>(stopped.is_some())
        });
        assert!(
            matches!(outcome, Err(DbError::OutcomeUnknown(_)) | Ok(false)),
            "{outcome:?}"
        );
    });
}

#[test]
fn a_transaction_that_cannot_begin_tells_that_no_answer_came() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database
        .scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_millis(300)));
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let Some(_stopped) = Stopped::behind(&mut connection) else {
            return;
        };
        // It was in use just now, so it is not checked.
        drop(connection);
        let error = DatabaseService::transaction(|_| Ok::<_, DbError>(())).unwrap_err();
        assert!(matches!(error, DbError::NoAnswer { .. }), "{error:?}");
    });
}

/// The check of an idle connection leaves half of the time for another one.
#[test]
fn an_idle_connection_that_does_not_answer_is_replaced_in_time() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_secs(2);
    let scope = database.scope_with(|config| config.pool_timeout = limit);
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let Some(_stopped) = Stopped::behind(&mut connection) else {
            return;
        };
        drop(connection);
        // Until it has been idle for so long that it is checked.
        database
            .scope()
            .run(|| DatabaseService::execute_query("SELECT pg_sleep(0.6)", params! {}))
            .unwrap();
        let began = Instant::now();
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
        let took = began.elapsed();
        assert!(
            took >= limit / 2,
            "the stopped one was asked first: {took:?}"
        );
        assert!(took < limit + GRACE, "{took:?}");
    });
}

#[test]
fn a_connection_that_cannot_be_cleaned_in_time_is_closed() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(300);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(limit));
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("BEGIN", params! {}).unwrap();
        let Some(_stopped) = Stopped::behind(&mut connection) else {
            return;
        };
        let began = Instant::now();
        drop(connection);
        assert!(began.elapsed() < limit + GRACE);
        DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
    });
}

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

#[test]
fn a_minimum_of_idle_connections_is_kept() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    // There may be one more, which was opened for a caller whom another one served first.
    let until_idle = |at_least| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while status().checked_in < at_least {
            assert!(Instant::now() < deadline, "{:?}", status());
            std::thread::yield_now();
        }
    };
    let scope = database.scope_with(|config| config.min_idle = 3);
    scope.run(|| {
        until_idle(3);
        let _held = [(); 2].map(|()| DatabaseService::connection().unwrap());
        until_idle(3);
        assert_eq!(status().checked_out, 2);
    });
}
