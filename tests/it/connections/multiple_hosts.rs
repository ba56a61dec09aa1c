//! URLs with several hosts and `target_session_attrs=read-write`.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use tests::TestServer;

/// Returns a scope for the writable database on one of several local ports.
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

/// Returns the port of the server that the pool connects to.
fn port() -> u16 {
    let sql = "SELECT current_setting('port')::int AS port";
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    u16::try_from(rows[0].get::<i64>("port").unwrap()).unwrap()
}

#[test]
fn writable_host_is_found_before_and_after_failover() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let closed_port = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    // Nothing listens on the first port. The second host is a standby.
    scope(&[closed_port, standby.port(), primary.port()]).run(|| {
        let insert = || DatabaseService::execute_query("INSERT INTO t VALUES (1)", params! {});
        DatabaseService::execute_query("CREATE TABLE t (n int)", params! {}).unwrap();
        insert().unwrap();
        assert_eq!(port(), primary.port());
        standby.wait_for_catchup(&primary);
        primary.crash();
        let lost = insert().unwrap_err();
        assert!(matches!(lost, DbError::ConnectionLost(_)), "{lost}");
        // A call before the promotion of the standby waits for the promotion.
        let waiting = thread::spawn(ServiceContext::current().wrap(move || insert().map(drop)));
        standby.promote();
        waiting.join().unwrap().unwrap();
        assert_eq!(port(), standby.port());
    });
}

#[test]
fn read_only_host_is_replaced_after_one_failed_write() {
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
        // The connections to the old server stay open, as when a DNS name or a proxy gradually switches to another server.
        let deadline = Instant::now() + Duration::from_secs(60);
        let refused = loop {
            assert!(
                Instant::now() < deadline,
                "the server did not reload its configuration"
            );
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
fn each_unresponsive_host_costs_one_connect_timeout() {
    let Some(server) = TestServer::start() else {
        return;
    };
    // These hosts accept connections and never answer.
    let unresponsive = [0; 2].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let [first, second] = unresponsive
        .each_ref()
        .map(|listener| listener.local_addr().unwrap().port());
    let mut config = config(&[first, second, server.port()]);
    let timeout = Duration::from_secs(2);
    config.postgres.connect_timeout = Some(timeout);
    let scope = Scope::new().provide(ConfigService::new(config));
    let began = Instant::now();
    scope.run(|| assert_eq!(port(), server.port()));
    let took = began.elapsed();
    assert!((2 * timeout..4 * timeout).contains(&took), "{took:?}");
}
