//! Several sources of migrations in one database, and tables that a migration did not create.

use db_service::{DatabaseService, DbError, MigrationError, MigrationState, Migrations, params};
use tests::TestDatabase;
use user_repo::MIGRATIONS;

use super::{migration, outside, source};

on_both_backends!(
    named_sources_with_one_version_have_separate_histories,
    history_of_an_earlier_version_is_updated_without_loss,
    source_that_gets_a_name_keeps_its_history,
    unnamed_sources_with_one_version_are_reported,
    baselined_migration_is_not_reverted,
    table_that_existed_before_is_not_dropped,
);

fn run(source: &Migrations) -> Result<Vec<String>, DbError> {
    DatabaseService::run_migrations(source)
}

fn revert(source: &Migrations, count: usize) -> Result<Vec<String>, DbError> {
    DatabaseService::revert_migrations(source, count)
}

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn exists(table: &str) -> bool {
    DatabaseService::get_table_info(table).is_ok()
}

fn one(name: &'static str) -> Migrations {
    source(
        name,
        const {
            &[migration(
                "001_init",
                "CREATE TABLE one (a INTEGER)",
                Some("DROP TABLE one"),
            )]
        },
    )
}

fn two(name: &'static str) -> Migrations {
    source(
        name,
        const {
            &[migration(
                "001_init",
                "CREATE TABLE two (a INTEGER)",
                Some("DROP TABLE two"),
            )]
        },
    )
}

fn named_sources_with_one_version_have_separate_histories(database: &TestDatabase) {
    database.scope().run(|| {
        assert_eq!(run(&one("shop")).unwrap(), ["001"]);
        let status = DatabaseService::migration_status(&two("mail")).unwrap();
        assert_eq!(status[0].state, MigrationState::Pending);
        assert_eq!(run(&two("mail")).unwrap(), ["001"]);
        assert!(exists("one") && exists("two"));
        assert_eq!(run(&one("shop")).unwrap(), [""; 0]);
        let drifted = source("mail", const { &[migration("001_init", "SELECT 1", None)] });
        assert!(matches!(
            run(&drifted).unwrap_err(),
            DbError::Migration(MigrationError::Drift { .. })
        ));
        assert_eq!(
            DatabaseService::baseline_migrations(&drifted, "001").unwrap(),
            ["001"]
        );
        assert_eq!(
            run(&one("shop")).unwrap(),
            [""; 0],
            "the other source has not changed"
        );
        assert_eq!(revert(&one("shop"), 9).unwrap(), ["001"]);
        assert!(!exists("one") && exists("two"));
        assert_eq!(run(&drifted).unwrap(), [""; 0], "still applied");
        assert_eq!(run(&one("shop")).unwrap(), ["001"]);
    });
}

fn history_of_an_earlier_version_is_updated_without_loss(database: &TestDatabase) {
    database.scope().run(|| {
        run(&one("shop")).unwrap();
        // As the first version of this crate has created it.
        execute("ALTER TABLE db_service_migrations RENAME TO present");
        execute("CREATE TABLE db_service_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, name TEXT NOT NULL, migration_set TEXT NOT NULL, checksum TEXT NOT NULL, statements_done BIGINT)");
        execute("INSERT INTO db_service_migrations SELECT version, name, migration_set, checksum, statements_done FROM present");
        execute("DROP TABLE present");
        assert_eq!(run(&one("shop")).unwrap(), [""; 0]);
        let status = DatabaseService::migration_status(&one("shop")).unwrap();
        assert_eq!(status[0].state, MigrationState::Applied);
        assert_eq!(run(&two("mail")).unwrap(), ["001"]);
        assert_eq!(run(&one("shop")).unwrap(), [""; 0]);
        assert_eq!(revert(&two("mail"), 1).unwrap(), ["001"]);
        assert_eq!(revert(&one("shop"), 1).unwrap(), ["001"]);
        assert!(!exists("one") && !exists("two"));
    });
}

fn source_that_gets_a_name_keeps_its_history(database: &TestDatabase) {
    database.scope().run(|| {
        run(&one("")).unwrap();
        assert_eq!(run(&one("shop")).unwrap(), [""; 0]);
        assert_eq!(
            run(&two("mail")).unwrap(),
            ["001"],
            "the record now belongs to the other source"
        );
        assert_eq!(
            run(&one("")).unwrap(),
            [""; 0],
            "an older version of the program"
        );
        assert_eq!(revert(&one("shop"), 1).unwrap(), ["001"]);
        assert!(!exists("one") && exists("two"));
    });
}

fn unnamed_sources_with_one_version_are_reported(database: &TestDatabase) {
    database.scope().run(|| {
        run(&one("")).unwrap();
        let other = source("", const { &[migration("001_mail", "CREATE TABLE mail (a INTEGER)", None)] });
        let error = run(&other).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::VersionInUse { migration, applied, .. }) if migration == "001_mail" && applied == "001_init"),
            "{error}"
        );
        let named = source("mail", const { &[migration("001_mail", "CREATE TABLE mail (a INTEGER)", None)] });
        assert_eq!(run(&named).unwrap(), ["001"]);
    });
}

fn baselined_migration_is_not_reverted(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE one (a INTEGER)");
        DatabaseService::baseline_migrations(&one("shop"), "001").unwrap();
        let error = revert(&one("shop"), 1).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::Adopted { migration, tables, .. }) if migration == "001_init" && tables.is_empty()),
            "{error}"
        );
        assert!(exists("one"));
        // A baseline that accepts a change does not forget that the migration ran.
        run(&two("mail")).unwrap();
        let changed = source("mail", const { &[migration("001_init", "SELECT 1", Some("DROP TABLE two"))] });
        DatabaseService::baseline_migrations(&changed, "001").unwrap();
        assert_eq!(revert(&changed, 1).unwrap(), ["001"]);
    });
}

fn table_that_existed_before_is_not_dropped(database: &TestDatabase) {
    const UP: &str =
        "CREATE TABLE IF NOT EXISTS users (id INTEGER); CREATE TABLE more (id INTEGER)";
    const DOWN: &str = "DROP TABLE more; DROP TABLE users";
    let inside = source("in", const { &[migration("001_users", UP, Some(DOWN))] });
    let outside = source("out", const { &[outside("001_users", UP, Some(DOWN))] });
    database.scope().run(|| {
        for users in [&inside, &outside] {
            execute("CREATE TABLE users (id INTEGER)");
            run(users).unwrap();
            let error = revert(users, 1).unwrap_err();
            assert!(
                matches!(&error, DbError::Migration(MigrationError::Adopted { tables, .. }) if tables.len() == 1 && tables[0].ends_with("users")),
                "{error}"
            );
            assert!(exists("users") && exists("more"));
            execute("DROP TABLE users");
            execute("DROP TABLE more");
        }
        let fresh = source("fresh", const { &[migration("001_users", UP, Some(DOWN))] });
        run(&fresh).unwrap();
        revert(&fresh, 1).unwrap();
        assert!(!exists("users"));
        // A migration that changes a table of an earlier one does not adopt it.
        let rename = source(
            "rename",
            const {
                &[
                    migration("001_a", "CREATE TABLE a (b INTEGER)", Some("DROP TABLE a")),
                    migration("002_b", "ALTER TABLE a RENAME TO b", Some("ALTER TABLE b RENAME TO a")),
                ]
            },
        );
        run(&rename).unwrap();
        assert_eq!(revert(&rename, 2).unwrap(), ["002", "001"]);
    });
}

#[test]
fn users_of_the_python_program_are_not_dropped() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute(
            "CREATE TABLE users (id SERIAL PRIMARY KEY, username VARCHAR(50) NOT NULL UNIQUE, email VARCHAR(100) NOT NULL UNIQUE, \
             password_hash VARCHAR(255) NOT NULL, is_active BOOLEAN, created_at TIMESTAMP, updated_at TIMESTAMP)",
        );
        run(&MIGRATIONS).unwrap();
        assert!(matches!(revert(&MIGRATIONS, 1).unwrap_err(), DbError::Migration(MigrationError::Adopted { .. })));
        assert!(exists("users"));
    });
}
