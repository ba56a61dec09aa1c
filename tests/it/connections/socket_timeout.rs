//! What `DB_SOCKET_TIMEOUT` is not for: no answer is awaited.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use db_service::{Connection, DatabaseService, DbError, PooledConnection, params, values};
use singleton_core::testing::Scope;
use tests::TestDatabase;

/// The time that rows are used for is the caller's, not the server's.
#[test]
fn a_result_read_slowly_is_not_given_up() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(limit));
    scope.run(|| {
        let mut rows = 0;
        let sql = "SELECT n FROM generate_series(1, 20) AS n";
        DatabaseService::for_each_row(sql, params! {}, |_| {
            rows += 1;
            if rows % 10 == 0 {
                thread::sleep(2 * limit);
            }
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(rows, 20);
    });
}

/// So is the time in which rows are made.
#[test]
fn rows_that_are_made_slowly_are_not_given_up() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(limit));
    scope.run(|| {
        DatabaseService::execute_query("CREATE TABLE t (n INT, x TEXT)", params! {}).unwrap();
        let text = "x".repeat(50_000);
        let rows = (0..8).map(|n| {
            thread::sleep(limit / 2);
            values![n, text.as_str()]
        });
        let inserted = DatabaseService::bulk_insert("t", &["n", "x"], rows);
        assert_eq!(inserted.unwrap(), 8);
    });
}

/// Whatever came of a statement, once it has ended nothing is waited for.
#[test]
fn an_idle_connection_is_not_given_up() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let limit = Duration::from_millis(400);
    let scope = database.scope_with(|config| config.postgres.socket_timeout = Some(limit));
    type Work = fn(&mut Connection) -> Result<(), DbError>;
    let works: [(&str, Work); 5] = [
        ("rows that are not wanted", |connection| {
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
        ("rows that cannot be stored", |connection| {
            connection
                .bulk_insert("t", &["n"], [values!["\0"]])
                .map(drop)
        }),
        ("a panic among the rows", |connection| {
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
        for (name, work) in works {
            let outcome = work(&mut connection);
            thread::sleep(2 * limit);
            let next = connection.execute_query("SELECT 1", params! {});
            assert!(next.is_ok(), "{name}: {outcome:?}, and then {next:?}");
        }
    });
}

thread_local! {
    /// What a thread gives back when it ends, when other variables of its own have ended already.
    static HELD: Cell<Option<PooledConnection>> = const { Cell::new(None) };
}

#[test]
fn a_thread_that_is_ending_gives_its_connection_back() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope =
        database.scope_with(|config| config.postgres.socket_timeout = Some(Duration::from_secs(9)));
    scope.run(|| {
        let work = || {
            // First of all variables, so that it is the last to end.
            HELD.set(None);
            let mut connection = DatabaseService::connection()?;
            connection.execute_query("BEGIN", params! {})?;
            HELD.set(Some(connection));
            Ok::<_, DbError>(())
        };
        let ended = Scope::current().spawn(work).unwrap().join();
        ended.unwrap().unwrap();
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.checked_out, status.invalid), (0, 0));
    });
}
