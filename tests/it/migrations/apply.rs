//! Migrations, by one process or by many.

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
    they_are_applied_once_and_listed,
    many_at_once_apply_them_once,
    ten_processes_apply_them_once,
    others_are_waited_for_within_a_time_limit,
    a_failed_one_leaves_nothing_of_itself
);

const BROKEN: EmbeddedMigrations = embed_migrations!("migrations/broken");
static BROKEN_ON_BOTH: Migrations = Migrations::new()
    .sqlite(BROKEN)
    .postgres(embed_migrations!("migrations/broken"));

fn applied(source: &Migrations) -> Vec<bool> {
    let status: Vec<MigrationStatus> = DatabaseService::migration_status(source).unwrap();
    status.iter().map(|migration| migration.applied).collect()
}

fn they_are_applied_once_and_listed(database: &TestDatabase) {
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

/// A scope has a pool of its own, so to the database each is a process of its own.
fn many_at_once_apply_them_once(database: &TestDatabase) {
    const PROCESSES: usize = 8;
    let together = Barrier::new(PROCESSES);
    let counts: Vec<i64> = thread::scope(|threads| {
        let running: Vec<_> = (0..PROCESSES)
            .map(|number| {
                let together = &together;
                threads.spawn(move || {
                    let scope = database.scope();
                    together.wait();
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
    assert_eq!(counts.len(), PROCESSES);
    database
        .scope()
        .run(|| assert_eq!(UserRepository::count_users(true).unwrap(), PROCESSES as i64));
}

fn a_failed_one_leaves_nothing_of_itself(database: &TestDatabase) {
    database.scope().run(|| {
        let error = DatabaseService::run_migrations(&BROKEN_ON_BOTH).unwrap_err();
        assert!(
            matches!(error, DbError::Migration(_)) && error.to_string().contains("nowhere"),
            "{error}"
        );
        assert!(DatabaseService::get_table_info("half_done").is_err());
        assert!(DatabaseService::execute_query("SELECT 1", params! {}).is_ok());
        assert_eq!(DatabaseService::get_pool_status().unwrap().checked_out, 0);
        // The lock was given back: others can go on.
        database
            .scope()
            .run(|| assert!(DatabaseService::run_migrations(&MIGRATIONS).is_ok()));
    });
}

/// Those that wait must not hold up the one that makes an index concurrently.
fn ten_processes_apply_them_once(database: &TestDatabase) {
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

fn others_are_waited_for_within_a_time_limit(database: &TestDatabase) {
    const LIMIT: Duration = Duration::from_millis(50);
    static IMPATIENT: Migrations = Migrations::new()
        .lock_timeout(LIMIT)
        .sqlite(embed_migrations!("migrations/shop/sqlite"))
        .postgres(embed_migrations!("migrations/shop/postgres"));
    let refused = || {
        let error = database
            .scope()
            .run(|| DatabaseService::run_migrations(&IMPATIENT))
            .unwrap_err();
        assert!(
            matches!(error, DbError::Migration(MigrationError::LockTimeout { limit, .. }) if limit == LIMIT),
            "{error}"
        );
    };
    match database.url().strip_prefix("sqlite:///") {
        Some(path) => {
            database
                .scope()
                .run(|| DatabaseService::migration_status(&IMPATIENT))
                .unwrap();
            let file = std::fs::File::create(format!("{path}-migrations.lock")).unwrap();
            file.lock().unwrap();
            refused();
        }
        None => database.scope().run(|| {
            let mut other = DatabaseService::connection().unwrap();
            let lock = i64::from_be_bytes(*b"db-servi");
            other
                .execute_query("SELECT pg_advisory_lock(:lock)", params! { "lock" => lock })
                .unwrap();
            refused();
        }),
    }
    assert_eq!(
        database
            .scope()
            .run(|| DatabaseService::run_migrations(&IMPATIENT))
            .unwrap()
            .len(),
        3
    );
}
