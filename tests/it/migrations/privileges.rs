//! Starting without the right to create tables, on read-only servers, and with `DB_MIGRATE=check`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use db_service::{
    ConfigService, DatabaseConfig, DatabaseService, DbError, Migrate, MigrationError,
    MigrationState, params,
};
use singleton_core::testing::Scope;
use tests::{SHOP_MIGRATIONS, TestDatabase, TestServer};

on_both_backends!(checking_changes_nothing_and_lists_what_is_pending);

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn checking_changes_nothing_and_lists_what_is_pending(database: &TestDatabase) {
    let check = || database.scope_with(|config| config.migrate = Migrate::Check);
    check().run(|| {
        let error = DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::Pending { migrations, .. })
                if migrations.len() == 3 && migrations[0] == "2026-02-01-000001_items"),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("2026-02-01-000003_items_by_name; apply them"),
            "{error}"
        );
        assert_eq!(DatabaseService::list_tables().unwrap(), [""; 0]);
    });
    database
        .scope()
        .run(|| DatabaseService::run_migrations(&SHOP_MIGRATIONS))
        .unwrap();
    check().run(|| {
        assert_eq!(
            DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap(),
            [""; 0]
        )
    });
}

/// Returns the URL of a database for another user.
fn url_as(database: &TestDatabase, role: &str) -> String {
    let (scheme, rest) = database.url().split_once("://").unwrap();
    let host = rest.split_once('@').map_or(rest, |(_, host)| host);
    format!("{scheme}://{role}:secret@{host}")
}

#[test]
fn role_without_rights_starts_when_nothing_is_pending() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let number = database
        .url()
        .rsplit('_')
        .next()
        .unwrap()
        .split('?')
        .next()
        .unwrap();
    let role = format!("reader_{number}");
    database.scope().run(|| {
        DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap();
        execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"));
        execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        execute(&format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
        ));
        for setting in ["off", "on"] {
            execute(&format!(
                "ALTER ROLE {role} SET default_transaction_read_only = {setting}"
            ));
            let url = url_as(&database, &role).parse().unwrap();
            let scope = database.scope_with(|config| config.url = url);
            scope.run(|| {
                let states = DatabaseService::migration_status(&SHOP_MIGRATIONS).unwrap();
                assert!(
                    states
                        .iter()
                        .all(|migration| migration.state == MigrationState::Applied)
                );
                assert_eq!(
                    DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap(),
                    [""; 0]
                );
            });
        }
        // Of migrations that diesel's tools applied, the checksums are missing, and cannot be recorded.
        execute("DELETE FROM db_service_migrations");
        let url = url_as(&database, &role).parse().unwrap();
        let scope = database.scope_with(|config| config.url = url);
        scope.run(|| {
            assert_eq!(
                DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap(),
                [""; 0]
            )
        });
        execute(&format!("DROP OWNED BY {role}"));
        execute(&format!("DROP ROLE {role}"));
    });
}

#[test]
fn sqlite_takes_no_lock_and_writes_nothing_when_nothing_is_pending() {
    let database = TestDatabase::sqlite();
    let path = database
        .url()
        .strip_prefix("sqlite:///")
        .unwrap()
        .to_owned();
    let lock = format!("{path}-migrations.lock");
    database.scope().run(|| {
        DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap();
        std::fs::remove_file(&lock).unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .execute_query("PRAGMA query_only = ON", params! {})
            .unwrap();
        let mut writer = DatabaseService::connection().unwrap();
        writer.execute_query("BEGIN IMMEDIATE", params! {}).unwrap();
        assert_eq!(
            DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap(),
            [""; 0]
        );
        assert!(!std::path::Path::new(&lock).exists());
    });
}

#[test]
fn standby_can_be_started_on() {
    let Some(primary) = TestServer::start() else {
        return;
    };
    let standby = primary.standby();
    let scope = |url: String| {
        let config = DatabaseConfig::new(url.parse().unwrap());
        Scope::new().provide(ConfigService::new(config))
    };
    scope(primary.url()).run(|| DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap());
    standby.wait_for_catchup(&primary);
    scope(standby.url()).run(|| {
        assert_eq!(
            DatabaseService::run_migrations(&SHOP_MIGRATIONS).unwrap(),
            [""; 0]
        );
        let states = DatabaseService::migration_status(&SHOP_MIGRATIONS).unwrap();
        assert!(states.iter().all(|migration| migration.applied));
    });
}

/// A process of another user, because root may write any file.
#[test]
fn read_only_file_can_be_started_on() {
    let directory = tempfile::tempdir().unwrap();
    let (program, file) = (
        directory.path().join("migrate"),
        directory.path().join("shop.db"),
    );
    fs::copy(env!("CARGO_BIN_EXE_migrate"), &program).unwrap();
    let url = format!("sqlite:///{}", file.display());
    let start = |user: Option<u32>| {
        let mut command = Command::new(&program);
        command
            .arg(&url)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        if let Some(user) = user {
            command.uid(user);
        }
        let output = command.output().unwrap();
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    };
    assert_eq!(start(None), "ready\n3\n");
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.sqlite.write_ahead = false;
    Scope::new()
        .provide(ConfigService::new(config))
        .run(|| execute("PRAGMA journal_mode = DELETE"));
    fs::remove_file(directory.path().join("shop.db-migrations.lock")).unwrap();
    let allow = |path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    allow(file.as_path(), 0o444);
    allow(directory.path(), 0o555);
    let is_root = fs::metadata(directory.path()).unwrap().uid() == 0;
    let output = start(is_root.then_some(65_534));
    allow(directory.path(), 0o755);
    assert_eq!(output, "ready\n0\n");
}
