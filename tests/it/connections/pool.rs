//! The connection pool: size, overflow connections, maximum lifetime, timeouts and counters.

use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, PoolStatus, params};
use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use tests::TestDatabase;

on_both_backends!(
    overflow_connections_open_on_demand_and_close_on_return,
    full_pool_returns_pool_timeout_and_recovers,
    counters_are_exact_with_many_threads,
    connections_past_their_maximum_lifetime_are_never_checked_out,
    shutdown_closes_all_connections,
);

fn status() -> PoolStatus {
    DatabaseService::get_pool_status().unwrap()
}

fn counts(status: PoolStatus) -> [u32; 4] {
    [
        status.pool_size,
        status.checked_in,
        status.checked_out,
        status.overflow,
    ]
}

fn overflow_connections_open_on_demand_and_close_on_return(database: &TestDatabase) {
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (2, 2))
        .run(|| {
            assert_eq!(counts(status()), [2, 1, 0, 0]);
            let mut connections: Vec<_> = (0..4)
                .map(|_| DatabaseService::connection().unwrap())
                .collect();
            assert_eq!(counts(status()), [2, 0, 4, 2]);
            assert_eq!(
                (status().active_connections, status().total_connections),
                (4, 5),
                "including the connection of the first ping"
            );
            let expected = [[2, 1, 3, 2], [2, 2, 2, 2], [2, 2, 1, 1], [2, 2, 0, 0]];
            for expected in expected {
                connections.pop();
                assert_eq!(counts(status()), expected);
            }
            assert_eq!(
                status().invalid,
                0,
                "closing an overflow connection does not count as invalid"
            );
        });
}

fn full_pool_returns_pool_timeout_and_recovers(database: &TestDatabase) {
    let small_pool = |config: &mut DatabaseConfig| {
        (config.pool_size, config.max_overflow, config.pool_timeout) =
            (1, 0, Duration::from_millis(50));
    };
    database.scope_with(small_pool).run(|| {
        let held = DatabaseService::connection().unwrap();
        let start = Instant::now();
        let error = DatabaseService::execute_query("SELECT 1", params! {}).unwrap_err();
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert!(
            matches!(
                error,
                DbError::PoolTimeout {
                    open: 1,
                    maximum: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("raise DB_POOL_SIZE or DB_POOL_TIMEOUT"),
            "{error}"
        );
        assert_eq!(
            (status().failed_queries, status().active_connections),
            (1, 1),
            "only the held connection is active"
        );
        drop(held);
        assert!(DatabaseService::execute_query("SELECT 1", params! {}).is_ok());
    });
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let held = DatabaseService::connection().unwrap();
            let scope = ServiceContext::current();
            let (started, has_started) = mpsc::channel();
            let waiter = thread::spawn(move || {
                started.send(()).unwrap();
                scope.sync_scope(|| {
                    DatabaseService::execute_query("SELECT 1", params! {}).map(|rows| rows.len())
                })
            });
            has_started.recv().unwrap();
            drop(held);
            assert_eq!(waiter.join().unwrap().unwrap(), 1);
        });
}

fn counters_are_exact_with_many_threads(database: &TestDatabase) {
    const THREADS: u64 = 16;
    const ROUNDS: u64 = 20;
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (3, 2))
        .run(|| {
            DatabaseService::execute_query("CREATE TABLE t (n INTEGER)", params! {}).unwrap();
            let before = status();
            let (scope, barrier) = (&ServiceContext::current(), &Barrier::new(THREADS as usize));
            thread::scope(|threads| {
                for thread in 0..THREADS {
                    threads.spawn(move || {
                        barrier.wait();
                        scope.sync_scope(|| {
                            for round in 0..ROUNDS {
                                let number = params! { "n" => thread * ROUNDS + round };
                                DatabaseService::execute_many(
                                    "INSERT INTO t VALUES (:n)",
                                    &[number],
                                )
                                .unwrap();
                                DatabaseService::execute_query("SELECT 1", params! {}).unwrap();
                                DatabaseService::execute_query("SELECT * FROM nowhere", params! {})
                                    .unwrap_err();
                                DatabaseService::transaction(|_| Err::<(), _>(DbError::NoRow))
                                    .unwrap_err();
                            }
                        });
                    });
                }
            });
            let after = status();
            let calls = THREADS * ROUNDS;
            assert_eq!(
                after.successful_queries - before.successful_queries,
                2 * calls
            );
            assert_eq!(after.failed_queries - before.failed_queries, calls);
            assert_eq!(
                after.transactions_committed - before.transactions_committed,
                calls
            );
            assert_eq!(
                after.transactions_rolled_back - before.transactions_rolled_back,
                calls
            );
            assert_eq!(
                after.total_connections - before.total_connections,
                4 * calls
            );
            assert_eq!((after.active_connections, after.checked_out), (0, 0));
            // The pool may have opened one more for a caller that then got a returned connection. Checkouts close it.
            for _ in 0..2 {
                drop(DatabaseService::connection().unwrap());
            }
            assert!(
                status().checked_in <= 3 && status().overflow == 0,
                "{:?}",
                status()
            );
        });
}

fn connections_past_their_maximum_lifetime_are_never_checked_out(database: &TestDatabase) {
    let short_lived = |config: &mut DatabaseConfig| {
        (config.pool_size, config.max_overflow) = (1, 0);
        config.pool_recycle = Some(Duration::from_nanos(1));
    };
    // Each connection is already too old when it is checked out.
    let recycled = database.scope_with(|config| {
        short_lived(config);
        config.pool_timeout = Duration::from_millis(300);
    });
    assert!(recycled.run(DatabaseService::get_pool_status).is_err());
    database
        .scope_with(|config| config.pool_recycle = None)
        .run(|| assert_eq!(counts(status()), [5, 1, 0, 0]));
}

fn shutdown_closes_all_connections(database: &TestDatabase) {
    let short_drain = |config: &mut DatabaseConfig| config.drain_timeout = Duration::from_millis(1);
    let (service, held) = database.scope_with(short_drain).run(|| {
        (
            DatabaseService::instance().unwrap(),
            DatabaseService::connection().unwrap(),
        )
    });
    drop(held);
    assert!(
        format!("{service:?}").contains("checked_in: 0, checked_out: 0"),
        "{service:?}"
    );
}

#[test]
fn invalid_pool_settings_are_rejected() {
    for change in [
        (|config| config.pool_size = 0) as fn(&mut DatabaseConfig),
        |config| config.pool_size = u32::MAX,
        |config| config.max_overflow = 101,
        |config| config.pool_timeout = Duration::ZERO,
        |config| config.pool_recycle = Some(Duration::ZERO),
    ] {
        let error = TestDatabase::sqlite()
            .scope_with(change)
            .run(DatabaseService::get_pool_status)
            .unwrap_err();
        assert!(error.to_string().contains(" must be "), "{error}");
    }
    let longest_timeout = TestDatabase::sqlite()
        .scope_with(|config| config.pool_timeout = Duration::MAX)
        .run(DatabaseService::get_pool_status);
    assert!(longest_timeout.is_ok());
}

#[test]
fn connect_failure_is_reported_immediately_without_the_password() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("postgresql://ada:hunter2@{closed}/shop?password=hunter2");
    let scope = || {
        Scope::new().provide(ConfigService::new(DatabaseConfig::new(
            url.parse().unwrap(),
        )))
    };
    let start = Instant::now();
    let error = scope()
        .run(|| DatabaseService::execute_query("SELECT 1", params! {}))
        .unwrap_err();
    assert!(
        start.elapsed() < DatabaseConfig::new(url.parse().unwrap()).pool_timeout,
        "the call does not wait for the pool timeout"
    );
    let texts = format!("{error} {error:?} {:?}", scope());
    assert!(texts.contains("failed to initialize DatabaseService: could not connect to postgresql://ada:***@127.0.0.1"), "{texts}");
    assert!(
        texts.contains("Connection refused") && !texts.contains("hunter2"),
        "{texts}"
    );
}

/// If several connections change the journal mode of a new file at the same time, SQLite refuses all but one of them
/// without waiting for the busy timeout.
#[test]
fn new_sqlite_file_can_be_opened_by_many_pools_at_once() {
    const POOLS: usize = 8;
    for _ in 0..40 {
        let database = &TestDatabase::sqlite();
        let barrier = &Barrier::new(POOLS);
        let first_use = || {
            let scope = database.scope();
            barrier.wait();
            scope
                .run(DatabaseService::get_pool_status)
                .map(|status| status.checked_in)
        };
        thread::scope(|threads| {
            let running: Vec<_> = (0..POOLS).map(|_| threads.spawn(first_use)).collect();
            for thread in running {
                assert_eq!(thread.join().unwrap().unwrap(), 1);
            }
        });
    }
}

#[test]
fn in_memory_database_is_shared_by_all_connections_of_a_pool() {
    let config = || ConfigService::new(DatabaseConfig::new("sqlite://".parse().unwrap()));
    Scope::new().provide(config()).run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INTEGER)", params! {}).unwrap();
        let mut connections: Vec<_> = (0..8)
            .map(|_| DatabaseService::connection().unwrap())
            .collect();
        for connection in &mut connections {
            connection
                .execute_query("INSERT INTO t VALUES (1)", params! {})
                .unwrap();
        }
        drop(connections);
        let rows =
            DatabaseService::execute_query("SELECT count(*) AS n FROM t", params! {}).unwrap();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), 8);
        Scope::new().provide(config()).run(|| {
            assert!(
                DatabaseService::get_table_info("t").is_err(),
                "another service has its own in-memory database"
            )
        });
    });
}

#[test]
fn minimum_of_idle_connections_is_maintained() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    // The pool may hold one more, opened for a caller that then got a returned connection.
    let until_idle = |at_least| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while status().checked_in < at_least {
            assert!(Instant::now() < deadline, "{:?}", status());
            thread::yield_now();
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
