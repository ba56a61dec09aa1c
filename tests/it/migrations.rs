//! Migrations: applying them, their history, and processes that are killed.

mod apply;
mod history;
mod killed_process;
mod privileges;
mod rebuilds;
mod scripts;
mod sets;

use db_service::Migrations;
use diesel_migrations::{EmbeddedMigration, EmbeddedMigrations, EmbeddedName, TomlMetadataWrapper};

/// Returns a migration as `embed_migrations!` creates it, without a folder.
const fn migration(
    name: &'static str,
    up: &'static str,
    down: Option<&'static str>,
) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(true);
    EmbeddedMigration::new(up, down, EmbeddedName::new(name), metadata)
}

/// Returns a migration that runs outside a transaction.
const fn outside(
    name: &'static str,
    up: &'static str,
    down: Option<&'static str>,
) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(false);
    EmbeddedMigration::new(up, down, EmbeddedName::new(name), metadata)
}

fn source(name: &'static str, migrations: &'static [EmbeddedMigration]) -> Migrations {
    Migrations::new()
        .named(name)
        .sqlite(EmbeddedMigrations::new(migrations))
        .postgres(EmbeddedMigrations::new(migrations))
}
