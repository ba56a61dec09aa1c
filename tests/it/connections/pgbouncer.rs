//! Connections through PgBouncer. In transaction mode, PgBouncer gives each transaction, and each statement outside a
//! transaction, another server session.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Integer};
use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use tests::{SHOP_MIGRATIONS, TestPgBouncer, TestServer};

/// Starts a server with PgBouncer in this pool mode.
fn servers(mode: &str) -> Option<(TestServer, TestPgBouncer)> {
    let server = TestServer::start()?;
    let pgbouncer =
        TestPgBouncer::start(&server, &format!("pool_mode = {mode}\nmin_pool_size = 4"))?;
    Some((server, pgbouncer))
}

/// Returns settings for PgBouncer without prepared statements, which it supports only since version 1.21.
fn config(pgbouncer: &TestPgBouncer) -> DatabaseConfig {
    let mut config = DatabaseConfig::new(pgbouncer.url().parse().unwrap());
    config.pool_timeout = Duration::from_secs(10);
    config.statement_cache_size = 0;
    config
}

fn scope(config: DatabaseConfig) -> Scope {
    Scope::new().provide(ConfigService::new(config))
}

/// Returns the column `shown` of the first row.
fn text(sql: &str) -> String {
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    rows[0].get("shown").unwrap()
}

/// Makes PgBouncer open several sessions, and checks that consecutive statements use different ones.
fn open_several_sessions() {
    let barrier = Barrier::new(4);
    let scope = ServiceContext::current();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (scope, barrier) = (scope.clone(), &barrier);
            move || {
                scope.sync_scope(|| {
                    let done: Result<(), DbError> = DatabaseService::transaction(|connection| {
                        connection.execute_query("SELECT 1", params! {})?;
                        barrier.wait();
                        Ok(())
                    });
                    done.unwrap();
                });
            }
        })
        .collect();
    thread::scope(|scope| {
        for work in threads {
            scope.spawn(work);
        }
    });
    let session = || text("SELECT pg_backend_pid()::text AS shown");
    let sessions = [(); 2].map(|()| session());
    assert_ne!(
        sessions[0], sessions[1],
        "PgBouncer uses its sessions in round-robin order"
    );
}

fn assert_all_kinds_of_statements_work() {
    DatabaseService::execute_query(
        "CREATE TABLE t (n int PRIMARY KEY, day date, id uuid, words text[])",
        params! {},
    )
    .unwrap();
    let row = |n: i64| {
        params! {
            "n" => n,
            "day" => "2024-02-29",
            "id" => "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            "words" => "{a,b}",
        }
    };
    let insert = "INSERT INTO t VALUES (:n, :day, :id, :words)";
    for n in 0..12 {
        DatabaseService::execute_query(insert, row(n)).unwrap();
        let again = DatabaseService::execute_query(insert, row(n));
        assert!(
            matches!(again, Err(DbError::UniqueViolation { .. })),
            "{again:?}"
        );
        // Each other connection looks up the parameter types itself.
        let connections = [(); 3].map(|()| DatabaseService::connection().unwrap());
        for mut connection in connections {
            let sql = "SELECT n FROM t WHERE day = :day AND n = :n";
            let params = params! { "day" => "2024-02-29", "n" => n };
            let rows = connection.execute_query(sql, params).unwrap();
            assert_eq!(rows[0].get::<i64>("n").unwrap(), n);
        }
    }
    for _ in 0..8 {
        let mut connection = DatabaseService::connection().unwrap();
        let db_service::Connection::Postgres(inner) = &mut *connection else {
            panic!("the connection is to PostgreSQL");
        };
        let typed = sql::<BigInt>("SELECT count(*) FROM t WHERE n < ").bind::<Integer, _>(12);
        assert_eq!(typed.get_result::<i64>(inner), Ok(12));
    }
    let rows: Vec<_> = (100..1100).map(row).collect();
    assert_eq!(DatabaseService::execute_many(insert, &rows).unwrap(), 1000);
    let update = "UPDATE t SET day = :day WHERE n = :n";
    let rows: Vec<_> = (0..12)
        .map(|n| params! { "n" => n, "day" => "2024-03-01" })
        .collect();
    assert_eq!(DatabaseService::execute_many(update, &rows).unwrap(), 12);
    let rolled_back: Result<(), DbError> = DatabaseService::transaction(|connection| {
        connection.execute_query(
            "DELETE FROM t WHERE day > :day",
            params! { "day" => "2024-01-01" },
        )?;
        let inner = connection.transaction(|connection| {
            connection
                .execute_query("SELECT :n::int / 0 FROM t", params! { "n" => 1 })
                .map(drop)
        });
        assert!(inner.is_err());
        connection.execute_query("SELECT 1", params! {})?;
        Err(DbError::NoRow)
    });
    assert!(
        matches!(rolled_back, Err(DbError::NoRow)),
        "{rolled_back:?}"
    );
    assert_eq!(text("SELECT count(*)::text AS shown FROM t"), "1012");
    DatabaseService::vacuum_analyze(Some("t")).unwrap();
    assert_eq!(
        DatabaseService::get_table_info("t").unwrap().row_count,
        1012
    );
    assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
}

#[test]
fn statements_work_in_transaction_mode_and_leave_no_prepared_statements() {
    let Some((_server, pgbouncer)) = servers("transaction") else {
        return;
    };
    scope(config(&pgbouncer)).run(|| {
        open_several_sessions();
        assert_all_kinds_of_statements_work();
        for _ in 0..8 {
            let sql = "SELECT count(*)::text AS shown FROM pg_prepared_statements";
            assert_eq!(text(sql), "0");
        }
    });
}

#[test]
fn statements_settings_and_migrations_work_in_session_mode() {
    let Some((_server, pgbouncer)) = servers("session") else {
        return;
    };
    let mut config = config(&pgbouncer);
    config.statement_cache_size = 512;
    config.max_overflow = 0;
    config.pool_size = 3;
    config.postgres.statement_timeout = Some(Duration::from_secs(61));
    scope(config).run(|| {
        assert_all_kinds_of_statements_work();
        assert_eq!(
            text("SELECT current_setting('statement_timeout') AS shown"),
            "61s"
        );
        let applied = DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap();
        assert_eq!(applied.len(), 3);
    });
}

#[test]
fn timeouts_apply_in_transaction_mode_without_affecting_other_clients() {
    let Some((_server, pgbouncer)) = servers("transaction") else {
        return;
    };
    let mut limited = config(&pgbouncer);
    limited.postgres.statement_timeout = Some(Duration::from_secs(61));
    limited.postgres.lock_timeout = Some(Duration::from_secs(62));
    limited.postgres.idle_in_transaction_timeout = Some(Duration::from_secs(63));
    let sql = "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), \
               current_setting('idle_in_transaction_session_timeout')) AS shown";
    let limited = scope(limited);
    let others = scope(config(&pgbouncer));
    others.run(|| {
        open_several_sessions();
        limited.run(|| {
            for _ in 0..8 {
                assert_eq!(text(sql), "61s 62s 63s");
                let shown: Result<String, DbError> = DatabaseService::transaction(|connection| {
                    connection.execute_query(sql, params! {})?[0].get("shown")
                });
                assert_eq!(shown.unwrap(), "61s 62s 63s");
                let shown: Result<String, DbError> = DatabaseService::read(|connection| {
                    connection.execute_query(sql, params! {})?[0].get("shown")
                });
                assert_eq!(shown.unwrap(), "61s 62s 63s");
            }
            // A statement that cannot run in a transaction runs outside of one.
            DatabaseService::execute_query("VACUUM", params! {}).unwrap();
            let failed = DatabaseService::execute_query("SELECT 1 / :n::int", params! { "n" => 0 });
            assert!(matches!(failed, Err(DbError::Query(_))), "{failed:?}");
            assert_eq!(text("SELECT 'on' AS shown"), "on");
        });
        for _ in 0..8 {
            assert_eq!(text(sql), "0 0 0");
        }
    });
}

#[test]
fn concurrent_migrations_apply_once_in_transaction_mode_and_release_the_lock() {
    const POOLS: usize = 6;
    let Some((server, pgbouncer)) = servers("transaction") else {
        return;
    };
    let barrier = Barrier::new(POOLS);
    let mut counts: Vec<usize> = thread::scope(|threads| {
        let running: Vec<_> = (0..POOLS)
            .map(|_| {
                let (barrier, config) = (&barrier, config(&pgbouncer));
                threads.spawn(move || {
                    let scope = scope(config);
                    barrier.wait();
                    let run = || DatabaseService::run_migrations(&SHOP_MIGRATIONS);
                    scope.run(run).unwrap().len()
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 0, 0, 3]);
    let locks = "SELECT count(*) AS n FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(server.execute(locks)[0].get::<i64>("n").unwrap(), 0);
}

#[test]
fn rejected_startup_parameter_is_reported() {
    let Some((_server, pgbouncer)) = servers("transaction") else {
        return;
    };
    let mut config = config(&pgbouncer);
    let url = format!("{}?options=-c%20statement_timeout%3D5s", pgbouncer.url());
    config.url = url.parse().unwrap();
    let error = scope(config)
        .run(|| DatabaseService::connection().map(drop))
        .unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(
        text.contains("unsupported startup parameter: options"),
        "{text}"
    );
}

/// PgBouncer accepts a client and then lets it wait for a free server session.
#[test]
fn client_without_a_free_server_session_times_out() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let settings = "pool_mode = transaction\ndefault_pool_size = 1";
    let Some(pgbouncer) = TestPgBouncer::start(&server, settings) else {
        return;
    };
    scope(config(&pgbouncer)).run(|| {
        let mut busy = DatabaseService::connection().unwrap();
        busy.execute_query("BEGIN", params! {}).unwrap();
        let mut short_timeout = config(&pgbouncer);
        short_timeout.postgres.connect_timeout = Some(Duration::from_secs(2));
        let began = Instant::now();
        let error = scope(short_timeout)
            .run(|| DatabaseService::connection().map(drop))
            .unwrap_err();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        let text = error.to_string();
        assert!(
            text.ends_with("the server did not answer within 3s"),
            "{text}"
        );
    });
}
