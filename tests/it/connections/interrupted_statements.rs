//! A statement that is canceled, refused by the driver or never answered leaves its connection unchanged or closed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bigdecimal::BigDecimal;
use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, Isolation, Row,
    TransactionOptions, params,
};
use diesel::RunQueryDsl;
use diesel::pg::Pg;
use diesel::serialize::{IsNull, Output, ToSql};
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestServer};

/// Returns the process ID of a connection's server process, or `None` if the query fails.
fn backend_pid(connection: &mut Connection) -> Option<i32> {
    let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
    rows.ok()?[0].get("pid").ok()
}

/// The service can begin a transaction for a single statement of its caller. The transaction ends with the statement,
/// even if its `COMMIT` or `ROLLBACK` is canceled.
#[test]
fn cancellation_leaves_no_open_transaction() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for cache in [0, 512] {
        let scope = database.scope_with(|config| {
            config.statement_cache_size = cache;
            (config.pool_size, config.max_overflow) = (1, 0);
            config.postgres.statement_timeout = Some(Duration::from_secs(30));
        });
        scope.run(|| {
            for round in 0..20 {
                let is_done = AtomicBool::new(false);
                let mut connection = DatabaseService::connection().unwrap();
                let Some(pid) = backend_pid(&mut connection) else {
                    continue;
                };
                drop(connection);
                thread::scope(|threads| {
                    let canceler = || {
                        database.scope().run(|| {
                            let sql = "SELECT pg_cancel_backend(:pid)";
                            while !is_done.load(Ordering::Relaxed) {
                                DatabaseService::execute_query(sql, params! { "pid" => pid })
                                    .unwrap();
                                thread::sleep(Duration::from_micros(fastrand::u64(0..1500)));
                            }
                        });
                    };
                    let canceler = threads.spawn(canceler);
                    for n in 0..60 {
                        let sql = format!("SELECT CAST(:n AS int) + {round} + {n} AS n");
                        let _ = DatabaseService::execute_query(&sql, params! { "n" => "1" });
                    }
                    is_done.store(true, Ordering::Relaxed);
                    canceler.join().unwrap();
                });
                // The last cancellation may arrive late, and then cancels at most one of these statements.
                let answers =
                    [(); 3].map(|()| DatabaseService::execute_query("SELECT 1", params! {}));
                assert!(
                    answers[2].is_ok(),
                    "cache {cache}, round {round}: {answers:?}"
                );
            }
        });
    }
}

/// Starts a proxy for a server that replaces a text by another one of the same length while `replaces` is set. Returns
/// its port.
fn replacing_proxy(
    server: u16,
    replaces: Arc<AtomicBool>,
    text: &'static [u8],
    by: &'static [u8],
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let (mut answers, mut to_client) =
                (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut answers, &mut to_client));
            let replaces = Arc::clone(&replaces);
            thread::spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while let Ok(length @ 1..) = client.read(&mut buffer) {
                    let sent = &mut buffer[..length];
                    let at = sent.windows(text.len()).position(|part| part == text);
                    if let Some(at) = at.filter(|_| replaces.load(Ordering::Relaxed)) {
                        sent[at..at + by.len()].copy_from_slice(by);
                    }
                    server.write_all(sent)?;
                }
                server.shutdown(std::net::Shutdown::Both)
            });
        }
    });
    port
}

/// A way to run a statement.
type Way = fn(&mut Connection) -> Result<Vec<Row>, DbError>;

/// The second statement after `BEGIN` fails, so the transaction has begun and has failed.
#[test]
fn refused_timeout_leaves_no_open_transaction() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let refuses = Arc::new(AtomicBool::new(false));
    let port = replacing_proxy(
        server.port(),
        Arc::clone(&refuses),
        b"SET LOCAL lock_timeout = 62000",
        b"SET LOCAL lock_timeout = -6200",
    );
    let url = format!("postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    (config.pool_size, config.max_overflow) = (1, 0);
    config.statement_cache_size = 0;
    config.postgres.statement_timeout = Some(Duration::from_secs(61));
    config.postgres.lock_timeout = Some(Duration::from_secs(62));
    Scope::new().provide(ConfigService::new(config)).run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let pid = backend_pid(&mut connection).unwrap();
        let options = TransactionOptions {
            isolation: Some(Isolation::Serializable),
            ..TransactionOptions::default()
        };
        fn select(connection: &mut Connection) -> Result<Vec<Row>, DbError> {
            connection.execute_query("SELECT 1 AS n", params! {})
        }
        let ways: [Way; 4] = [
            |connection| connection.transaction(select),
            |connection| connection.transaction_with(&TransactionOptions::default(), select),
            select,
            |connection| {
                connection
                    .execute("SELECT 1 AS n", params! {})
                    .map(|_| Vec::new())
            },
        ];
        let serializable: &dyn Fn(&mut Connection) -> _ =
            &|connection| connection.transaction_with(&options, select);
        for way in ways
            .iter()
            .map(|way| way as &dyn Fn(&mut Connection) -> _)
            .chain([serializable])
        {
            refuses.store(true, Ordering::Relaxed);
            let refused = way(&mut connection);
            let Err(DbError::Query(error)) = &refused else {
                panic!("{refused:?}");
            };
            let message = error.driver_error().to_string();
            assert!(message.contains("\"lock_timeout\""), "{message}");
            let states = server.execute(&format!(
                "SELECT state FROM pg_stat_activity WHERE pid = {pid}"
            ));
            assert_eq!(states[0].get::<String>("state").unwrap(), "idle");
            refuses.store(false, Ordering::Relaxed);
            way(&mut connection).unwrap();
            assert_eq!(backend_pid(&mut connection), Some(pid));
        }
    });
}

#[derive(diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"))]
struct MoodType;

#[derive(Debug)]
struct Mood;

impl ToSql<MoodType, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> diesel::serialize::Result {
        out.write_all(b"ok")?;
        Ok(IsNull::No)
    }
}

#[test]
fn socket_timeout_applies_when_diesel_looks_up_a_type() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(300);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        let sql = "CREATE TYPE mood AS ENUM ('ok')";
        DatabaseService::execute_query(sql, params! {}).unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        let Connection::Postgres(inner) = &mut *connection else {
            unreachable!()
        };
        let began = Instant::now();
        let result = diesel::sql_query("SELECT pg_sleep(5), $1")
            .bind::<MoodType, _>(Mood)
            .execute(inner);
        assert!(result.is_err(), "{result:?}");
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn value_refused_by_the_driver_leaves_no_deadline_running() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_secs(1);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query("CREATE TABLE t (n numeric)", params! {})?;
            let tiny: BigDecimal = "1e-70000".parse().unwrap();
            let refused = connection.execute_query("SELECT :n", params! { "n" => tiny });
            assert!(refused.is_err());
            // No timeout applies to an idle connection. This one is idle for longer than the socket timeout.
            thread::sleep(timeout + timeout / 2);
            connection
                .execute_query("INSERT INTO t VALUES (1)", params! {})
                .map(drop)
        });
        committed.unwrap();
    });
}

/// A role without `EXECUTE` on `pg_terminate_backend` cannot terminate its own session.
#[test]
fn lost_connection_commits_nothing_if_the_session_cannot_be_terminated() {
    let Some(server) = TestServer::start() else {
        return;
    };
    for sql in [
        "REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM public",
        "CREATE ROLE joe LOGIN",
        "CREATE TABLE t (n int)",
        "GRANT ALL ON t TO joe",
    ] {
        server.execute(sql);
    }
    let url = format!("postgresql://joe@127.0.0.1:{}/postgres", server.port());
    let config = ConfigService::new(DatabaseConfig::new(url.parse().unwrap()));
    Scope::new().provide(config).run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let outcome: Result<(), DbError> = connection.transaction(|connection| {
            let nested: Result<(), DbError> = connection.transaction(|connection| {
                // Without the savepoint, diesel's rollback to it fails.
                diesel::sql_query("RELEASE SAVEPOINT diesel_savepoint_1").execute(connection)?;
                Err(DbError::NoRow)
            });
            assert!(nested.is_err());
            let typed = diesel::sql_query("INSERT INTO t VALUES (1)").execute(connection);
            assert!(typed.is_err(), "{typed:?}");
            Ok(())
        });
        assert!(
            matches!(outcome, Err(DbError::ConnectionLost(_))),
            "{outcome:?}"
        );
    });
    assert!(server.execute("SELECT * FROM t").is_empty());
}

/// Starts a server that accepts each client, answers `SET` statements and nothing else. Returns its port.
fn unresponsive_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            thread::spawn(move || answer_settings(client));
        }
    });
    port
}

/// Answers the messages of `SET` statements, in the formats of
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
fn answer_settings(mut client: TcpStream) -> std::io::Result<()> {
    const READY: &[u8] = b"Z\0\0\0\x05I";
    fn body(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut length = [0; 4];
        client.read_exact(&mut length)?;
        let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut body)?;
        Ok(body)
    }
    // Encryption requests come before the startup message, which has protocol version 3.
    while body(&mut client)?[..2] != [0, 3] {
        client.write_all(b"N")?;
    }
    client.write_all(b"R\0\0\0\x08\0\0\0\0")?;
    client.write_all(READY)?;
    loop {
        let mut kind = [0];
        client.read_exact(&mut kind)?;
        let body = body(&mut client)?;
        let is_setting = body.windows(4).any(|part| part == b"SET ");
        let answer: &[u8] = match kind[0] {
            b'P' if is_setting => b"1\0\0\0\x04",
            b'B' => b"2\0\0\0\x04",
            b'D' => b"n\0\0\0\x04",
            b'E' => b"C\0\0\0\x08SET\0",
            b'S' => READY,
            // Answers nothing until the client closes the connection.
            _ => return client.read_to_end(&mut Vec::new()).map(drop),
        };
        client.write_all(answer)?;
    }
}

#[test]
fn ping_during_start_times_out() {
    let url = format!("postgresql://x@127.0.0.1:{}/x", unresponsive_server());
    let config = ConfigService::new(DatabaseConfig::new(url.parse().unwrap()));
    let began = Instant::now();
    let answer = Scope::new()
        .provide(config)
        .run(|| DatabaseService::connection().map(drop));
    let error = answer.unwrap_err().to_string();
    assert!(
        error.contains("ping failed: the server did not answer within 5s"),
        "{error}"
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}
