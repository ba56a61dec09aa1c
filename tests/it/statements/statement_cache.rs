//! Statements that stay prepared are bounded by their size as well as by their number.

use db_service::{Connection, DatabaseService, DbError, params};
use diesel::RunQueryDsl;
use tests::TestDatabase;

/// How many bytes of text a server keeps for a connection, and the longest of them.
fn kept(connection: &mut Connection) -> (i64, i64) {
    let sql = "SELECT coalesce(sum(length(statement)), 0)::bigint AS total, \
               coalesce(max(length(statement)), 0)::bigint AS longest FROM pg_prepared_statements";
    let row = &connection.execute_query(sql, params! {}).unwrap()[0];
    (row.get("total").unwrap(), row.get("longest").unwrap())
}

#[test]
fn large_statements_do_not_fill_the_memory_of_a_server() {
    const MIB: i64 = 1024 * 1024;
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        // One borrower that gives its connection back only in the end.
        let mut connection = DatabaseService::connection().unwrap();
        let mut most = 0;
        for n in 0..400 {
            let size = if n % 20 == 0 { 500_000 } else { 30_000 };
            let sql = format!("SELECT '{}' || :text AS n, {n}", "x".repeat(size));
            let rows = connection
                .execute_query(&sql, params! { "text" => "y" })
                .unwrap();
            assert_eq!(rows[0].get::<String>("n").unwrap().len(), size + 1);
            if n % 40 == 0 {
                most = most.max(kept(&mut connection).0);
            }
        }
        let (total, longest) = kept(&mut connection);
        most = most.max(total);
        assert!(most < 5 * MIB, "{most} bytes stay prepared");
        assert!(most > MIB, "{most} bytes: those that fit stay");
        assert!(longest <= 32 * 1024, "{longest} bytes in one statement");
        // What stays is used again.
        let before = kept(&mut connection);
        for _ in 0..3 {
            connection.execute_query("SELECT 1", params! {}).unwrap();
        }
        assert_eq!(kept(&mut connection).0 - before.0, "SELECT 1".len() as i64);
    });
}

fn prepared_here(connection: &mut db_service::Connection) -> i64 {
    let sql = "SELECT count(*) AS count FROM pg_prepared_statements";
    connection.execute_query(sql, params! {}).unwrap()[0]
        .get("count")
        .unwrap()
}

#[test]
fn prepared_statements_are_bounded_or_none() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for (size, most) in [(8, 10), (0, 0)] {
        let scope = database.scope_with(|config| {
            (config.pool_size, config.max_overflow) = (1, 0);
            config.statement_cache_size = size;
        });
        scope.run(|| {
            for number in 0..50 {
                let sql = format!("SELECT {number} + :n AS sum");
                let rows = DatabaseService::execute_query(&sql, params! { "n" => 1 }).unwrap();
                assert_eq!(rows[0].get::<i64>("sum").unwrap(), number + 1);
                let mut connection = DatabaseService::connection().unwrap();
                let prepared = prepared_here(&mut connection);
                assert!(prepared <= most, "{prepared} with {size}");
            }
            assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
        });
    }
}

#[test]
fn the_statement_cache_is_bounded_where_it_cannot_be_emptied_at_once() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database.scope_with(|config| config.statement_cache_size = 4);
    scope.run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        for round in 0..30 {
            let _: Result<(), DbError> = connection.transaction(|connection| {
                for n in 0..(if round == 0 { 5 } else { 4 }) {
                    connection.execute_query(&format!("SELECT {n} + {round}"), params! {})?;
                }
                let _ = diesel::sql_query("SELECT 1 / 0").execute(connection);
                connection.execute_query("SELECT 2", params! {}).map(drop)
            });
        }
        let sql = "SELECT count(*) AS count FROM pg_prepared_statements";
        let rows = connection.execute_query(sql, params! {}).unwrap();
        let count: i64 = rows[0].get("count").unwrap();
        assert!(count <= 10, "{count} statements");
    });
}
