//! What becomes of a connection between two borrowers.

use db_service::{DatabaseService, params};
use diesel::connection::SimpleConnection as _;
use tests::TestDatabase;

on_both_backends!(what_is_done_to_a_session_ends_with_its_loan);

fn what_is_done_to_a_session_ends_with_its_loan(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            let execute = |sql: &str| DatabaseService::execute_query(sql, params! {});
            let marks = if is_postgres {
                [
                    ("SET statement_timeout = '4711s'", "SELECT current_setting('statement_timeout') = '0' AS clean"),
                    ("CREATE TEMP TABLE mine (n int)", "SELECT to_regclass('mine') IS NULL AS clean"),
                    ("SELECT pg_advisory_lock(7)", "SELECT count(*) = 0 AS clean FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"),
                    ("LISTEN news", "SELECT count(*) = 0 AS clean FROM pg_listening_channels()"),
                ]
            } else {
                [
                    ("PRAGMA foreign_keys = OFF", "SELECT foreign_keys AS clean FROM pragma_foreign_keys"),
                    ("CREATE TEMP TABLE mine (n)", "SELECT count(*) = 0 AS clean FROM sqlite_temp_master"),
                    ("PRAGMA query_only = ON", "SELECT query_only = 0 AS clean FROM pragma_query_only"),
                    ("ATTACH ':memory:' AS other", "SELECT count(*) = 0 AS clean FROM pragma_database_list WHERE name = 'other'"),
                ]
            };
            for (mark, check) in marks {
                execute(mark).unwrap();
                let rows = execute(check).unwrap();
                assert!(rows[0].get::<bool>("clean").unwrap(), "{mark}");
            }
            // Through diesel itself as well, whatever the text of a batch.
            let mut connection = DatabaseService::connection().unwrap();
            connection.batch_execute(&format!("SELECT 1; {}", marks[0].0)).unwrap();
            drop(connection);
            assert!(execute(marks[0].1).unwrap()[0].get::<bool>("clean").unwrap());
            assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0, "none of them was broken");
        });
}

#[test]
fn when_one_connection_is_lost_all_older_ones_are_renewed() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let process = |connection: &mut db_service::Connection| -> i64 {
            let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
            rows.unwrap()[0].get("pid").unwrap()
        };
        let mut old: Vec<_> = (0..3)
            .map(|_| DatabaseService::connection().unwrap())
            .collect();
        let processes: Vec<_> = old
            .iter_mut()
            .map(|connection| process(connection))
            .collect();
        let mut lost = old.pop().unwrap();
        let sql = "SELECT pg_terminate_backend(:pid::int, 10000)";
        old[0]
            .execute_query(sql, params! { "pid" => processes[2] })
            .unwrap();
        lost.execute_query("SELECT 1", params! {}).unwrap_err();
        // One that is idle when the loss is seen, and one that comes back afterwards.
        drop(old.pop());
        drop(lost);
        drop(old);
        let mut new: Vec<_> = (0..3)
            .map(|_| DatabaseService::connection().unwrap())
            .collect();
        for connection in &mut new {
            let process = process(connection);
            assert!(!processes.contains(&process), "{process} of {processes:?}");
        }
    });
}
