//! Reading from standbys: in turn, not too far behind, after one's own writes, and elsewhere when they fail.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, ReadOptions,
    ReplicaStatistics, WritePosition, params,
};
use singleton_core::registry;
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestServer};

on_both_backends!(without_replicas_a_read_is_a_transaction_that_cannot_write);

const SOON: Duration = Duration::from_secs(60);

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
fn eventually(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < deadline, "it did not come to that");
    }
}

fn without_replicas_a_read_is_a_transaction_that_cannot_write(database: &TestDatabase) {
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
fn they_take_turns_unless_they_lag() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standbys = [primary.standby(), primary.standby()];
    let ports = standbys.each_ref().map(TestServer::port);
    let urls = standbys.each_ref().map(TestServer::url);
    let mut config = config(&primary, &urls.each_ref().map(String::as_str));
    let limit = Duration::from_secs(1);
    config.replicas.max_lag = Some(limit);
    scope(config).run(|| {
        let all_fit = || (0..2).all(|index| replica(index).is_fit);
        write("CREATE TABLE t (n int)");
        eventually(all_fit);
        let turns: Vec<u16> = (0..4)
            .map(|_| DatabaseService::read(port).unwrap())
            .collect();
        assert!(
            turns[0] != turns[1] && turns[..2] == turns[2..],
            "{turns:?}"
        );
        assert!(
            turns.iter().all(|port| ports.contains(port)),
            "{turns:?} of {ports:?}"
        );
        let refused: Result<_, DbError> = DatabaseService::read(|connection| {
            connection.execute_query("CREATE TABLE other (n int)", params! {})
        });
        assert!(matches!(refused, Err(DbError::ReadOnly(_))), "{refused:?}");
        // While the primary has nothing to write, they do not fall behind.
        let began = Instant::now();
        while began.elapsed() < limit + limit / 2 {
            assert!(ports.contains(&DatabaseService::read(port).unwrap()));
        }
        standbys[0].execute("SELECT pg_wal_replay_pause()");
        write("INSERT INTO t VALUES (1)");
        eventually(|| !replica(0).is_fit);
        assert!(replica(0).lag.is_some_and(|lag| lag > limit));
        for _ in 0..4 {
            assert_eq!(DatabaseService::read(port).unwrap(), ports[1]);
        }
        standbys[0].execute("SELECT pg_wal_replay_resume()");
        eventually(all_fit);
        let statistics = DatabaseService::statistics().unwrap();
        assert!(statistics.replicas.iter().all(|replica| replica.reads > 1));
        let shown = statistics.to_string();
        assert!(
            shown.contains("  fit, lag 0.0ns: postgresql://postgres@127.0.0.1:"),
            "{shown}"
        );
        assert_eq!(statistics.to_json()["replicas"][1]["is_fit"], true);
        // Nothing of the service is left on a standby when it has ended.
        assert!(registry().shutdown_all().is_clean());
        let sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE application_name = 'shop'";
        for standby in &standbys {
            eventually(|| standby.execute(sql)[0].get::<i64>("n").unwrap() == 0);
        }
    });
}

#[test]
fn what_was_written_is_waited_for_or_read_from_the_primary() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    scope(config(&primary, &[&standby.url()])).run(|| {
        write("CREATE TABLE t (n int)");
        eventually(|| replica(0).is_fit);
        let read_after = |position: WritePosition, patience| {
            let options = ReadOptions {
                after: Some(position),
                patience,
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
            // What is committed is not even written out yet when this returns.
            let insert: Result<(), DbError> = DatabaseService::transaction(|connection| {
                connection.execute_query("SET LOCAL synchronous_commit = off", params! {})?;
                connection.execute_query("INSERT INTO t VALUES (1)", params! {})?;
                Ok(())
            });
            insert.unwrap();
            let position = DatabaseService::write_position().unwrap();
            assert_eq!(read_after(position, SOON).1, count);
        }
        standby.execute("SELECT pg_wal_replay_pause()");
        write("INSERT INTO t VALUES (1)");
        let position = DatabaseService::write_position().unwrap();
        assert_eq!(
            read_after(position, Duration::from_millis(50)),
            (primary.port(), 11)
        );
        let waiting = Scope::current()
            .spawn(move || read_after(position, SOON))
            .unwrap();
        eventually(|| replica(0).pool.checked_out > 0);
        standby.execute("SELECT pg_wal_replay_resume()");
        assert_eq!(waiting.join().unwrap(), (standby.port(), 11));
    });
}

#[test]
fn those_that_fail_are_set_aside_and_tried_again() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("postgresql://{}/postgres", silent.local_addr().unwrap());
    let dead = "postgresql://127.0.0.1:1/postgres";
    // The primary itself is no replica, however little it lags behind itself.
    let urls = [dead, &silent, &standby.url(), &primary.url()];
    let quickly = |work: &dyn Fn()| {
        let began = Instant::now();
        work();
        // Less than connecting to one that is silent takes.
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
        quickly(&|| write("CREATE TABLE t (n int)"));
        quickly(&|| reads_come_from(&standby));
        assert!(
            replica(0)
                .last_failure
                .is_some_and(|failure| failure.contains("refused"))
        );
        standby.crash();
        quickly(&|| reads_come_from(&primary));
        standby.start_again();
        eventually(|| replica(2).is_fit);
        quickly(&|| reads_come_from(&standby));
        // It still takes connections, and says nothing any more.
        let frozen = standby.freeze();
        eventually(|| !replica(2).is_fit);
        quickly(&|| reads_come_from(&primary));
        drop(frozen);
        eventually(|| replica(2).is_fit);
        quickly(&|| reads_come_from(&standby));
        assert_eq!(DatabaseService::statistics().unwrap().reads_on_primary, 40);
    });
}

#[test]
fn one_that_takes_no_more_connections_is_soon_left_for_the_primary() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    // One is looked at, and one is in the pool.
    primary.execute("CREATE ROLE shop LOGIN CONNECTION LIMIT 2");
    let url = standby.url().replace("postgres@", "shop@");
    let number_of_shops = "SELECT count(*) AS n FROM pg_roles WHERE rolname = 'shop'";
    eventually(|| standby.execute(number_of_shops)[0].get::<i64>("n").unwrap() == 1);
    scope(config(&primary, &[&url])).run(|| {
        eventually(|| replica(0).is_fit);
        let began = Instant::now();
        let ports = DatabaseService::read(|connection| {
            let other = DatabaseService::read(port)?;
            Ok::<_, DbError>((port(connection)?, other))
        });
        assert_eq!(ports.unwrap(), (standby.port(), primary.port()));
        // Less than a caller waits for a connection to the primary.
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
        eventually(|| replica(0).is_fit);
    });
}

#[test]
fn one_that_has_lost_its_primary_lags_although_nothing_is_left_to_replay() {
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
        eventually(|| replica(0).is_fit);
        primary.crash();
        eventually(|| !replica(0).is_fit);
        assert!(
            replica(0)
                .lag
                .is_some_and(|lag| lag > Duration::from_secs(1))
        );
        standby.promote();
        let reads = || DatabaseService::statistics().unwrap().reads_on_primary;
        eventually(|| DatabaseService::read(port).is_ok_and(|port| port == standby.port()));
        // It is the primary now, and counts as that.
        assert!(reads() > 0 && replica(0).reads == 0);
    });
}

#[test]
fn a_read_in_the_way_of_what_is_replayed_runs_again_on_the_primary() {
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
            patience: SOON,
        };
        let mut ports = Vec::new();
        let read: Result<i64, DbError> = DatabaseService::read_with(&options, |connection| {
            ports.push(port(connection)?);
            let before = number(connection, "SELECT n FROM t")?;
            if ports.len() == 1 {
                write("TRUNCATE t");
                write("INSERT INTO t VALUES (2)");
                eventually(|| number(connection, "SELECT n FROM t").is_err());
            }
            number(connection, "SELECT n FROM t").map(|after| before + after)
        });
        assert_eq!(read.unwrap(), 4);
        assert_eq!(ports, [standby.port(), primary.port()]);
    });
}

#[test]
fn a_fake_database_has_no_reads() {
    let fake = DatabaseService::fake(|_, _| Ok(Vec::new()));
    let read: Result<(), DbError> = Scope::new()
        .provide(fake)
        .run(|| DatabaseService::read(|_| Ok(())));
    assert!(matches!(read, Err(DbError::Fake { .. })), "{read:?}");
}
