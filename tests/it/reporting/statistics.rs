//! Statistics of statements: what is counted and measured, and how it is shown.

use std::thread;
use std::time::Duration;

use db_service::{DatabaseService, DatabaseStatistics, DbError, StatementStatistics, params};
use diesel::prelude::*;
use tests::TestDatabase;
use user_repo::UserRepository;

use super::logs;

on_both_backends!(
    calls_errors_rows_and_durations_are_recorded_per_statement,
    calls_from_many_threads_are_all_counted,
    parameters_do_not_appear_in_statistics,
    internal_statements_are_not_recorded,
    batch_sent_in_parts_counts_as_one_statement,
    rows_of_typed_statements_are_counted,
    comments_make_no_entries,
);

/// Returns the statistics of the first statement that contains this text.
fn statistics_of(statement: &str) -> StatementStatistics {
    let statements = DatabaseService::statistics().unwrap().statements;
    let found = statements
        .iter()
        .find(|entry| entry.statement.contains(statement));
    found
        .unwrap_or_else(|| panic!("{statement} in {statements:?}"))
        .clone()
}

fn calls_errors_rows_and_durations_are_recorded_per_statement(database: &TestDatabase) {
    database.scope().run(|| {
        const INSERT: &str = "INSERT INTO pets VALUES (:id)";
        const SELECT: &str = "SELECT id FROM pets WHERE id < :id";
        DatabaseService::execute_query("CREATE TABLE pets (id INTEGER UNIQUE)", params! {})
            .unwrap();
        let rows: Vec<_> = (0..10).map(|id| params! { "id" => id }).collect();
        DatabaseService::execute_many(INSERT, &rows).unwrap();
        DatabaseService::execute_query(INSERT, params! { "id" => 1 }).unwrap_err();
        for id in [3, 5] {
            DatabaseService::execute_query(SELECT, params! { "id" => id }).unwrap();
        }
        DatabaseService::transaction(|connection| {
            connection.execute_query(SELECT, params! { "id" => 2 })?;
            Ok::<_, DbError>(())
        })
        .unwrap();

        let insert = statistics_of(INSERT);
        assert_eq!((insert.calls, insert.errors, insert.rows), (2, 1, 10));
        let select = statistics_of(SELECT);
        assert_eq!((select.calls, select.errors, select.rows), (3, 0, 10));
        assert!(
            select.mean > Duration::ZERO && select.mean <= select.max && select.max <= select.total
        );
        assert!(
            select.p95 <= select.p99 && select.p99 <= select.max,
            "{select:?}"
        );

        let statistics = DatabaseService::statistics().unwrap();
        assert_eq!(statistics.statements.len(), 3, "{statistics}");
        assert!(
            statistics
                .statements
                .is_sorted_by(|left, right| left.total >= right.total)
        );
        assert_eq!(statistics.pool.failed_queries, 1);
        assert_shown_as_table_and_json(&statistics);
    });
}

#[track_caller]
fn assert_shown_as_table_and_json(statistics: &DatabaseStatistics) {
    let table = statistics.to_string();
    let row = table
        .lines()
        .find(|line| line.ends_with("  SELECT id FROM pets WHERE id < :id"))
        .unwrap();
    let cells: Vec<_> = row.split_whitespace().take(3).collect();
    assert_eq!(cells, ["3", "0", "10"], "{table}");
    assert!(
        table
            .lines()
            .any(|line| line.split_whitespace().eq(["failed_queries", "1"])),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&statistics.to_json().to_string()).unwrap();
    let statements = json["statements"].as_array().unwrap();
    let select = statements
        .iter()
        .find(|entry| entry["statement"].as_str().unwrap().starts_with("SELECT"))
        .unwrap();
    assert_eq!((&select["calls"], &select["rows"]), (&3.into(), &10.into()));
    assert!(select["mean_us"].as_f64().unwrap() <= select["max_us"].as_f64().unwrap());
    assert_eq!(json["pool"]["failed_queries"], 1);
}

fn calls_from_many_threads_are_all_counted(database: &TestDatabase) {
    let scope = database.scope();
    scope.run(|| {
        let handle = singleton_core::ServiceContext::current();
        thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(|| {
                    handle.sync_scope(|| {
                        for _ in 0..50 {
                            DatabaseService::execute_query("SELECT 1 AS n", params! {}).unwrap();
                        }
                    });
                });
            }
        });
        let one = statistics_of("SELECT 1 AS n");
        assert_eq!((one.calls, one.rows), (400, 400));
    });
}

fn parameters_do_not_appear_in_statistics(database: &TestDatabase) {
    diesel::table! { pets (id) { id -> Integer, name -> Text, } }
    database.scope().run(|| {
        DatabaseService::execute_query(
            "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT)",
            params! {},
        )
        .unwrap();
        DatabaseService::execute_query(
            "INSERT INTO pets VALUES (1, :name)",
            params! { "name" => "hush4711" },
        )
        .unwrap();
        DatabaseService::execute_query(
            "SELECT id + :name FROM pets",
            params! { "name" => "hush4711" },
        )
        .ok();
        let mut connection = DatabaseService::connection().unwrap();
        let found: i64 = pets::table
            .filter(pets::name.eq("hush4711"))
            .count()
            .get_result(&mut *connection)
            .unwrap();
        assert_eq!(found, 1);
        drop(connection);
        let count = statistics_of("COUNT(*)");
        assert_eq!((count.calls, count.errors), (1, 0));
        let statistics = DatabaseService::statistics().unwrap();
        let shown = format!("{statistics}{statistics:?}{}", statistics.to_json());
        assert!(
            !shown.contains("hush4711") && !shown.contains("binds"),
            "{shown}"
        );
    });
}

fn internal_statements_are_not_recorded(database: &TestDatabase) {
    database.scope().run(|| {
        UserRepository::count_users(true).unwrap();
        let before = DatabaseService::statistics().unwrap().statements;
        assert!(
            before
                .iter()
                .all(|entry| !entry.statement.contains("migrations")),
            "{before:?}"
        );
        DatabaseService::get_table_info("users").unwrap();
        DatabaseService::list_tables().unwrap();
        DatabaseService::vacuum_analyze(Some("users")).unwrap();
        assert_eq!(DatabaseService::statistics().unwrap().statements, before);
    });
}

fn batch_sent_in_parts_counts_as_one_statement(database: &TestDatabase) {
    logs::capture();
    let table = format!("batch_{}", database.url().starts_with("sqlite"));
    database
        .scope_with(|config| config.slow_query_threshold = Some(Duration::from_nanos(1)))
        .run(|| {
            DatabaseService::execute_query(
                &format!("CREATE TABLE {table} (n INTEGER)"),
                params! {},
            )
            .unwrap();
            let insert = format!("INSERT INTO {table} (n) VALUES (:n)");
            // A backend that sends many rows per statement sends parts of 512, 512, 256 rows and so on.
            let rows: Vec<_> = (0..1_500).map(|n| params! { "n" => n }).collect();
            assert_eq!(
                DatabaseService::execute_many(&insert, &rows).unwrap(),
                1_500
            );
            let one = statistics_of(&insert);
            assert_eq!((one.calls, one.rows), (1, 1_500));
            let lines = logs::lines_with(&format!("INSERT INTO {table}"));
            let slow: Vec<_> = lines
                .iter()
                .filter(|line| line.contains("a statement took"))
                .collect();
            assert_eq!(slow.len(), 1, "{slow:?}");
            let bulk = (0..1_500).map(|n| db_service::values![n]);
            DatabaseService::bulk_insert(&table, &["n"], bulk).unwrap();
            let lines = logs::lines_with("(\"n\")");
            let slow = lines.iter().filter(|line| line.contains(&table));
            assert_eq!(slow.count(), 1, "{lines:?}");
            let statements = DatabaseService::statistics().unwrap().statements;
            let of_table = statements
                .iter()
                .filter(|entry| entry.statement.contains(&table));
            assert_eq!(of_table.count(), 3, "{statements:?}");
        });
}

fn rows_of_typed_statements_are_counted(database: &TestDatabase) {
    diesel::table! { pets (id) { id -> Integer, name -> Text, } }
    database.scope().run(|| {
        let create = "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT)";
        DatabaseService::execute_query(create, params! {}).unwrap();
        DatabaseService::with_connection(|connection| {
            let rows: Vec<_> = (1..=3)
                .map(|id| (pets::id.eq(id), pets::name.eq("Rex")))
                .collect();
            diesel::insert_into(pets::table)
                .values(&rows)
                .execute(connection)?;
            diesel::update(pets::table.filter(pets::id.gt(1)))
                .set(pets::name.eq("Tom"))
                .execute(connection)?;
            pets::table.select(pets::name).load::<String>(connection)?;
            pets::table.select(pets::id).first::<i32>(connection)?;
            diesel::delete(pets::table)
                .returning(pets::id)
                .get_results::<i32>(connection)
        })
        .unwrap();
        let counted = |text: &str| {
            let entry = statistics_of(text);
            (entry.calls, entry.errors, entry.rows)
        };
        for (text, rows) in [("INSERT INTO", 3), ("UPDATE", 2), ("DELETE FROM", 3)] {
            assert_eq!(counted(text), (1, 0, rows), "{text}");
        }
        let quote = statistics_of("DELETE FROM")
            .statement
            .replace("DELETE FROM ", "");
        let quote = &quote[..1];
        let select = |column| format!("SELECT {quote}pets{quote}.{quote}{column}{quote}");
        for (column, rows) in [("name", 3), ("id", 1)] {
            assert_eq!(counted(&select(column)), (1, 0, rows), "{column}");
        }
    });
}

fn comments_make_no_entries(database: &TestDatabase) {
    database.scope().run(|| {
        for number in 0..3 {
            for text in [
                format!("/*traceparent='00-{number}'*/ SELECT :n AS n"),
                format!("SELECT :n AS n /*route='a{number}',traceparent='00-{number}'*/;"),
                format!("  SELECT :n AS n -- {number}"),
            ] {
                DatabaseService::execute_query(&text, params! { "n" => 1 }).unwrap();
                // The same for a text that fails before it is sent, and for one of diesel.
                DatabaseService::execute_query(&text, params! {}).unwrap_err();
                let typed = format!("SELECT 1 /* {number} */");
                let typed = diesel::sql_query(typed);
                DatabaseService::with_connection(|connection| typed.execute(connection)).unwrap();
            }
        }
        let statistics = DatabaseService::statistics().unwrap();
        let mut entries: Vec<_> = statistics
            .statements
            .iter()
            .map(|entry| (entry.statement.as_str(), entry.calls))
            .collect();
        entries.sort_unstable();
        assert_eq!(entries, [("SELECT 1", 9), ("SELECT :n AS n", 18)]);
    });
}

#[test]
fn repeated_stale_plan_is_no_failure() {
    diesel::table! { t (n) { n -> Integer, } }
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let execute = |sql: &str| DatabaseService::execute(sql, params! {}).unwrap();
        execute("CREATE TABLE t (n int)");
        let mut connection = DatabaseService::connection().unwrap();
        let select = "SELECT * FROM t";
        let typed = || t::table.select(t::n);
        connection.execute_query(select, params! {}).unwrap();
        typed().execute(&mut connection).unwrap();
        for (kind, retries) in [("bigint", 1), ("int", 2)] {
            execute(&format!("ALTER TABLE t ALTER COLUMN n TYPE {kind}"));
            match retries {
                1 => drop(connection.execute_query(select, params! {}).unwrap()),
                _ => drop(typed().execute(&mut connection).unwrap()),
            }
            let statistics = DatabaseService::statistics().unwrap();
            let pool = statistics.pool;
            assert_eq!(
                (pool.failed_queries, pool.retries),
                (0, retries),
                "{statistics}"
            );
            assert!(
                statistics.statements.iter().all(|entry| entry.errors == 0),
                "{statistics}"
            );
            // Both statements are prepared again.
            connection.execute_query(select, params! {}).unwrap();
            typed().execute(&mut connection).unwrap();
        }
        connection
            .execute_query("SELECT 1 / 0", params! {})
            .unwrap_err();
        diesel::sql_query("SELECT 2 / 0")
            .execute(&mut connection)
            .unwrap_err();
        assert_eq!(
            DatabaseService::get_pool_status().unwrap().failed_queries,
            2
        );
    });
}
