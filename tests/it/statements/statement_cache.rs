//! The cache of prepared statements is bounded by the size of the statements and by their number.

use db_service::{Connection, DatabaseService, DbError, params};
use diesel::RunQueryDsl;
use tests::TestDatabase;

/// Returns the total and the largest length of the SQL that the server keeps prepared for a connection, in bytes.
fn prepared_bytes(connection: &mut Connection) -> (i64, i64) {
    let sql = "SELECT coalesce(sum(length(statement)), 0)::bigint AS total, \
               coalesce(max(length(statement)), 0)::bigint AS longest FROM pg_prepared_statements";
    let row = &connection.execute_query(sql, params! {}).unwrap()[0];
    (row.get("total").unwrap(), row.get("longest").unwrap())
}

#[test]
fn prepared_statements_are_bounded_by_their_size() {
    const MIB: i64 = 1024 * 1024;
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        // One caller holds the connection until the end.
        let mut connection = DatabaseService::connection().unwrap();
        let mut maximum = 0;
        for n in 0..400 {
            let size = if n % 20 == 0 { 500_000 } else { 30_000 };
            let sql = format!("SELECT '{}' || :text AS n, {n}", "x".repeat(size));
            let rows = connection
                .execute_query(&sql, params! { "text" => "y" })
                .unwrap();
            assert_eq!(rows[0].get::<String>("n").unwrap().len(), size + 1);
            if n % 40 == 0 {
                maximum = maximum.max(prepared_bytes(&mut connection).0);
            }
        }
        let (total, longest) = prepared_bytes(&mut connection);
        maximum = maximum.max(total);
        assert!(maximum < 5 * MIB, "{maximum} bytes stay prepared");
        assert!(
            maximum > MIB,
            "{maximum} bytes: statements that fit stay prepared"
        );
        assert!(longest <= 32 * 1024, "{longest} bytes in one statement");
        // A statement that stays prepared is reused.
        let before = prepared_bytes(&mut connection);
        for _ in 0..3 {
            connection.execute_query("SELECT 1", params! {}).unwrap();
        }
        assert_eq!(
            prepared_bytes(&mut connection).0 - before.0,
            "SELECT 1".len() as i64
        );
    });
}

/// Returns the number of statements that the server keeps prepared for a connection.
fn prepared_count(connection: &mut Connection) -> i64 {
    let sql = "SELECT count(*) AS count FROM pg_prepared_statements";
    connection.execute_query(sql, params! {}).unwrap()[0]
        .get("count")
        .unwrap()
}

#[test]
fn prepared_statements_are_bounded_by_number_or_disabled() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for (size, maximum) in [(8, 10), (0, 0)] {
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
                let prepared = prepared_count(&mut connection);
                assert!(prepared <= maximum, "{prepared} with {size}");
            }
            assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
        });
    }
}

#[test]
fn statement_cache_is_bounded_in_failed_transactions() {
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
        let count = prepared_count(&mut connection);
        assert!(count <= 10, "{count} statements");
    });
}
