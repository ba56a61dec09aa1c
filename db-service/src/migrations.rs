//! Embedded SQL migrations: plan, apply, revert, baseline, status.

mod apply;
mod foreign_keys;
mod history;
mod lock;
mod plan;
mod script;
mod source;

use std::fmt;
use std::time::Duration;

use diesel_migrations::EmbeddedMigrations;

use crate::backend::Backend;
use crate::config::{DatabaseConfig, Migrate};
use crate::connection::Connection;
use crate::error::DbError;
use crate::error::MigrationError;
use apply::Run;
use history::{History, Store};
use lock::with_lock;
use plan::{Plan, Step};
use source::Migration;

/// The migrations of one crate, for each backend that it supports.
///
/// Migrations of several crates can share a database: give each source a [name](Migrations::named). Sources without a
/// name share one history, in which versions distinguish them, so begin their names with the date, as diesel's
/// command-line tool does.
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

    /// Names the source, for example after its crate. A named source has a history of its own: another source can use
    /// the same versions, and an applied migration that the source lacks is detected.
    ///
    /// Migrations that were applied before the source had a name are recognized by their version and name.
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
        source::read(
            source.ok_or(MigrationError::Unsupported { backend })?,
            backend,
        )
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

/// Applies the pending migrations in order and returns their versions. With `DB_MIGRATE=check`, only checks that there
/// are none.
///
/// With nothing pending, it only reads.
pub(crate) fn run(
    connection: &mut Connection,
    config: &DatabaseConfig,
    source: &Migrations,
) -> Result<Vec<String>, DbError> {
    let backend = connection.backend();
    let migrations = source.of(backend)?;
    let history = History::read(connection, &migrations, source.set)?;
    let plan = Plan::apply(&migrations, &history, source.set, backend)?;
    let pending = plan.pending();
    if config.migrate == Migrate::Check {
        return match pending.is_empty() {
            true => Ok(Vec::new()),
            false => Err(MigrationError::Pending {
                migrations: pending.into_iter().map(|planned| planned.name).collect(),
            }
            .into()),
        };
    }
    if plan.is_empty() {
        return Ok(Vec::new());
    }
    let result = with_lock(connection, config, source.lock_timeout, |connection| {
        let store = history::create(connection)?;
        let history = History::read(connection, &migrations, source.set)?;
        let plan = Plan::apply(&migrations, &history, source.set, backend)?;
        execute(connection, config, &store, &plan, source.set)
    });
    match result {
        // The role may have no right to write.
        Err(error) if pending.is_empty() => {
            log::warn!("the checksums of applied migrations could not be recorded: {error}");
            Ok(Vec::new())
        }
        result => result,
    }
}

/// Returns the migrations that [`run`] would apply, and changes nothing.
pub(crate) fn plan(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<PlannedMigration>, DbError> {
    let migrations = source.of(connection.backend())?;
    let history = History::read(connection, &migrations, source.set)?;
    let plan = Plan::apply(&migrations, &history, source.set, connection.backend())?;
    Ok(plan.pending())
}

/// Reverts the last `count` applied migrations of the source, newest first, and returns their versions.
pub(crate) fn revert(
    connection: &mut Connection,
    config: &DatabaseConfig,
    source: &Migrations,
    count: usize,
) -> Result<Vec<String>, DbError> {
    let backend = connection.backend();
    let migrations = source.of(backend)?;
    with_lock(connection, config, source.lock_timeout, |connection| {
        let history = History::read(connection, &migrations, source.set)?;
        let plan = Plan::revert(&migrations, &history, source.set, count, backend)?;
        if plan.is_empty() {
            return Ok(Vec::new());
        }
        let store = history::create(connection)?;
        execute(connection, config, &store, &plan, source.set)
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
    let migrations = source.of(connection.backend())?;
    let recorded = plan::up_to(&migrations, version)?;
    with_lock(connection, config, source.lock_timeout, |connection| {
        let store = history::create(connection)?;
        let history = History::read(connection, &migrations, source.set)?;
        let plan = Plan::baseline(recorded, &history);
        connection.transaction(|connection| execute(connection, config, &store, &plan, source.set))
    })
}

/// Returns all migrations of the source, and applied ones that it lacks, in order.
pub(crate) fn status(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<MigrationStatus>, DbError> {
    let migrations = source.of(connection.backend())?;
    let history = History::read(connection, &migrations, source.set)?;
    Ok(plan::status(&migrations, &history, source.set))
}

/// Executes the steps of a plan in order. Returns the versions of the migrations that it reports.
fn execute(
    connection: &mut Connection,
    config: &DatabaseConfig,
    store: &Store,
    plan: &Plan<'_>,
    set: &str,
) -> Result<Vec<String>, DbError> {
    let run = Run { config, store, set };
    for step in plan.steps() {
        match *step {
            Step::Apply { migration, done } => run.apply(connection, migration, done)?,
            Step::Record {
                migration, adopted, ..
            } => store.record(connection, migration, set, None, adopted)?,
            Step::Revert { migration, record } => run.revert(connection, migration, record)?,
        }
    }
    Ok(plan.reported_versions())
}
