//! Embedded SQL migrations, applied by whichever process comes first.

use std::fmt;
use std::thread;
use std::time::Duration;

use diesel::backend::Backend as DieselBackend;
use diesel::migration::{Migration, MigrationSource};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};

use crate::backend::Backend;
use crate::connection::on_each;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::params;
use crate::params::Params;

/// The migrations of one crate, for each backend that it supports.
///
/// Those of several crates live side by side in one database, told apart by their versions: name
/// them by the date, as diesel's command-line tool does.
///
/// # Examples
///
/// ```
/// use db_service::Migrations;
/// use diesel_migrations::embed_migrations;
///
/// static MIGRATIONS: Migrations = Migrations::new().sqlite(embed_migrations!("tests/migrations/sqlite"));
/// ```
#[derive(Default)]
pub struct Migrations {
    sqlite: Option<EmbeddedMigrations>,
    postgres: Option<EmbeddedMigrations>,
}

impl Migrations {
    /// Makes a source without migrations for any backend.
    pub const fn new() -> Self {
        Migrations {
            sqlite: None,
            postgres: None,
        }
    }

    /// Sets the migrations for SQLite, as `diesel_migrations::embed_migrations!` makes them.
    pub const fn sqlite(self, migrations: EmbeddedMigrations) -> Self {
        Migrations {
            sqlite: Some(migrations),
            ..self
        }
    }

    /// Sets the migrations for PostgreSQL, as `diesel_migrations::embed_migrations!` makes them.
    pub const fn postgres(self, migrations: EmbeddedMigrations) -> Self {
        Migrations {
            postgres: Some(migrations),
            ..self
        }
    }

    fn of(&self, backend: Backend) -> Result<&EmbeddedMigrations, DbError> {
        match backend {
            Backend::Postgres => self.postgres.as_ref(),
            Backend::Sqlite => self.sqlite.as_ref(),
        }
        .ok_or_else(|| DbError::Migration(format!("there are no migrations for {backend}").into()))
    }
}

impl fmt::Debug for Migrations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Migrations")
            .field("sqlite", &self.sqlite.is_some())
            .field("postgres", &self.postgres.is_some())
            .finish()
    }
}

/// One migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// The version, by which migrations are ordered.
    pub version: String,
    /// Whether it was applied.
    pub applied: bool,
}

/// Applies the pending migrations in order and returns their versions.
pub(crate) fn run(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<String>, DbError> {
    let migrations = source.of(connection.backend())?;
    alone(
        connection,
        |connection| on_each!(connection, inner => pending(inner, migrations)),
    )
}

/// Lists all migrations of the source, in order.
pub(crate) fn status(
    connection: &mut Connection,
    source: &Migrations,
) -> Result<Vec<MigrationStatus>, DbError> {
    let migrations = source.of(connection.backend())?;
    alone(
        connection,
        |connection| on_each!(connection, inner => list(inner, migrations)),
    )
}

fn pending<C, D>(
    connection: &mut C,
    migrations: &EmbeddedMigrations,
) -> Result<Vec<String>, DbError>
where
    C: MigrationHarness<D>,
    D: DieselBackend,
    EmbeddedMigrations: MigrationSource<D>,
{
    let applied = connection
        .run_pending_migrations(ByReference(migrations))
        .map_err(DbError::Migration)?;
    Ok(applied.iter().map(ToString::to_string).collect())
}

fn list<C, D>(
    connection: &mut C,
    migrations: &EmbeddedMigrations,
) -> Result<Vec<MigrationStatus>, DbError>
where
    C: MigrationHarness<D>,
    D: DieselBackend,
    EmbeddedMigrations: MigrationSource<D>,
{
    let applied = connection
        .applied_migrations()
        .map_err(DbError::Migration)?;
    let mut known: Vec<_> = migrations
        .migrations()
        .map_err(DbError::Migration)?
        .iter()
        .map(|migration| migration.name().version().as_owned())
        .map(|version| MigrationStatus {
            applied: applied.contains(&version),
            version: version.to_string(),
        })
        .collect();
    known.sort_by(|left, right| left.version.cmp(&right.version));
    Ok(known)
}

/// diesel takes its sources by value, and one source serves every start of the service.
struct ByReference<'a>(&'a EmbeddedMigrations);

impl<D: DieselBackend> MigrationSource<D> for ByReference<'_>
where
    EmbeddedMigrations: MigrationSource<D>,
{
    fn migrations(&self) -> diesel::migration::Result<Vec<Box<dyn Migration<D>>>> {
        self.0.migrations()
    }
}

/// Keeps other processes out while `work` looks at what was applied and adds to it; diesel itself takes no lock.
fn alone<R>(
    connection: &mut Connection,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    match connection.backend() {
        Backend::Postgres => {
            lock_postgres(connection)?;
            let result = work(connection);
            let unlocked = connection.run(&format!("SELECT pg_advisory_unlock({LOCK})"));
            let result = result?;
            unlocked?;
            Ok(result)
        }
        Backend::Sqlite => {
            let rows = connection.execute_query("PRAGMA busy_timeout", Params::new())?;
            let usual: i64 = rows.first().ok_or(DbError::NoRow)?.get("timeout")?;
            connection.run(&format!("PRAGMA busy_timeout = {}", PATIENCE.as_millis()))?;
            let result = connection.transaction(work);
            connection.run(&format!("PRAGMA busy_timeout = {usual}"))?;
            result
        }
    }
}

/// Any number will do that nobody else takes; these are the bytes of `db-servi`.
const LOCK: i64 = i64::from_be_bytes(*b"db-servi");
/// How long to wait for another process's migrations.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks again and again rather than waiting inside the server, where the waiting statement's
/// snapshot would hold up a `CREATE INDEX CONCURRENTLY` of the very process it waits for.
fn lock_postgres(connection: &mut Connection) -> Result<(), DbError> {
    const INTERVAL: Duration = Duration::from_millis(50);
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        let rows = connection.execute_query(
            "SELECT pg_try_advisory_lock(:lock) AS locked",
            params! { "lock" => LOCK },
        )?;
        if rows.first().map_or(Ok(false), |row| row.get("locked"))? {
            return Ok(());
        }
        thread::sleep(INTERVAL);
        waited += INTERVAL;
    }
    Err(DbError::Migration(
        format!("another process has been migrating for {PATIENCE:?}").into(),
    ))
}
