//! The migrations that tests and their programs share.

use db_service::Migrations;
use diesel_migrations::{
    EmbeddedMigration, EmbeddedMigrations, EmbeddedName, TomlMetadataWrapper, embed_migrations,
};

/// A table, rows in it, and indexes that are made outside of a transaction.
pub static SHOP_MIGRATIONS: Migrations = Migrations::new()
    .named("shop")
    .sqlite(embed_migrations!("migrations/shop/sqlite"))
    .postgres(embed_migrations!("migrations/shop/postgres"));

const fn migration(name: &'static str, up: &'static str) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(true);
    EmbeddedMigration::new(up, None, EmbeddedName::new(name), metadata)
}

const FIRST: EmbeddedMigration = migration("001_first", "CREATE TABLE first (a INTEGER)");

/// Two migrations, of which the second changes something and then takes far too long.
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

static QUICK: [EmbeddedMigration; 2] = [
    FIRST,
    migration(
        "002_second",
        "CREATE TABLE second (a INTEGER); INSERT INTO second VALUES (1)",
    ),
];

/// The same, put right.
pub static QUICK_MIGRATIONS: Migrations = Migrations::new()
    .sqlite(EmbeddedMigrations::new(&QUICK))
    .postgres(EmbeddedMigrations::new(&QUICK));
