//! Applying migrations, in one process or in many at once.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use db_service::{DatabaseService, DbError, MigrationError, MigrationStatus, Migrations, params};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use tests::TestDatabase;
use user_repo::{MIGRATIONS, UserRepository};

on_both_backends!(
    migrations_are_applied_once_and_listed,
    concurrent_pools_apply_migrations_once,
    ten_processes_apply_migrations_once,
    waiting_for_the_migration_lock_times_out,
    failed_migration_is_rolled_back_and_releases_the_lock
);

const BROKEN: EmbeddedMigrations = embed_migrations!("migrations/broken");
static BROKEN_ON_BOTH: Migrations = Migrations::new()
    .sqlite(BROKEN)
    .postgres(embed_migrations!("migrations/broken"));

fn applied(source: &Migrations) -> Vec<bool> {
    let status: Vec<MigrationStatus> = DatabaseService::migration_status(source).unwrap();
    status.iter().map(|migration| migration.applied).collect()
}

fn migrations_are_applied_once_and_listed(database: &TestDatabase) {
    database.scope().run(|| {
        assert_eq!(applied(&MIGRATIONS), [false]);
        assert_eq!(
            DatabaseService::run_migrations(&MIGRATIONS).unwrap(),
            ["20261123000000"]
        );
        assert_eq!(applied(&MIGRATIONS), [true]);
        assert_eq!(
            DatabaseService::run_migrations(&MIGRATIONS).unwrap(),
            [""; 0]
        );
        let error = DatabaseService::run_migrations(&Migrations::new()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("migration failed: there are no migrations for "),
            "{error}"
        );
    });
}

/// Each scope has its own pool, so to the database each thread is a separate process.
fn concurrent_pools_apply_migrations_once(database: &TestDatabase) {
    const POOLS: usize = 8;
    let barrier = Barrier::new(POOLS);
    let ids: Vec<i64> = thread::scope(|threads| {
        let running: Vec<_> = (0..POOLS)
            .map(|number| {
                let barrier = &barrier;
                threads.spawn(move || {
                    let scope = database.scope();
                    barrier.wait();
                    scope.run(|| {
                        UserRepository::create_user(
                            &format!("user{number}"),
                            &format!("{number}@x"),
                            "secret",
                        )
                        .unwrap()
                        .id
                    })
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(ids.len(), POOLS);
    database
        .scope()
        .run(|| assert_eq!(UserRepository::count_users(true).unwrap(), POOLS as i64));
}

fn failed_migration_is_rolled_back_and_releases_the_lock(database: &TestDatabase) {
    database.scope().run(|| {
        let error = DatabaseService::run_migrations(&BROKEN_ON_BOTH).unwrap_err();
        assert!(
            matches!(error, DbError::Migration(_)) && error.to_string().contains("nowhere"),
            "{error}"
        );
        assert!(DatabaseService::get_table_info("half_done").is_err());
        assert!(DatabaseService::execute_query("SELECT 1", params! {}).is_ok());
        assert_eq!(DatabaseService::get_pool_status().unwrap().checked_out, 0);
        // The migration lock is released, so other pools can apply migrations.
        database
            .scope()
            .run(|| assert!(DatabaseService::run_migrations(&MIGRATIONS).is_ok()));
    });
}

/// Processes that wait must not block the process that creates an index concurrently.
fn ten_processes_apply_migrations_once(database: &TestDatabase) {
    let mut processes: Vec<_> = (0..10)
        .map(|_| {
            Command::new(env!("CARGO_BIN_EXE_migrate"))
                .arg(database.url())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut outputs: Vec<_> = processes
        .iter_mut()
        .map(|process| BufReader::new(process.stdout.take().unwrap()).lines())
        .collect();
    for output in &mut outputs {
        assert_eq!(output.next().unwrap().unwrap(), "ready");
    }
    for process in &mut processes {
        process.stdin.take().unwrap().write_all(b"\n").unwrap();
    }
    let mut counts: Vec<_> = outputs
        .into_iter()
        .map(|mut output| output.next().and_then(Result::ok))
        .collect();
    for process in &mut processes {
        assert!(process.wait().unwrap().success());
    }
    counts.sort();
    assert_eq!(counts.pop().flatten().as_deref(), Some("3"));
    assert!(
        counts.iter().all(|count| count.as_deref() == Some("0")),
        "{counts:?}"
    );
    database.scope().run(|| {
        let items = DatabaseService::get_table_info("items").unwrap();
        assert_eq!(
            (
                items.row_count,
                items
                    .indexes
                    .iter()
                    .filter(|index| index.index_name.starts_with("items_by"))
                    .count()
            ),
            (2, 2)
        );
    });
}

fn waiting_for_the_migration_lock_times_out(database: &TestDatabase) {
    const TIMEOUT: Duration = Duration::from_millis(50);
    static SHORT_TIMEOUT: Migrations = Migrations::new()
        .lock_timeout(TIMEOUT)
        .sqlite(embed_migrations!("migrations/shop/sqlite"))
        .postgres(embed_migrations!("migrations/shop/postgres"));
    let assert_lock_timeout = || {
        let error = database
            .scope()
            .run(|| DatabaseService::run_migrations(&SHORT_TIMEOUT))
            .unwrap_err();
        assert!(
            matches!(error, DbError::Migration(MigrationError::LockTimeout { limit, .. }) if limit == TIMEOUT),
            "{error}"
        );
    };
    match database.url().strip_prefix("sqlite:///") {
        Some(path) => {
            database
                .scope()
                .run(|| DatabaseService::migration_status(&SHORT_TIMEOUT))
                .unwrap();
            let file = std::fs::File::create(format!("{path}-migrations.lock")).unwrap();
            file.lock().unwrap();
            assert_lock_timeout();
        }
        None => database.scope().run(|| {
            let mut other = DatabaseService::connection().unwrap();
            let lock = i64::from_be_bytes(*b"db-servi");
            other
                .execute_query("SELECT pg_advisory_lock(:lock)", params! { "lock" => lock })
                .unwrap();
            assert_lock_timeout();
        }),
    }
    assert_eq!(
        database
            .scope()
            .run(|| DatabaseService::run_migrations(&SHORT_TIMEOUT))
            .unwrap()
            .len(),
        3
    );
}
