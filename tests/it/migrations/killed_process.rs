//! A process that is killed during a migration.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use db_service::{DatabaseService, params};
use tests::{QUICK_MIGRATIONS, TestDatabase};

on_both_backends!(killed_process_leaves_no_lock_and_no_partial_migration);

/// A child process that is killed on drop, also when the test fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn killed_process_leaves_no_lock_and_no_partial_migration(database: &TestDatabase) {
    let process = Command::new(env!("CARGO_BIN_EXE_migrate"))
        .args([database.url(), "endless"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = KillOnDrop(process);
    database.scope().run(|| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_second_migration_running(database.url().starts_with("postgres")) {
            assert!(
                Instant::now() < deadline,
                "the second migration does not start"
            );
            assert_eq!(process.0.try_wait().unwrap(), None, "the process has ended");
            thread::sleep(Duration::from_millis(10));
        }
        drop(process);
        assert_eq!(
            DatabaseService::run_migrations(&QUICK_MIGRATIONS).unwrap(),
            ["002"]
        );
        let second = DatabaseService::get_table_info("second").unwrap();
        assert_eq!(second.row_count, 1);
        assert_eq!(
            DatabaseService::run_migrations(&QUICK_MIGRATIONS).unwrap(),
            [""; 0]
        );
    });
}

/// Returns whether the second migration is running: the first is applied, and another process writes.
fn is_second_migration_running(is_postgres: bool) -> bool {
    if is_postgres {
        let sql = "SELECT 1 AS n FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'PgSleep' AND datname = current_database()";
        return !DatabaseService::execute_query(sql, params! {})
            .unwrap()
            .is_empty();
    }
    let mut connection = DatabaseService::connection().unwrap();
    let mut run = |sql: &str| connection.execute_query(sql, params! {});
    // Longer than any other statement of the process holds the write lock.
    run("PRAGMA busy_timeout = 500").unwrap();
    run("SELECT a FROM first").is_ok() && run("BEGIN IMMEDIATE").is_err()
}
