//! Migrations that the tests and their programs share.

use db_service::Migrations;
use diesel_migrations::{
    EmbeddedMigration, EmbeddedMigrations, EmbeddedName, TomlMetadataWrapper, embed_migrations,
};

/// Three migrations named `shop`: a table, its first rows, and indexes that are created outside a transaction.
///
/// # Examples
///
/// ```
/// use db_service::DatabaseService;
/// use tests::{SHOP_MIGRATIONS, TestDatabase};
///
/// let database = TestDatabase::sqlite();
/// let applied = database
///     .scope()
///     .run(|| DatabaseService::run_migrations(&SHOP_MIGRATIONS));
/// assert_eq!(applied.unwrap().len(), 3);
/// ```
pub static SHOP_MIGRATIONS: Migrations = Migrations::new()
    .named("shop")
    .sqlite(embed_migrations!("migrations/shop/sqlite"))
    .postgres(embed_migrations!("migrations/shop/postgres"));

/// Two migrations. The second one creates a table, inserts a row and then does not end.
///
/// On PostgreSQL it sleeps for 600 seconds. On SQLite it runs an unbounded recursive query.
pub static ENDLESS_MIGRATIONS: Migrations = Migrations::new()
    .sqlite(EmbeddedMigrations::new(
        const {
            &[
                FIRST,
                migration(
                    "002_second",
                    "CREATE TABLE second (a INTEGER); INSERT INTO second VALUES (1); \
                     WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) INSERT INTO second SELECT max(n) FROM n",
                ),
            ]
        },
    ))
    .postgres(EmbeddedMigrations::new(
        const {
            &[
                FIRST,
                migration(
                    "002_second",
                    "CREATE TABLE second (a INTEGER); INSERT INTO second VALUES (1); SELECT pg_sleep(600)",
                ),
            ]
        },
    ));

/// The migrations of [`ENDLESS_MIGRATIONS`], corrected: the second one ends after its `INSERT`.
pub static QUICK_MIGRATIONS: Migrations = Migrations::new()
    .sqlite(EmbeddedMigrations::new(&QUICK))
    .postgres(EmbeddedMigrations::new(&QUICK));

const FIRST: EmbeddedMigration = migration("001_first", "CREATE TABLE first (a INTEGER)");

static QUICK: [EmbeddedMigration; 2] = [
    FIRST,
    migration(
        "002_second",
        "CREATE TABLE second (a INTEGER); INSERT INTO second VALUES (1)",
    ),
];

const fn migration(name: &'static str, up: &'static str) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(true);
    EmbeddedMigration::new(up, None, EmbeddedName::new(name), metadata)
}
