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
