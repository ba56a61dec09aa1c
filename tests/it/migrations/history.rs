//! The migration history: plans, reverts, changed and missing migrations, and baselines.

use db_service::{
    DatabaseService, DbError, MigrationError, MigrationState, MigrationStop, Migrations, params,
};
use diesel_migrations::EmbeddedMigration;
use tests::{SHOP_MIGRATIONS, TestDatabase};

use super::{migration, outside, source};

on_both_backends!(
    planning_changes_nothing,
    migrations_are_reverted_newest_first,
    changed_migrations_are_reported_and_can_be_accepted,
    missing_migrations_are_reported_unless_newer,
    migration_outside_a_transaction_resumes_at_the_failed_statement,
    migrations_applied_by_diesel_are_adopted,
    database_created_without_migrations_can_be_baselined,
);

const ONE: EmbeddedMigration = migration(
    "001_one",
    "CREATE TABLE one (a INTEGER)",
    Some("DROP TABLE one"),
);
const TWO: EmbeddedMigration = migration(
    "002_two",
    "CREATE TABLE two (a INTEGER)",
    Some("DROP TABLE two"),
);
const THREE: EmbeddedMigration = migration("003_three", "CREATE TABLE three (a INTEGER)", None);
static BOTH: [EmbeddedMigration; 2] = [ONE, TWO];

fn run(source: &Migrations) -> Result<Vec<String>, DbError> {
    DatabaseService::run_migrations(source)
}

fn states(source: &Migrations) -> Vec<MigrationState> {
    let status = DatabaseService::migration_status(source).unwrap();
    status.iter().map(|migration| migration.state).collect()
}

fn tables() -> Vec<String> {
    let mut tables = DatabaseService::list_tables().unwrap();
    tables.retain(|table| !table.ends_with("_migrations"));
    tables
}

fn planning_changes_nothing(database: &TestDatabase) {
    database.scope().run(|| {
        let plan = DatabaseService::plan_migrations(&SHOP_MIGRATIONS).unwrap();
        let found: Vec<_> = plan
            .iter()
            .map(|planned| (planned.name.as_str(), planned.in_transaction, planned.done))
            .collect();
        assert_eq!(
            found,
            [
                ("2026-02-01-000001_items", true, 0),
                ("2026-02-01-000002_first_items", true, 0),
                ("2026-02-01-000003_items_by_name", false, 0)
            ]
        );
        assert!(plan[0].sql.starts_with("CREATE TABLE items"), "{plan:?}");
        assert_eq!(states(&SHOP_MIGRATIONS), [MigrationState::Pending; 3]);
        assert_eq!(
            DatabaseService::list_tables().unwrap(),
            [""; 0],
            "not even the migration history is created"
        );
        assert_eq!(run(&SHOP_MIGRATIONS).unwrap().len(), 3);
        assert_eq!(
            DatabaseService::plan_migrations(&SHOP_MIGRATIONS).unwrap(),
            []
        );
        assert_eq!(states(&SHOP_MIGRATIONS), [MigrationState::Applied; 3]);
    });
}

fn migrations_are_reverted_newest_first(database: &TestDatabase) {
    database.scope().run(|| {
        assert_eq!(DatabaseService::revert_migrations(&SHOP_MIGRATIONS, 1).unwrap(), [""; 0]);
        run(&SHOP_MIGRATIONS).unwrap();
        assert_eq!(DatabaseService::revert_migrations(&SHOP_MIGRATIONS, 2).unwrap(), ["20260201000003", "20260201000002"]);
        assert_eq!(DatabaseService::get_table_info("items").unwrap().row_count, 0);
        assert_eq!(run(&SHOP_MIGRATIONS).unwrap(), ["20260201000002", "20260201000003"]);
        assert_eq!(DatabaseService::revert_migrations(&SHOP_MIGRATIONS, usize::MAX).unwrap().len(), 3);
        assert_eq!(tables(), [""; 0]);

        let three = source("", const { &[ONE, TWO, THREE] });
        run(&three).unwrap();
        let error = DatabaseService::revert_migrations(&three, 2).unwrap_err();
        assert!(matches!(&error, DbError::Migration(MigrationError::Irreversible { migration, .. }) if migration == "003_three"), "{error}");
        assert_eq!(tables(), ["one", "three", "two"], "none was reverted");
    });
}

fn changed_migrations_are_reported_and_can_be_accepted(database: &TestDatabase) {
    database.scope().run(|| {
        run(&source("", &BOTH)).unwrap();
        let changed = source("", const { &[migration("001_one", "CREATE TABLE one (a TEXT)", None), TWO, THREE] });
        for error in [
            run(&changed).map(drop),
            DatabaseService::plan_migrations(&changed).map(drop),
            DatabaseService::revert_migrations(&changed, 1).map(drop),
        ] {
            let error = error.unwrap_err();
            assert!(matches!(&error, DbError::Migration(MigrationError::Drift { migrations, .. }) if migrations == &["001_one"]), "{error}");
        }
        assert_eq!(states(&changed), [MigrationState::Changed, MigrationState::Applied, MigrationState::Pending]);
        assert_eq!(tables(), ["one", "two"], "no migration is applied on top of a changed one");
        let error = DatabaseService::baseline_migrations(&changed, "4").unwrap_err();
        assert!(matches!(&error, DbError::Migration(MigrationError::UnknownVersion { version, .. }) if version == "4"), "{error}");
        assert_eq!(DatabaseService::baseline_migrations(&changed, "002").unwrap(), ["001"]);
        assert_eq!(run(&changed).unwrap(), ["003"]);
    });
}

fn missing_migrations_are_reported_unless_newer(database: &TestDatabase) {
    database.scope().run(|| {
        run(&source("shop", &BOTH)).unwrap();
        let older = source("shop", const { &[ONE] });
        assert_eq!(run(&older).unwrap(), [""; 0], "an older program accepts newer migrations");
        assert_eq!(states(&older), [MigrationState::Applied, MigrationState::Missing]);
        let gap = source("shop", const { &[ONE, THREE] });
        let error = run(&gap).unwrap_err();
        assert!(matches!(&error, DbError::Migration(MigrationError::Missing { migrations, .. }) if migrations == &["002_two"]), "{error}");
        assert_eq!(tables(), ["one", "two"]);
        assert_eq!(run(&source("another", const { &[THREE] })).unwrap(), ["003"], "migrations of another source are not missing");
    });
}

fn migration_outside_a_transaction_resumes_at_the_failed_statement(database: &TestDatabase) {
    const NAME: &str = "001_steps";
    const SCRIPT: &str = "CREATE TABLE one (a INTEGER);\n-- Not there yet.\nINSERT INTO two VALUES (1);\nCREATE TABLE three (a INTEGER);";
    let steps = source(
        "",
        const { &[outside(NAME, SCRIPT, Some("DROP TABLE one"))] },
    );
    database.scope().run(|| {
        let error = run(&steps).unwrap_err();
        assert!(
            matches!(&error, DbError::Migration(MigrationError::Failed { migration, stop: MigrationStop::At { statement: 2, statements: 3, line: 3, .. }, .. }) if migration == NAME),
            "{error}"
        );
        assert!(
            error.to_string().contains("001_steps failed at statement 2 of 3, line 3"),
            "{error}"
        );
        assert_eq!(tables(), ["one"]);
        assert!(matches!(states(&steps)[..], [MigrationState::Incomplete { done: 1, .. }]));
        assert_eq!(DatabaseService::plan_migrations(&steps).unwrap()[0].done, 1);
        let changed = source("", const { &[outside(NAME, "SELECT 1", None)] });
        let error = run(&changed).unwrap_err();
        assert!(matches!(&error, DbError::Migration(MigrationError::Incomplete { done: 1, .. })), "{error}");
        DatabaseService::execute_query("CREATE TABLE two (a INTEGER)", params! {}).unwrap();
        assert_eq!(run(&steps).unwrap(), ["001"]);
        assert_eq!(tables(), ["one", "three", "two"]);
        assert_eq!(states(&steps), [MigrationState::Applied]);
        assert_eq!(run(&steps).unwrap(), [""; 0]);
    });
}

fn migrations_applied_by_diesel_are_adopted(database: &TestDatabase) {
    database.scope().run(|| {
        run(&source("", &BOTH)).unwrap();
        DatabaseService::execute_query("DROP TABLE db_service_migrations", params! {}).unwrap();
        assert_eq!(states(&source("", &BOTH)), [MigrationState::Applied; 2]);
        assert_eq!(run(&source("", &BOTH)).unwrap(), [""; 0]);
        let changed = source("", const { &[ONE, migration("002_two", "SELECT 1", None)] });
        assert_eq!(
            states(&changed),
            [MigrationState::Applied, MigrationState::Changed]
        );
    });
}

fn database_created_without_migrations_can_be_baselined(database: &TestDatabase) {
    database.scope().run(|| {
        for table in ["one", "two"] {
            DatabaseService::execute_query(
                &format!("CREATE TABLE {table} (a INTEGER)"),
                params! {},
            )
            .unwrap();
        }
        let three = source("", const { &[ONE, TWO, THREE] });
        assert!(matches!(
            run(&three).unwrap_err(),
            DbError::Migration(MigrationError::Failed {
                stop: MigrationStop::RolledBack,
                ..
            })
        ));
        assert_eq!(
            DatabaseService::baseline_migrations(&three, "002").unwrap(),
            ["001", "002"]
        );
        assert_eq!(run(&three).unwrap(), ["003"]);
    });
}

#[test]
fn duplicate_versions_are_rejected() {
    let duplicates = source(
        "",
        const { &[ONE, migration("00-1_uno", "SELECT 1", None)] },
    );
    let error = TestDatabase::sqlite()
        .scope()
        .run(|| run(&duplicates))
        .unwrap_err();
    assert!(
        matches!(error, DbError::Migration(MigrationError::Duplicate { .. })),
        "{error}"
    );
}
