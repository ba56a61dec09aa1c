//! Starting without the right to create tables, on read-only servers, and with `DB_MIGRATE=check`.

use db_service::{DatabaseService, DbError, Migrate, MigrationError, MigrationState, params};
use tests::{SHOP_MIGRATIONS, TestDatabase};

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
