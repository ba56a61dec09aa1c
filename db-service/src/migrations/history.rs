//! The migration history: the tables that record applied migrations.

use std::collections::{BTreeMap, BTreeSet};

use diesel::migration::MigrationConnection;

use super::source::Migration;
use crate::backend::Backend;
use crate::connection::Connection;
use crate::error::DbError;
use crate::params;

/// diesel's table, so that diesel's tools see the same history, and a second one with more details.
///
/// The names have no schema, so the search path decides, as for diesel.
const TABLES: [&str; 2] = ["__diesel_schema_migrations", "db_service_migrations"];

/// The applied migrations of a database, from all sources.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The versions in diesel's table.
    pub(crate) applied: BTreeSet<String>,
    /// The details by version. Migrations that diesel's tools applied have none.
    pub(crate) records: BTreeMap<String, AppliedMigration>,
}

#[derive(Debug)]
pub(crate) struct AppliedMigration {
    pub(crate) name: String,
    /// The name of the migration's source, or an empty text.
    pub(crate) set: String,
    pub(crate) checksum: String,
    /// The number of applied statements, if the migration failed in the middle.
    pub(crate) done: Option<usize>,
}

impl History {
    /// Returns the number of applied statements of a migration that failed in the middle.
    pub(crate) fn done(&self, version: &str) -> Option<usize> {
        let record = self.records.get(version)?;
        record.done.filter(|_| !self.applied.contains(version))
    }

    /// Returns whether a migration was changed after it was applied or begun.
    pub(crate) fn is_changed(&self, migration: &Migration) -> bool {
        let known =
            self.applied.contains(&migration.version) || self.done(&migration.version).is_some();
        let record = self.records.get(&migration.version);
        known && record.is_some_and(|record| record.checksum != migration.checksum)
    }
}

/// Creates the tables if they are missing.
pub(crate) fn create(connection: &mut Connection) -> Result<(), DbError> {
    connection.setup()?;
    // Check first: PostgreSQL sends a notice for `IF NOT EXISTS` on an existing table.
    if !exists(connection, TABLES[1])? {
        connection.run(
            "CREATE TABLE db_service_migrations (version VARCHAR(50) PRIMARY KEY NOT NULL, name TEXT NOT NULL, \
             migration_set TEXT NOT NULL, checksum TEXT NOT NULL, statements_done BIGINT)",
        )?;
    }
    Ok(())
}

/// Reads the history, and changes nothing.
pub(crate) fn read(connection: &mut Connection) -> Result<History, DbError> {
    let mut history = History::default();
    if exists(connection, TABLES[0])? {
        let sql = "SELECT version FROM __diesel_schema_migrations";
        for row in connection.execute_query(sql, params! {})? {
            history.applied.insert(row.get("version")?);
        }
    }
    if exists(connection, TABLES[1])? {
        let sql = "SELECT version, name, migration_set, checksum, statements_done FROM db_service_migrations";
        for row in connection.execute_query(sql, params! {})? {
            let done: Option<i64> = row.get("statements_done")?;
            let record = AppliedMigration {
                name: row.get("name")?,
                set: row.get("migration_set")?,
                checksum: row.get("checksum")?,
                done: done.and_then(|done| usize::try_from(done).ok()),
            };
            history.records.insert(row.get("version")?, record);
        }
    }
    Ok(history)
}

/// Records that a migration is applied, or with `done` that its first statements are.
pub(crate) fn record(
    connection: &mut Connection,
    migration: &Migration,
    set: &str,
    done: Option<usize>,
) -> Result<(), DbError> {
    let version = migration.version.as_str();
    if done.is_none() {
        connection.execute_query(
            "INSERT INTO __diesel_schema_migrations (version) VALUES (:version) ON CONFLICT DO NOTHING",
            params! { "version" => version },
        )?;
    }
    // One statement, so that it is atomic outside a transaction too.
    connection.execute_query(
        "INSERT INTO db_service_migrations (version, name, migration_set, checksum, statements_done) \
         VALUES (:version, :name, :set, :checksum, :done) \
         ON CONFLICT (version) DO UPDATE SET name = excluded.name, migration_set = excluded.migration_set, \
         checksum = excluded.checksum, statements_done = excluded.statements_done",
        params! {
            "version" => version,
            "name" => migration.name.as_str(),
            "set" => set,
            "checksum" => migration.checksum.as_str(),
            "done" => done.and_then(|done| i64::try_from(done).ok()),
        },
    )?;
    Ok(())
}

/// Removes a migration from the history.
pub(crate) fn forget(connection: &mut Connection, version: &str) -> Result<(), DbError> {
    for table in TABLES {
        connection.execute_query(
            &format!("DELETE FROM {table} WHERE version = :version"),
            params! { "version" => version },
        )?;
    }
    Ok(())
}

fn exists(connection: &mut Connection, table: &str) -> Result<bool, DbError> {
    let sql = match connection.backend() {
        Backend::Postgres => "SELECT pg_catalog.to_regclass(:name) IS NOT NULL AS found",
        Backend::Sqlite => {
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = :name) AS found"
        }
    };
    let rows = connection.execute_query(sql, params! { "name" => table })?;
    rows.first().ok_or(DbError::NoRow)?.get("found")
}
