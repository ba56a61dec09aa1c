//! Outages: a server that is gone for a while, its lines in the log, and the errors of callers.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use singleton_core::testing::Scope;
use singleton_core::{ServiceContext, registry};
use tests::TestServer;

use crate::reporting::logs;

const CLIENTS: usize = 12;

/// More than a call takes that does not wait, and less than the timeouts.
const LONG: Duration = Duration::from_secs(10);

/// Stops the server while clients call, until each of them has waited for `patience` once. Returns their errors.
fn outage(server: &TestServer, patience: Duration) -> Vec<DbError> {
    let mut config = DatabaseConfig::new(server.url().parse().unwrap());
    config.pool_timeout = patience;
    Scope::new().provide(ConfigService::new(config)).run(|| {
        let select = || DatabaseService::execute_query("SELECT 1", params! {});
        select().unwrap();
        server.stop();
        let scope = &ServiceContext::current();
        let errors = thread::scope(|threads| {
            let client = || loop {
                match scope.sync_scope(select) {
                    Err(error @ DbError::PoolTimeout { .. }) => return error,
                    Err(DbError::ConnectionLost(_)) => {}
                    other => panic!("{other:?}"),
                }
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| threads.spawn(client)).collect();
            let ended = clients.into_iter().map(|client| client.join().unwrap());
            ended.collect()
        });
        server.start_again();
        while select().is_err() {}
        errors
    })
}

#[test]
fn outage_is_logged_once_and_its_end_once() {
    logs::capture();
    let Some(server) = TestServer::start() else {
        return;
    };
    let errors = outage(&server, Duration::from_millis(1_500));
    let lines = logs::lines_with(&format!(":{}/", server.port()));
    // One line of the start, one of the outage, and one of its end.
    let [_, outage, end] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(
        outage.starts_with("could not connect to")
            && outage.ends_with("; further failures are summarized every 10s"),
        "{lines:?}"
    );
    assert!(
        end.starts_with("connected to")
            && end.contains(" again after ")
            && end.ends_with("attempts"),
        "{lines:?}"
    );

    // Each caller gets the cause and no advice that does not help.
    for error in errors {
        let text = error.to_string();
        assert!(
            text.starts_with("timed out after 1.5s because no usable connection could be opened (0 of at most 15 open"),
            "{text}"
        );
        assert!(
            !text.contains("DB_POOL_SIZE") && text.ends_with("Connection refused"),
            "{text}"
        );
        let DbError::PoolTimeout {
            open,
            idle,
            in_use,
            connecting,
            waiting,
            longest,
            ..
        } = error
        else {
            panic!("{text}");
        };
        assert_eq!(
            (open, idle, in_use, waiting, longest),
            (0, 0, 0, 0, None),
            "{text}"
        );
        assert!(
            (connecting as usize) < CLIENTS,
            "this caller is not counted: {text}"
        );
    }
}

/// Shuts the service down while clients wait for a connection that cannot be opened. `outage` begins after the start,
/// and `is_noticed` returns whether the pool has tried to connect since.
#[track_caller]
fn assert_shutdown_ends_waits(
    server: &TestServer,
    outage: impl FnOnce(),
    is_noticed: impl Fn() -> bool,
) {
    let mut config = DatabaseConfig::new(server.url().parse().unwrap());
    (config.pool_timeout, config.drain_timeout) = (10 * LONG, 10 * LONG);
    // Half of the clients wait for the others.
    (config.pool_size, config.max_overflow) = (2, 4);
    Scope::new().provide(ConfigService::new(config)).run(|| {
        let held = DatabaseService::connection().unwrap();
        outage();
        let (scope, begun) = (&ServiceContext::current(), &Barrier::new(CLIENTS + 1));
        thread::scope(|threads| {
            let client = || {
                begun.wait();
                scope.sync_scope(|| DatabaseService::connection().map(drop))
            };
            let clients: Vec<_> = (0..CLIENTS).map(|_| threads.spawn(client)).collect();
            begun.wait();
            while !is_noticed() {
                thread::yield_now();
            }
            let started_at = Instant::now();
            let shutdown = || scope.sync_scope(|| registry().shutdown_all().is_clean());
            let shutdown = threads.spawn(shutdown);
            for client in clients {
                let ended = client.join().unwrap();
                let is_closed = matches!(ended, Err(DbError::Closed | DbError::Service(_)));
                assert!(is_closed, "{ended:?}");
            }
            let took = started_at.elapsed();
            assert!(took < LONG, "{took:?}");
            drop(held);
            assert!(shutdown.join().unwrap());
        });
    });
}

#[test]
fn shutdown_ends_waits_for_a_server_that_is_gone() {
    logs::capture();
    let Some(server) = TestServer::start() else {
        return;
    };
    let refused = format!(":{}/", server.port());
    let is_noticed = || {
        !logs::lines_with(&refused)
            .iter()
            .all(|line| line.starts_with("connected"))
    };
    assert_shutdown_ends_waits(&server, || server.stop(), is_noticed);
}

#[test]
fn shutdown_ends_waits_for_a_server_that_does_not_answer() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let mut frozen = None;
    assert_shutdown_ends_waits(&server, || frozen = Some(server.freeze()), || true);
}
