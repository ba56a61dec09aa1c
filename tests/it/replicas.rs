//! Reads from replicas: round-robin order, replication lag, reads after the caller's own writes, and fallback to the
//! primary.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, ReadOptions,
    ReplicaStatistics, WritePosition, params,
};
use singleton_core::ServiceContext;
use singleton_core::registry;
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestServer};

on_both_backends!(read_without_replicas_is_a_read_only_transaction_on_the_primary);

const MAX_WAIT: Duration = Duration::from_secs(60);

fn config(primary: &TestServer, replicas: &[&str]) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(primary.url().parse().unwrap());
    config.pool_timeout = Duration::from_secs(10);
    config.replicas.urls = replicas.iter().map(|url| url.parse().unwrap()).collect();
    config.replicas.max_lag = None;
    config.postgres.application_name = Some("shop".to_owned());
    config
}

fn scope(config: DatabaseConfig) -> Scope {
    Scope::new().provide(ConfigService::new(config))
}

fn number(connection: &mut Connection, sql: &str) -> Result<i64, DbError> {
    connection.execute_query(sql, params! {})?[0].get("n")
}

fn port(connection: &mut Connection) -> Result<u16, DbError> {
    let port = number(connection, "SELECT current_setting('port')::int AS n")?;
    Ok(u16::try_from(port).unwrap())
}

fn write(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn replica(index: usize) -> ReplicaStatistics {
    DatabaseService::statistics().unwrap().replicas[index].clone()
}

#[track_caller]
fn wait_until(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + MAX_WAIT;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "the condition is not true after {MAX_WAIT:?}"
        );
    }
}

fn read_without_replicas_is_a_read_only_transaction_on_the_primary(database: &TestDatabase) {
    database.scope().run(|| {
        write("CREATE TABLE t (n INTEGER)");
        let refused: Result<_, DbError> = DatabaseService::read(|connection| {
            connection.execute_query("INSERT INTO t VALUES (1)", params! {})
        });
        assert!(matches!(refused, Err(DbError::ReadOnly(_))), "{refused:?}");
        let options = ReadOptions {
            after: Some(DatabaseService::write_position().unwrap()),
            ..ReadOptions::default()
        };
        let count = DatabaseService::read_with(&options, |connection| {
            number(connection, "SELECT count(*) AS n FROM t")
        });
        assert_eq!(count.unwrap(), 0);
        let statistics = DatabaseService::statistics().unwrap();
        assert_eq!(
            (statistics.reads_on_primary, statistics.replicas),
            (2, vec![])
        );
        assert_eq!(statistics.pool.transactions_committed, 1);
    });
}

#[test]
fn replicas_are_read_in_round_robin_order_unless_they_lag() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standbys = [primary.standby(), primary.standby()];
    let ports = standbys.each_ref().map(TestServer::port);
    let urls = standbys.each_ref().map(TestServer::url);
    let mut config = config(&primary, &urls.each_ref().map(String::as_str));
    let max_lag = Duration::from_secs(1);
    config.replicas.max_lag = Some(max_lag);
    scope(config).run(|| {
        let all_usable = || (0..2).all(|index| replica(index).is_fit);
        write("CREATE TABLE t (n int)");
        wait_until(all_usable);
        let ports_read: Vec<u16> = (0..4)
            .map(|_| DatabaseService::read(port).unwrap())
            .collect();
        assert!(
            ports_read[0] != ports_read[1] && ports_read[..2] == ports_read[2..],
            "{ports_read:?}"
        );
        assert!(
            ports_read.iter().all(|port| ports.contains(port)),
            "{ports_read:?} of {ports:?}"
        );
        let refused: Result<_, DbError> = DatabaseService::read(|connection| {
            connection.execute_query("CREATE TABLE other (n int)", params! {})
        });
        assert!(matches!(refused, Err(DbError::ReadOnly(_))), "{refused:?}");
        // While the primary writes nothing, the lag does not grow.
        let began = Instant::now();
        while began.elapsed() < max_lag + max_lag / 2 {
            assert!(ports.contains(&DatabaseService::read(port).unwrap()));
        }
        standbys[0].execute("SELECT pg_wal_replay_pause()");
        write("INSERT INTO t VALUES (1)");
        wait_until(|| !replica(0).is_fit);
        assert!(replica(0).lag.is_some_and(|lag| lag > max_lag));
        for _ in 0..4 {
            assert_eq!(DatabaseService::read(port).unwrap(), ports[1]);
        }
        standbys[0].execute("SELECT pg_wal_replay_resume()");
        wait_until(all_usable);
        let statistics = DatabaseService::statistics().unwrap();
        assert!(statistics.replicas.iter().all(|replica| replica.reads > 1));
        let shown = statistics.to_string();
        assert!(
            shown.contains("  fit, lag 0.0ns: postgresql://postgres@127.0.0.1:"),
            "{shown}"
        );
        assert_eq!(statistics.to_json()["replicas"][1]["is_fit"], true);
        // After the shutdown, no session of the service is left on a standby.
        assert!(registry().shutdown_all().is_clean());
        let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'shop'";
        for standby in &standbys {
            wait_until(|| standby.execute(sql)[0].get::<i64>("n").unwrap() == 0);
        }
    });
}

#[test]
fn read_after_a_write_waits_for_a_replica_or_uses_the_primary() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    scope(config(&primary, &[&standby.url()])).run(|| {
        write("CREATE TABLE t (n int)");
        wait_until(|| replica(0).is_fit);
        let read_after = |position: WritePosition, timeout| {
            let options = ReadOptions {
                after: Some(position),
                patience: timeout,
            };
            let read = |connection: &mut Connection| {
                Ok::<_, DbError>((
                    port(connection)?,
                    number(connection, "SELECT count(*) AS n FROM t")?,
                ))
            };
            DatabaseService::read_with(&options, read).unwrap()
        };
        for count in 1..=10 {
            // With asynchronous commit, the server may write the commit to disk after this returns.
            let insert: Result<(), DbError> = DatabaseService::transaction(|connection| {
                connection.execute_query("SET LOCAL synchronous_commit = off", params! {})?;
                connection.execute_query("INSERT INTO t VALUES (1)", params! {})?;
                Ok(())
            });
            insert.unwrap();
            let position = DatabaseService::write_position().unwrap();
            assert_eq!(read_after(position, MAX_WAIT).1, count);
        }
        standby.execute("SELECT pg_wal_replay_pause()");
        write("INSERT INTO t VALUES (1)");
        let position = DatabaseService::write_position().unwrap();
        assert_eq!(
            read_after(position, Duration::from_millis(50)),
            (primary.port(), 11)
        );
        let context = ServiceContext::current();
        let waiting = thread::spawn(context.wrap(move || read_after(position, MAX_WAIT)));
        wait_until(|| replica(0).pool.checked_out > 0);
        standby.execute("SELECT pg_wal_replay_resume()");
        assert_eq!(waiting.join().unwrap(), (standby.port(), 11));

        // A shutdown ends the wait.
        let options = ReadOptions {
            after: Some("FFFFFFFF/0".parse().unwrap()),
            patience: MAX_WAIT,
        };
        let waiting =
            thread::spawn(context.wrap(move || DatabaseService::read_with(&options, port)));
        wait_until(|| replica(0).pool.checked_out > 0);
        let started_at = Instant::now();
        assert!(registry().shutdown_all().is_clean());
        let result = waiting.join().unwrap();
        assert!(
            matches!(result, Err(DbError::Closed | DbError::Service(_))),
            "{result:?}"
        );
        let took = started_at.elapsed();
        assert!(took < MAX_WAIT / 2, "{took:?}");
    });
}

#[test]
fn failed_replicas_are_skipped_and_retried() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let unresponsive = TcpListener::bind("127.0.0.1:0").unwrap();
    let unresponsive = format!(
        "postgresql://{}/postgres",
        unresponsive.local_addr().unwrap()
    );
    let closed = "postgresql://127.0.0.1:1/postgres";
    // The primary is not used as a replica, although it has no lag.
    let urls = [closed, &unresponsive, &standby.url(), &primary.url()];
    let assert_fast = |work: &dyn Fn()| {
        let began = Instant::now();
        work();
        // Connecting to an unresponsive server takes longer.
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
    };
    let reads_come_from = |server: &TestServer| {
        for _ in 0..20 {
            assert_eq!(DatabaseService::read(port).unwrap(), server.port());
        }
    };
    scope(config(&primary, &urls)).run(|| {
        assert_fast(&|| write("CREATE TABLE t (n int)"));
        assert_fast(&|| reads_come_from(&standby));
        assert!(
            replica(0)
                .last_failure
                .is_some_and(|failure| failure.contains("refused"))
        );
        standby.crash();
        assert_fast(&|| reads_come_from(&primary));
        standby.start_again();
        wait_until(|| replica(2).is_fit);
        assert_fast(&|| reads_come_from(&standby));
        // The frozen server still accepts connections, and no longer answers.
        let frozen = standby.freeze();
        wait_until(|| !replica(2).is_fit);
        assert_fast(&|| reads_come_from(&primary));
        drop(frozen);
        wait_until(|| replica(2).is_fit);
        assert_fast(&|| reads_come_from(&standby));
        assert_eq!(DatabaseService::statistics().unwrap().reads_on_primary, 40);
    });
}

#[test]
fn read_uses_the_primary_if_the_replica_has_no_free_connection() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    // The probe uses one connection, the pool the other.
    primary.execute("CREATE ROLE shop LOGIN CONNECTION LIMIT 2");
    let url = standby.url().replace("postgres@", "shop@");
    let count_roles = "SELECT count(*) AS n FROM pg_roles WHERE rolname = 'shop'";
    wait_until(|| standby.execute(count_roles)[0].get::<i64>("n").unwrap() == 1);
    scope(config(&primary, &[&url])).run(|| {
        wait_until(|| replica(0).is_fit);
        let began = Instant::now();
        let ports = DatabaseService::read(|connection| {
            let other = DatabaseService::read(port)?;
            Ok::<_, DbError>((port(connection)?, other))
        });
        assert_eq!(ports.unwrap(), (standby.port(), primary.port()));
        // Less than the 10 seconds that a caller waits for a connection to the primary.
        assert!(
            began.elapsed() < Duration::from_secs(8),
            "{:?}",
            began.elapsed()
        );
        let failure = replica(0).last_failure.unwrap();
        assert!(
            failure.contains("too many connections for role"),
            "{failure}"
        );
        wait_until(|| replica(0).is_fit);
    });
}

#[test]
fn replica_without_a_primary_lags_although_nothing_is_left_to_replay() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let mut config = config(&primary, &[&standby.url()]);
    config.replicas.max_lag = Some(Duration::from_secs(1));
    let both = format!(
        "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?target_session_attrs=read-write",
        primary.port(),
        standby.port()
    );
    config.url = both.parse().unwrap();
    scope(config).run(|| {
        write("CREATE TABLE t (n int)");
        wait_until(|| replica(0).is_fit);
        primary.crash();
        wait_until(|| !replica(0).is_fit);
        assert!(
            replica(0)
                .lag
                .is_some_and(|lag| lag > Duration::from_secs(1))
        );
        standby.promote();
        let reads = || DatabaseService::statistics().unwrap().reads_on_primary;
        wait_until(|| DatabaseService::read(port).is_ok_and(|port| port == standby.port()));
        // The standby is the primary now, and its reads count as reads on the primary.
        assert!(reads() > 0 && replica(0).reads == 0);
    });
}

#[test]
fn read_canceled_by_replay_is_retried_on_the_primary() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    standby.execute("ALTER SYSTEM SET max_standby_streaming_delay = 0");
    standby.execute("SELECT pg_reload_conf()");
    scope(config(&primary, &[&standby.url()])).run(|| {
        write("CREATE TABLE t AS SELECT 1 AS n");
        let position = DatabaseService::write_position().unwrap();
        let options = ReadOptions {
            after: Some(position),
            patience: MAX_WAIT,
        };
        let mut ports = Vec::new();
        let read: Result<i64, DbError> = DatabaseService::read_with(&options, |connection| {
            ports.push(port(connection)?);
            let before = number(connection, "SELECT n FROM t")?;
            if ports.len() == 1 {
                write("TRUNCATE t");
                write("INSERT INTO t VALUES (2)");
                wait_until(|| number(connection, "SELECT n FROM t").is_err());
            }
            number(connection, "SELECT n FROM t").map(|after| before + after)
        });
        assert_eq!(read.unwrap(), 4);
        assert_eq!(ports, [standby.port(), primary.port()]);
    });
}

#[test]
fn fake_database_does_not_support_reads() {
    let fake = DatabaseService::fake(|_, _| Ok(Vec::new()));
    let read: Result<(), DbError> = Scope::new()
        .provide(fake)
        .run(|| DatabaseService::read(|_| Ok(())));
    assert!(matches!(read, Err(DbError::Fake { .. })), "{read:?}");
}
