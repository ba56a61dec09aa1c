//! `DatabaseService`: migrations.

use singleton_core::guarded;

use super::{DatabaseService, Source};
use crate::config::{ConfigService, DatabaseConfig};
use crate::connection::Connection;
use crate::error::DbError;
use crate::migrations::{self, MigrationStatus, Migrations, PlannedMigration};

impl DatabaseService {
    /// Applies the pending migrations of `source`, in order, and returns their versions.
    ///
    /// If several processes call it at once, one applies the migrations and the others wait. On PostgreSQL, a separate
    /// connection holds the lock in a transaction, so it works through PgBouncer in both modes.
    ///
    /// Each migration runs in its own transaction. With `run_in_transaction = false` in its `metadata.toml`, it runs
    /// statement by statement; after a failure, the next call continues with the failed statement. The text of an
    /// applied migration is recorded as a checksum, and a later change of the text is an error.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Migration`] with the failed migration and how much of it was applied. Earlier migrations stay
    /// applied. A statement that cannot do what it says is refused before the first migration is applied. With
    /// `DB_MIGRATE=check`, pending migrations are an error and nothing is changed.
    #[guarded]
    #[track_caller]
    pub fn run_migrations(&self, source: &Migrations) -> Result<Vec<String>, DbError> {
        match &self.source {
            Source::Pool(_) => {
                self.migrate(|connection, config| migrations::run(connection, config, source))
            }
            Source::Fake(_) => Ok(Vec::new()),
        }
    }

    /// Returns the migrations that [`run_migrations`](Self::run_migrations) would apply, with their statements, and
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Migration`] if `run_migrations` would not begin.
    #[guarded]
    #[track_caller]
    pub fn plan_migrations(&self, source: &Migrations) -> Result<Vec<PlannedMigration>, DbError> {
        self.migrate(|connection, _| migrations::plan(connection, source))
    }

    /// Returns the migrations of `source` with their states, and changes nothing.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Migration`] if the source or the history cannot be read.
    #[guarded]
    #[track_caller]
    pub fn migration_status(&self, source: &Migrations) -> Result<Vec<MigrationStatus>, DbError> {
        self.migrate(|connection, _| migrations::status(connection, source))
    }

    /// Reverts the last `count` applied migrations of `source`, newest first, and returns their versions.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Migration`] as [`run_migrations`](Self::run_migrations) does. If one of the migrations cannot
    /// be reverted, returns an error and reverts none.
    #[guarded]
    #[track_caller]
    pub fn revert_migrations(
        &self,
        source: &Migrations,
        count: usize,
    ) -> Result<Vec<String>, DbError> {
        self.migrate(|connection, config| migrations::revert(connection, config, source, count))
    }

    /// Records the migrations of `source` up to `version` as applied without running them, and returns the versions
    /// that were not recorded so before.
    ///
    /// Use it for a database that was created in another way or repaired manually.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Migration`] if the source has no such version, or if the source or the history cannot be
    /// read.
    #[guarded]
    #[track_caller]
    pub fn baseline_migrations(
        &self,
        source: &Migrations,
        version: &str,
    ) -> Result<Vec<String>, DbError> {
        self.migrate(|connection, config| migrations::baseline(connection, config, source, version))
    }

    #[track_caller]
    fn migrate<R>(
        &self,
        work: impl FnOnce(&mut Connection, &DatabaseConfig) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let pool = self.pool("migrations")?;
        let config = ConfigService::get_config()?;
        pool.get()?
            .internally(|connection| work(connection, config))
    }
}
