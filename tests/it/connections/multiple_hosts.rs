//! Several hosts in one URL, of which one can be written to.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use singleton_core::testing::Scope;
use tests::TestServer;

/// A scope whose database is on one of several ports of this machine.
fn scope(ports: &[u16]) -> Scope {
    Scope::new().provide(ConfigService::new(config(ports)))
}

fn config(ports: &[u16]) -> DatabaseConfig {
    let hosts: Vec<_> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    let url = format!(
        "postgresql://postgres@{}/postgres?target_session_attrs=read-write",
        hosts.join(",")
    );
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.pool_timeout = Duration::from_secs(10);
    config
}

fn port() -> u16 {
    let sql = "SELECT current_setting('port')::int AS port";
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    u16::try_from(rows[0].get::<i64>("port").unwrap()).unwrap()
}

#[test]
fn the_one_that_can_be_written_to_is_found_also_after_a_failover() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    // The first host is dead, the second a standby.
    scope(&[dead, standby.port(), primary.port()]).run(|| {
        let insert = || DatabaseService::execute_query("INSERT INTO t VALUES (1)", params! {});
        DatabaseService::execute_query("CREATE TABLE t (n int)", params! {}).unwrap();
        insert().unwrap();
        assert_eq!(port(), primary.port());
        standby.catch_up(&primary);
        primary.crash();
        let lost = insert().unwrap_err();
        assert!(matches!(lost, DbError::ConnectionLost(_)), "{lost}");
        // Who comes before there is another waits for it.
        let waiting = Scope::current().spawn(move || insert().map(drop)).unwrap();
        standby.promote();
        waiting.join().unwrap().unwrap();
        assert_eq!(port(), standby.port());
    });
}

#[test]
fn one_that_can_be_written_to_no_more_is_left() {
    let Some((first, second)) = TestServer::start().zip(TestServer::start()) else {
        return;
    };
    for server in [&first, &second] {
        server.execute("CREATE TABLE t (n int)");
    }
    scope(&[first.port(), second.port()]).run(|| {
        let insert = || DatabaseService::execute_query("INSERT INTO t VALUES (1)", params! {});
        insert().unwrap();
        assert_eq!(port(), first.port());
        first.execute("ALTER SYSTEM SET default_transaction_read_only = on");
        first.execute("SELECT pg_reload_conf()");
        // Its connections stay open, as they do where a name or a proxy leads elsewhere by and by.
        let deadline = Instant::now() + Duration::from_secs(60);
        let refused = loop {
            assert!(Instant::now() < deadline, "it was not reloaded");
            if let Err(error) = insert() {
                break error;
            }
        };
        assert!(matches!(refused, DbError::ReadOnly(_)), "{refused}");
        insert().unwrap();
        assert_eq!(port(), second.port());
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

#[test]
fn each_host_that_does_not_answer_takes_the_time_limit_once() {
    let Some(server) = TestServer::start() else {
        return;
    };
    // They take connections, and never say anything.
    let silent = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = silent
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    let mut config = config(&[first, second, server.port()]);
    let limit = Duration::from_secs(2);
    config.postgres.connect_timeout = Some(limit);
    let scope = Scope::new().provide(ConfigService::new(config));
    let began = Instant::now();
    scope.run(|| assert_eq!(port(), server.port()));
    let took = began.elapsed();
    assert!((2 * limit..4 * limit).contains(&took), "{took:?}");
}
