//! `DB_SOCKET_TIMEOUT` limits only the wait for an answer. It does not run while the caller works or the connection is
//! idle.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use db_service::{Connection, DatabaseService, DbError, PooledConnection, params, values};
use singleton_core::ServiceContext;
use tests::TestDatabase;

/// The timeout does not run while the caller uses a row.
#[test]
fn slow_row_consumer_does_not_time_out() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        let mut rows = 0;
        let sql = "SELECT n FROM generate_series(1, 20) AS n";
        DatabaseService::for_each_row(sql, params! {}, |_| {
            rows += 1;
            if rows % 10 == 0 {
                thread::sleep(2 * timeout);
            }
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(rows, 20);
    });
}

/// The timeout does not run while the caller produces a row.
#[test]
fn slow_row_producer_does_not_time_out() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    scope.run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INT, x TEXT)", params! {}).unwrap();
        let text = "x".repeat(50_000);
        let rows = (0..8).map(|n| {
            thread::sleep(timeout / 2);
            values![n, text.as_str()]
        });
        let inserted = DatabaseService::bulk_insert("t", &["n", "x"], rows);
        assert_eq!(inserted.unwrap(), 8);
    });
}

/// After a statement has ended, no deadline runs, whatever its result was.
#[test]
fn idle_connection_does_not_time_out_whatever_the_last_result() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let timeout = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(timeout));
    type Work = fn(&mut Connection) -> Result<(), DbError>;
    let cases: [(&str, Work); 5] = [
        ("rows that are not read", |connection| {
            let sql = "INSERT INTO t SELECT generate_series(1, 100) RETURNING n";
            connection.for_each_row(sql, params! {}, |_| Ok(ControlFlow::Break(())))
        }),
        ("a NUL in a statement", |connection| {
            connection
                .execute_query("SELECT '\0'", params! {})
                .map(drop)
        }),
        ("a NUL in a parameter", |connection| {
            connection
                .execute_query("SELECT :x", params! { "x" => "\0" })
                .map(drop)
        }),
        ("a NUL in a bulk insert", |connection| {
            connection
                .bulk_insert("t", &["n"], [values!["\0"]])
                .map(drop)
        }),
        ("a panic in the row callback", |connection| {
            let work = AssertUnwindSafe(|| {
                let sql = "INSERT INTO t SELECT generate_series(1, 100) RETURNING n";
                connection.for_each_row::<DbError, _>(sql, params! {}, |_| panic::panic_any(()))
            });
            let _ = panic::catch_unwind(work);
            Ok(())
        }),
    ];
    scope.run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INT)", params! {}).unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        for (name, work) in cases {
            let outcome = work(&mut connection);
            thread::sleep(2 * timeout);
            let next = connection.execute_query("SELECT 1", params! {});
            assert!(next.is_ok(), "{name}: {outcome:?}, and then {next:?}");
        }
    });
}

thread_local! {
    /// A connection that returns to the pool at thread exit, after the other thread-locals are destroyed.
    static HELD: Cell<Option<PooledConnection>> = const { Cell::new(None) };
}

#[test]
fn connection_in_a_thread_local_returns_to_the_pool_at_thread_exit() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope =
        database.scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_secs(9)));
    scope.run(|| {
        let work = || {
            // The thread-local that is initialized first is destroyed last.
            HELD.set(None);
            let mut connection = DatabaseService::connection()?;
            connection.execute_query("BEGIN", params! {})?;
            HELD.set(Some(connection));
            Ok::<_, DbError>(())
        };
        let ended = thread::spawn(ServiceContext::current().wrap(work)).join();
        ended.unwrap().unwrap();
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.checked_out, status.invalid), (0, 0));
    });
}
