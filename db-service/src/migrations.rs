//! Embedded SQL migrations: plan, apply, revert, baseline, status.

mod apply;
mod history;
mod lock;
mod source;

use std::fmt;
use std::time::Duration;

use diesel_migrations::EmbeddedMigrations;

use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::connection::Connection;
use crate::error::DbError;
use crate::error::MigrationError;
use history::History;
use lock::with_lock;
use source::Migration;

/// The migrations of one crate, for each backend that it supports.
///
/// Migrations of several crates can share a database. Versions distinguish them, so begin their names with the date, as
/// diesel's command-line tool does.
///
/// # Examples
///
/// ```
/// use db_service::Migrations;
/// use diesel_migrations::embed_migrations;
///
/// static MIGRATIONS: Migrations = Migrations::new().sqlite(embed_migrations!("tests/migrations/sqlite"));
/// ```
pub struct Migrations {
    set: &'static str,
    lock_timeout: Duration,
    sqlite: Option<EmbeddedMigrations>,
    postgres: Option<EmbeddedMigrations>,
}

impl Migrations {
    /// Creates a source without migrations.
    pub const fn new() -> Self {
        Migrations {
            set: "",
            lock_timeout: Duration::from_secs(300),
            sqlite: None,
            postgres: None,
        }
    }

    /// Names the source, for example after its crate. Then an applied migration that the source lacks is detected.
    /// Without a name, it could belong to another crate.
    pub const fn named(self, set: &'static str) -> Self {
        Migrations { set, ..self }
    }

    /// Sets the timeout of the wait for another process that is migrating. Default: 300 s.
    pub const fn lock_timeout(self, limit: Duration) -> Self {
        Migrations {
            lock_timeout: limit,
            ..self
        }
    }

    /// Sets the migrations for SQLite, from `diesel_migrations::embed_migrations!`.
    pub const fn sqlite(self, migrations: EmbeddedMigrations) -> Self {
        Migrations {
            sqlite: Some(migrations),
            ..self
        }
    }

    /// Sets the migrations for PostgreSQL, from `diesel_migrations::embed_migrations!`.
    pub const fn postgres(self, migrations: EmbeddedMigrations) -> Self {
        Migrations {
            postgres: Some(migrations),
            ..self
        }
    }

    fn of(&self, backend: Backend) -> Result<Vec<Migration>, DbError> {
        let source = match backend {
            Backend::Postgres => self.postgres.as_ref(),
            Backend::Sqlite => self.sqlite.as_ref(),
        };
        source::read(source.ok_or(MigrationError::Unsupported { backend })?)
    }
}

impl Default for Migrations {
    fn default() -> Self {
        Migrations::new()
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Migrations")
            .field("set", &self.set)
            .field("lock_timeout", &self.lock_timeout)
            .field("sqlite", &self.sqlite.is_some())
            .field("postgres", &self.postgres.is_some())
            .finish()
    }
}

/// A migration and its state in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// The version. Migrations are applied in the order of their versions.
    pub version: String,
    /// The name, which begins with the version.
    pub name: String,
    /// Whether the migration was applied.
    pub applied: bool,
    /// The state in detail.
    pub state: MigrationState,
}

/// The state of a migration in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationState {
    /// The migration was not applied.
    Pending,
    /// The migration was applied.
    Applied,
    /// The migration was applied, and its text was changed since.
    Changed,
    /// The migration ran outside a transaction and failed. Only its first statements are applied.
    #[non_exhaustive]
    Incomplete {
        /// The number of applied statements.
        done: usize,
    },
    /// The migration was applied, but the source lacks it: it was removed, or it comes from a newer version of the
    /// program.
    Missing,
}

/// A migration that would be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlannedMigration {
    /// The version.
    pub version: String,
    /// The name.
    pub name: String,
    /// The text of the statements.
    pub sql: String,
    /// Whether the statements would run in a transaction.
    pub in_transaction: bool,
    /// The number of statements that an earlier, failed run has applied.
    pub done: usize,
}

/// Applies the pending migrations in order and returns their versions.
pub(crate) fn run(
    connection: &mut Connection,
    config: &DatabaseConfig,
    source: &Migrations,
) -> Result<Vec<String>, DbError> {
    let entries = source.of(connection.backend())?;
    with_lock(connection, config, source.lock_timeout, |connection| {
        history::create(connection)?;
        let ledger = history::read(connection)?;
        check(&entries, &ledger, source.set)?;
        let mut applied = Vec::new();
        for entry in &entries {
            if !ledger.applied.contains(&entry.version) {
                apply::apply(connection, entry, source.set, ledger.done(&entry.version))?;
                applied.push(entry.version.clone());
            } else if !ledger.records.contains_key(&entry.version) {
                // diesel's own tools applied it, so its checksum at that time is unknown. The present text is recorded.
                history::record(connection, entry, source.set, None)?;
            }
        }
        Ok(applied)
    })
}

/// Returns the migrations that [`run`] would apply, and changes nothing.
pub(crate) fn plan(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<PlannedMigration>, DbError> {
    let entries = source.of(connection.backend())?;
    let ledger = history::read(connection)?;
    check(&entries, &ledger, source.set)?;
    let pending = entries
        .into_iter()
        .filter(|entry| !ledger.applied.contains(&entry.version));
    Ok(pending
        .map(|entry| PlannedMigration {
            done: ledger.done(&entry.version).unwrap_or(0),
            version: entry.version,
            name: entry.name,
            sql: entry.up,
            in_transaction: entry.in_transaction,
        })
        .collect())
}

/// Reverts the last `count` applied migrations of the source, newest first, and returns their versions.
pub(crate) fn revert(
    connection: &mut Connection,
    config: &DatabaseConfig,
    source: &Migrations,
    count: usize,
) -> Result<Vec<String>, DbError> {
    let entries = source.of(connection.backend())?;
    with_lock(connection, config, source.lock_timeout, |connection| {
        let ledger = history::read(connection)?;
        check(&entries, &ledger, source.set)?;
        let has = |entry: &&Migration| {
            ledger.applied.contains(&entry.version) || ledger.done(&entry.version).is_some()
        };
        let last: Vec<&Migration> = entries.iter().rev().filter(has).take(count).collect();
        if let Some(entry) = last.iter().find(|entry| entry.down.is_none()) {
            let migration = entry.name.clone();
            return Err(MigrationError::Irreversible { migration }.into());
        }
        if !last.is_empty() {
            history::create(connection)?;
        }
        let mut reverted = Vec::new();
        for entry in last {
            apply::revert(connection, entry)?;
            reverted.push(entry.version.clone());
        }
        Ok(reverted)
    })
}

/// Records all migrations up to `version` as applied with their present text, and returns the versions that were not
/// recorded so.
pub(crate) fn baseline(
    connection: &mut Connection,
    config: &DatabaseConfig,
    source: &Migrations,
    version: &str,
) -> Result<Vec<String>, DbError> {
    let entries = source.of(connection.backend())?;
    let Some(last) = entries.iter().position(|entry| entry.version == version) else {
        let version = version.to_owned();
        return Err(MigrationError::UnknownVersion { version }.into());
    };
    with_lock(connection, config, source.lock_timeout, |connection| {
        history::create(connection)?;
        let ledger = history::read(connection)?;
        let news = |entry: &&Migration| {
            !ledger.applied.contains(&entry.version) || ledger.is_changed(entry)
        };
        connection.transaction(|connection| {
            let mut taken = Vec::new();
            for entry in entries[..=last].iter().filter(news) {
                history::record(connection, entry, source.set, None)?;
                taken.push(entry.version.clone());
            }
            Ok(taken)
        })
    })
}

/// Returns all migrations of the source, and applied ones that it lacks, in order.
pub(crate) fn status(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<MigrationStatus>, DbError> {
    let entries = source.of(connection.backend())?;
    let ledger = history::read(connection)?;
    let mut known: Vec<_> = missing(&entries, &ledger, source.set)
        .map(|(version, name)| MigrationStatus {
            version: version.to_owned(),
            name: name.to_owned(),
            applied: true,
            state: MigrationState::Missing,
        })
        .collect();
    known.extend(entries.into_iter().map(|entry| {
        let applied = ledger.applied.contains(&entry.version);
        let state = match ledger.done(&entry.version) {
            Some(done) => MigrationState::Incomplete { done },
            None if ledger.is_changed(&entry) => MigrationState::Changed,
            None if applied => MigrationState::Applied,
            None => MigrationState::Pending,
        };
        MigrationStatus {
            version: entry.version,
            name: entry.name,
            applied,
            state,
        }
    }));
    known.sort_by(|left, right| left.version.cmp(&right.version));
    Ok(known)
}

/// Returns an error if applied migrations were changed or are missing in the source.
fn check(entries: &[Migration], ledger: &History, set: &str) -> Result<(), MigrationError> {
    let changed = entries.iter().filter(|entry| ledger.is_changed(entry));
    let (begun, changed): (Vec<&Migration>, Vec<&Migration>) =
        changed.partition(|entry| ledger.done(&entry.version).is_some());
    if !changed.is_empty() {
        let migrations = changed.iter().map(|entry| entry.name.clone()).collect();
        return Err(MigrationError::Drift { migrations });
    }
    if let Some(entry) = begun.first() {
        return Err(MigrationError::Incomplete {
            migration: entry.name.clone(),
            done: ledger.done(&entry.version).unwrap_or(0),
        });
    }
    // A newer version of the program may have applied newer migrations and run beside this one.
    let newest = entries.last().map_or("", |entry| entry.version.as_str());
    let migrations: Vec<String> = missing(entries, ledger, set)
        .filter(|(version, _)| *version < newest)
        .map(|(_, name)| name.to_owned())
        .collect();
    if migrations.is_empty() {
        Ok(())
    } else {
        Err(MigrationError::Missing { migrations })
    }
}

/// Returns the version and name of each applied migration of the set that the source lacks.
fn missing<'a>(
    entries: &'a [Migration],
    ledger: &'a History,
    set: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lacks = |version: &str| entries.iter().all(|entry| entry.version != version);
    ledger
        .records
        .iter()
        .filter(move |(_, record)| !set.is_empty() && record.set == set)
        .filter(move |(version, _)| ledger.applied.contains(*version) && lacks(version))
        .map(|(version, record)| (version.as_str(), record.name.as_str()))
}
