//! Migrations, as users of the service call them.

use singleton_core::guarded;

use super::{DatabaseService, Source, uncounted};
use crate::config::{ConfigService, DatabaseConfig};
use crate::connection::Connection;
use crate::error::DbError;
use crate::migrations::{self, MigrationStatus, Migrations, PlannedMigration};

impl DatabaseService {
    /// Applies the pending migrations of `source`, in order, and returns their versions.
    ///
    /// When several processes do so at once, one applies them and the others wait for it; on PostgreSQL through a lock that a
    /// connection of its own holds meanwhile in a transaction, so PgBouncer may be between in either mode. Each migration runs in a transaction of its own,
    /// or with `run_in_transaction = false` in its `metadata.toml` statement by statement; one that has stopped
    /// on its way goes on there the next time. Its text is remembered, and a later change of it is an error.
    ///
    /// # Errors
    ///
    /// [`DbError::Migration`], which says which migration has failed and what is left of it; those before it stay applied.
    #[guarded]
    pub fn run_migrations(&self, source: &Migrations) -> Result<Vec<String>, DbError> {
        match &self.source {
            Source::Pool(_) => {
                self.migrate(|connection, config| migrations::run(connection, config, source))
            }
            Source::Fake(_) => Ok(Vec::new()),
        }
    }

    /// Tells what [`run_migrations`](Self::run_migrations) would do, with the statements, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`DbError::Migration`] where it would refuse to begin.
    #[guarded]
    pub fn plan_migrations(&self, source: &Migrations) -> Result<Vec<PlannedMigration>, DbError> {
        self.migrate(|connection, _| migrations::plan(connection, source))
    }

    /// Lists the migrations of `source` and what the database has of them, and changes nothing.
    ///
    /// # Errors
    ///
    /// [`DbError::Migration`].
    #[guarded]
    pub fn migration_status(&self, source: &Migrations) -> Result<Vec<MigrationStatus>, DbError> {
        self.migrate(|connection, _| migrations::status(connection, source))
    }

    /// Reverts the last `count` migrations of `source` that are applied, newest first, and returns their versions.
    ///
    /// # Errors
    ///
    /// [`DbError::Migration`]: as [`run_migrations`](Self::run_migrations), and where one of them cannot be reverted,
    /// before any is.
    #[guarded]
    pub fn revert_migrations(
        &self,
        source: &Migrations,
        count: usize,
    ) -> Result<Vec<String>, DbError> {
        self.migrate(|connection, config| migrations::revert(connection, config, source, count))
    }

    /// Takes the migrations of `source` up to `version` for applied without running them, and returns the versions for
    /// which that is news: for a database that was made otherwise, or was put right by hand.
    ///
    /// # Errors
    ///
    /// [`DbError::Migration`].
    #[guarded]
    pub fn baseline_migrations(
        &self,
        source: &Migrations,
        version: &str,
    ) -> Result<Vec<String>, DbError> {
        self.migrate(|connection, config| migrations::baseline(connection, config, source, version))
    }

    fn migrate<R>(
        &self,
        work: impl FnOnce(&mut Connection, &DatabaseConfig) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let pool = self.pool("migrations")?;
        let config = ConfigService::get_config()?;
        uncounted(|| work(&mut *pool.get()?, config))
    }
}
