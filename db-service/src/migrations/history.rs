//! The migration history: the tables that record applied migrations.

use std::collections::{BTreeMap, BTreeSet};

use diesel::migration::MigrationConnection;

use super::source::Migration;
use crate::backend::Backend;
use crate::connection::Connection;
use crate::error::DbError;
use crate::params;
use crate::sql::quote;

/// diesel's table, so that diesel's tools see the same history, and a second one with more details, for each set.
const VERSIONS: &str = "__diesel_schema_migrations";
const DETAILS: &str = "db_service_migrations";

/// The note in the history of a migration that was recorded as applied and did not run.
pub(crate) const EVERYTHING: &str = "everything";

const COLUMNS: &str = "version VARCHAR(50) NOT NULL, name TEXT NOT NULL, migration_set TEXT NOT NULL, \
     checksum TEXT NOT NULL, statements_done BIGINT, adopted TEXT, PRIMARY KEY (migration_set, version)";

/// The history of one set.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The versions of the applied migrations.
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
    /// The tables that existed before the migration and that it names, as JSON, or [`EVERYTHING`].
    pub(crate) adopted: Option<String>,
}

impl AppliedMigration {
    /// Returns the tables that existed before the migration and that it names.
    pub(crate) fn adopted_tables(&self) -> Vec<String> {
        let json = self.adopted.as_deref().unwrap_or("[]");
        serde_json::from_str(json).unwrap_or_default()
    }

    /// Returns whether the record of another set is that of this migration: one of the two has no name.
    fn is_of(&self, migration: &Migration, set: &str) -> bool {
        let same_name = self.name == migration.name;
        let same_text = migration.has_checksum(&self.checksum);
        match set.is_empty() {
            true => same_name && same_text,
            false => self.set.is_empty() && (same_name || same_text),
        }
    }
}

impl History {
    /// Reads the history of a set, and changes nothing.
    pub(crate) fn read(
        connection: &mut Connection,
        migrations: &[Migration],
        set: &str,
    ) -> Result<Self, DbError> {
        let tables = Tables::locate(connection)?;
        let mut versions = BTreeSet::new();
        if let Some(table) = &tables.versions {
            let sql = format!("SELECT version FROM {table}");
            for row in connection.execute_query(&sql, params! {})? {
                versions.insert(row.get("version")?);
            }
        }
        let mut records = Vec::new();
        if let Some(table) = &tables.details {
            let adopted = match tables.is_current {
                true => "adopted",
                false => "NULL AS adopted",
            };
            let sql = format!(
                "SELECT version, name, migration_set, checksum, statements_done, {adopted} FROM {table}"
            );
            for row in connection.execute_query(&sql, params! {})? {
                let done: Option<i64> = row.get("statements_done")?;
                let record = AppliedMigration {
                    name: row.get("name")?,
                    set: row.get("migration_set")?,
                    checksum: row.get("checksum")?,
                    done: done.and_then(|done| usize::try_from(done).ok()),
                    adopted: row.get("adopted")?,
                };
                records.push((row.get("version")?, record));
            }
        }
        Ok(History::of_set(&versions, records, migrations, set))
    }

    /// Returns the part of the history that belongs to a set.
    fn of_set(
        versions: &BTreeSet<String>,
        records: Vec<(String, AppliedMigration)>,
        migrations: &[Migration],
        set: &str,
    ) -> Self {
        let mut history = History::default();
        let (own, mut others): (Vec<_>, Vec<_>) = records
            .into_iter()
            .partition(|(_, record)| record.set == set);
        for (version, record) in own {
            history.add(versions, &others, version, record);
        }
        for migration in migrations {
            let version = &migration.version;
            if history.records.contains_key(version) {
                continue;
            }
            let claimed = others
                .iter()
                .position(|(other, record)| other == version && record.is_of(migration, set));
            if let Some(index) = claimed {
                let (version, record) = others.remove(index);
                history.add(versions, &others, version, record);
            } else if versions.contains(version) && others.iter().all(|(other, _)| other != version)
            {
                history.applied.insert(version.clone());
            }
        }
        history
    }

    fn add(
        &mut self,
        versions: &BTreeSet<String>,
        others: &[(String, AppliedMigration)],
        version: String,
        record: AppliedMigration,
    ) {
        // diesel's table does not show whose migration was applied.
        let is_of_other = || {
            let mut same = others.iter().filter(|(other, _)| *other == version);
            same.any(|(_, record)| record.done.is_none())
        };
        if versions.contains(&version) && (record.done.is_none() || !is_of_other()) {
            self.applied.insert(version.clone());
        }
        self.records.insert(version, record);
    }

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
        known && record.is_some_and(|record| !migration.has_checksum(&record.checksum))
    }
}

/// The tables of the history that exist, with their schemas, so that a migration can change the search path.
struct Tables {
    versions: Option<String>,
    details: Option<String>,
    /// Whether the details are kept for each set.
    is_current: bool,
}

impl Tables {
    fn locate(connection: &mut Connection) -> Result<Self, DbError> {
        let details = locate(connection, DETAILS)?;
        let is_current = match &details {
            Some(table) => has_column(connection, table, "adopted")?,
            None => false,
        };
        Ok(Tables {
            versions: locate(connection, VERSIONS)?,
            details,
            is_current,
        })
    }
}

/// The tables of the history, ready to write.
pub(crate) struct Store {
    versions: String,
    details: String,
}

/// Creates the tables if they are missing, and updates those of earlier versions of this crate.
pub(crate) fn create(connection: &mut Connection) -> Result<Store, DbError> {
    let tables = Tables::locate(connection)?;
    // PostgreSQL sends a notice for `IF NOT EXISTS` on an existing table.
    if tables.versions.is_none() {
        connection.setup()?;
    }
    match &tables.details {
        None => connection.run(&format!("CREATE TABLE {DETAILS} ({COLUMNS})"))?,
        Some(table) if !tables.is_current => {
            connection.transaction(|connection| update(connection, table))?;
        }
        Some(_) => {}
    }
    let tables = Tables::locate(connection)?;
    Ok(Store {
        versions: tables.versions.ok_or(DbError::NoRow)?,
        details: tables.details.ok_or(DbError::NoRow)?,
    })
}

/// Updates the table of details, whose key was the version alone.
fn update(connection: &mut Connection, table: &str) -> Result<(), DbError> {
    if connection.backend() == Backend::Sqlite {
        const OLD: &str = "db_service_migrations_by_version";
        connection.run(&format!(
            "ALTER TABLE {table} RENAME TO {OLD}; CREATE TABLE {table} ({COLUMNS}); \
             INSERT INTO {table} (version, name, migration_set, checksum, statements_done) \
             SELECT version, name, migration_set, checksum, statements_done FROM main.{OLD}; DROP TABLE main.{OLD}"
        ))?;
        return Ok(());
    }
    let sql = "SELECT conname AS name FROM pg_catalog.pg_constraint \
               WHERE conrelid = pg_catalog.to_regclass(:table) AND contype = 'p'";
    for row in connection.execute_query(sql, params! { "table" => table })? {
        let key: String = row.get("name")?;
        connection.run(&format!(
            "ALTER TABLE {table} DROP CONSTRAINT {}",
            quote(&key)
        ))?;
    }
    connection.run(&format!(
        "ALTER TABLE {table} ADD COLUMN adopted TEXT, ADD PRIMARY KEY (migration_set, version)"
    ))?;
    Ok(())
}

impl Store {
    /// Records that a migration is applied, or with `done` that its first statements are.
    pub(crate) fn record(
        &self,
        connection: &mut Connection,
        migration: &Migration,
        set: &str,
        done: Option<usize>,
        adopted: Option<&str>,
    ) -> Result<(), DbError> {
        let Store { versions, details } = self;
        let version = migration.version.as_str();
        if done.is_none() {
            connection.execute_query(
                &format!(
                    "INSERT INTO {versions} (version) VALUES (:version) ON CONFLICT DO NOTHING"
                ),
                params! { "version" => version },
            )?;
        }
        // One statement, so that it is atomic outside a transaction too.
        connection.execute_query(
            &format!(
                "INSERT INTO {details} AS old (version, name, migration_set, checksum, statements_done, adopted) \
                 VALUES (:version, :name, :set, :checksum, :done, :adopted) \
                 ON CONFLICT (migration_set, version) DO UPDATE SET name = excluded.name, checksum = excluded.checksum, \
                 statements_done = excluded.statements_done, adopted = COALESCE(excluded.adopted, old.adopted)"
            ),
            params! {
                "version" => version,
                "name" => migration.name.as_str(),
                "set" => set,
                "checksum" => migration.checksum.as_str(),
                "done" => done.and_then(|done| i64::try_from(done).ok()),
                "adopted" => adopted,
            },
        )?;
        if !set.is_empty() {
            // The record from the time before the source had a name.
            connection.execute_query(
                &format!(
                    "DELETE FROM {details} WHERE version = :version AND migration_set = '' \
                     AND (name = :name OR checksum = :checksum)"
                ),
                params! {
                    "version" => version,
                    "name" => migration.name.as_str(),
                    "checksum" => migration.checksum.as_str(),
                },
            )?;
        }
        Ok(())
    }

    /// Removes a migration from the history of a set.
    pub(crate) fn forget(
        &self,
        connection: &mut Connection,
        version: &str,
        set: &str,
    ) -> Result<(), DbError> {
        let Store { versions, details } = self;
        connection.execute_query(
            &format!("DELETE FROM {details} WHERE version = :version AND migration_set = :set"),
            params! { "version" => version, "set" => set },
        )?;
        connection.execute_query(
            &format!(
                "DELETE FROM {versions} WHERE version = :version AND NOT EXISTS (SELECT 1 FROM {details} AS other \
                 WHERE other.version = :version AND other.statements_done IS NULL)"
            ),
            params! { "version" => version },
        )?;
        Ok(())
    }
}

/// Returns the name of a table with its schema, if the table exists. PostgreSQL's search path decides, as for diesel.
fn locate(connection: &mut Connection, table: &str) -> Result<Option<String>, DbError> {
    let sql = match connection.backend() {
        Backend::Postgres => {
            "SELECT n.nspname AS schema FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = pg_catalog.to_regclass(:name)"
        }
        Backend::Sqlite => {
            "SELECT 'main' AS schema FROM main.sqlite_schema WHERE type = 'table' AND name = :name"
        }
    };
    let rows = connection.execute_query(sql, params! { "name" => table })?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let schema: String = row.get("schema")?;
    Ok(Some(format!("{}.{}", quote(&schema), quote(table))))
}

fn has_column(connection: &mut Connection, table: &str, column: &str) -> Result<bool, DbError> {
    let sql = match connection.backend() {
        Backend::Postgres => {
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE attrelid = pg_catalog.to_regclass(:table) \
             AND attname = :column AND NOT attisdropped) AS found"
        }
        Backend::Sqlite => {
            "SELECT EXISTS (SELECT 1 FROM pragma_table_info(:table, 'main') WHERE name = :column) AS found"
        }
    };
    let table = match connection.backend() {
        Backend::Postgres => table,
        Backend::Sqlite => DETAILS,
    };
    let rows = connection.execute_query(sql, params! { "table" => table, "column" => column })?;
    rows.first().ok_or(DbError::NoRow)?.get("found")
}

/// Returns the tables of the user, on PostgreSQL with their schemas.
pub(crate) fn tables(connection: &mut Connection) -> Result<BTreeSet<String>, DbError> {
    let sql = match connection.backend() {
        Backend::Postgres => {
            "SELECT pg_catalog.concat(n.nspname, '.', c.relname) AS name FROM pg_catalog.pg_class AS c \
             JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'f') \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND c.relpersistence <> 't'"
        }
        Backend::Sqlite => "SELECT name FROM main.sqlite_schema WHERE type = 'table'",
    };
    let rows = connection.execute_query(sql, params! {})?;
    rows.iter().map(|row| row.get("name")).collect()
}
