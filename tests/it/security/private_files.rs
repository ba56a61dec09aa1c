//! File permissions: the lock file beside a SQLite database, and databases that only their owner can access.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use db_service::{DatabaseService, DbError, MigrationError, Migrations, params};
use diesel_migrations::embed_migrations;
use tests::TestDatabase;

static SHOP: Migrations = Migrations::new().sqlite(embed_migrations!("migrations/shop/sqlite"));

fn file(database: &TestDatabase) -> &str {
    database.url().strip_prefix("sqlite:///").unwrap()
}

/// Creates a database. Returns it with the path of its lock file, which does not exist yet.
fn database() -> (TestDatabase, PathBuf) {
    let database = TestDatabase::sqlite();
    database
        .scope()
        .run(|| DatabaseService::execute_query("CREATE TABLE t (n INTEGER)", params! {}))
        .unwrap();
    let lock = format!("{}-migrations.lock", file(&database));
    (database, lock.into())
}

/// Runs the migrations in a separate thread. Panics if they take longer than 10 seconds.
#[track_caller]
fn migrate(database: &TestDatabase) -> Result<usize, DbError> {
    let (sender, receiver) = mpsc::channel();
    let scope = database.scope();
    std::thread::spawn(move || {
        let result = scope.run(|| DatabaseService::run_migrations(&SHOP));
        sender.send(result.map(|applied| applied.len()))
    });
    let result = receiver.recv_timeout(Duration::from_secs(10));
    result.expect("the migrations do not hang")
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn lock_file_must_be_a_regular_file() {
    type CreateFile = fn(&Path);
    let cases: [(&str, CreateFile); 6] = [
        ("a named pipe", |lock| {
            assert!(Command::new("mkfifo").arg(lock).status().unwrap().success());
        }),
        ("a symbolic link", |lock| {
            symlink(lock.with_extension("elsewhere"), lock).unwrap();
        }),
        ("a symbolic link", |lock| {
            let other = lock.with_extension("other");
            fs::write(&other, "").unwrap();
            symlink(other, lock).unwrap();
        }),
        ("a folder", |lock| fs::create_dir(lock).unwrap()),
        ("a socket", |lock| drop(UnixListener::bind(lock).unwrap())),
        ("hard links", |lock| {
            let other = lock.with_extension("other");
            fs::write(&other, "").unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
            fs::hard_link(other, lock).unwrap();
        }),
    ];
    for (kind, create_file) in cases {
        let (database, lock) = database();
        create_file(&lock);
        let error = migrate(&database).expect_err(kind);
        assert!(
            matches!(&error, DbError::Migration(MigrationError::LockFile { path, .. }) if *path == lock),
            "{kind}: {error:?}"
        );
        let text = error.to_string();
        assert!(text.contains(kind), "{kind}: {text}");
        assert!(!lock.with_extension("elsewhere").exists());
        let other = lock.with_extension("other");
        assert!(kind != "hard links" || mode(other) == 0o644);
    }
}

#[test]
fn lock_file_is_accessible_only_by_its_owner() {
    let (created, lock) = database();
    assert_eq!(migrate(&created).unwrap(), 3);
    assert_eq!(mode(&lock), 0o600);

    let (upgraded, lock) = database();
    File::create(&lock).unwrap();
    fs::set_permissions(&lock, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(migrate(&upgraded).unwrap(), 3);
    assert_eq!(mode(&lock), 0o600);
}

#[test]
fn private_database_is_accessible_only_by_its_owner() {
    for (is_private, write_ahead) in [(true, true), (true, false), (false, true)] {
        let database = TestDatabase::sqlite();
        let scope = database.scope_with(|config| {
            config.sqlite.private = is_private;
            config.sqlite.write_ahead = write_ahead;
        });
        let companions = if write_ahead {
            &["-wal", "-shm"][..]
        } else {
            &["-journal"]
        };
        let owner_only = scope.run(|| {
            DatabaseService::transaction(|connection| {
                connection.execute_query("CREATE TABLE t (n INTEGER)", params! {})?;
                let companions = companions
                    .iter()
                    .map(|companion| mode(format!("{}{companion}", file(&database))) == 0o600);
                Ok::<Vec<bool>, DbError>(companions.collect())
            })
        });
        let mut owner_only = owner_only.unwrap();
        owner_only.push(mode(file(&database)) == 0o600);
        assert!(
            owner_only
                .iter()
                .all(|is_owner_only| *is_owner_only == is_private),
            "{owner_only:?}"
        );
    }
}
