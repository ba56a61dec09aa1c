//! Reading where it can be done as well, as users of the service call it.

use std::time::{Duration, Instant};

use singleton_core::guarded;

use super::{DatabaseService, uncounted};
use crate::backend::Backend;
use crate::connection::Connection;
use crate::connection::TransactionOptions;
use crate::error::DbError;
use crate::replicas;
use crate::replicas::Replicas;
use crate::replicas::WritePosition;
use crate::values::Params;

/// What [`DatabaseService::read_with`] is to see.
///
/// # Examples
///
/// ```
/// use db_service::ReadOptions;
///
/// let options = ReadOptions { after: "0/16B3740".parse().ok(), ..ReadOptions::default() };
/// assert_eq!(options.patience.as_millis(), 500);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadOptions {
    /// What was written up to there, as [`DatabaseService::write_position`] told it; nothing in particular.
    pub after: Option<WritePosition>,
    /// How long to wait for a replica that has come so far, before the primary is read from; 500 ms.
    pub patience: Duration,
}

impl Default for ReadOptions {
    fn default() -> Self {
        ReadOptions {
            after: None,
            patience: Duration::from_millis(500),
        }
    }
}

impl DatabaseService {
    /// Runs `work` in a transaction that can only read, on one of `DB_REPLICA_URLS` in turn, or on the primary where none is fit:
    /// reachable, a standby, and not further behind than `DB_REPLICA_MAX_LAG`.
    ///
    /// A replica that fails, or gives up the read for the sake of what it replays, is left for the next one and at last for the
    /// primary, and `work` runs again from the start; so it should do nothing but through its connection. Without replicas,
    /// and on SQLite, it is a transaction on the primary.
    ///
    /// # Errors
    ///
    /// Those of `work`, [`DbError::ReadOnly`] where it writes, and what goes wrong with the primary.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let rows = DatabaseService::read(|connection| {
    ///     connection.execute_query("SELECT 1 AS one", params! {})
    /// })?;
    /// assert_eq!(rows[0].get::<i64>("one")?, 1);
    /// let refused = DatabaseService::read(|connection| {
    ///     connection.execute_query("CREATE TABLE t (n INTEGER)", params! {})
    /// });
    /// assert!(matches!(refused, Err(DbError::ReadOnly(_))));
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn read<T, E, F>(work: F) -> Result<T, E>
    where
        F: FnMut(&mut Connection) -> Result<T, E>,
        E: From<DbError>,
    {
        Self::read_with(&ReadOptions::default(), work)
    }

    /// The same after what `options` name was written, wherever that is to be read: a replica is waited for within
    /// [`patience`](ReadOptions::patience), and then the primary is read from.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use db_service::ReadOptions;
    ///
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute_query("CREATE TABLE pets (name TEXT)", params! {})?;
    /// let cookie = DatabaseService::write_position()?.to_string();
    /// // In the next request:
    /// let options = ReadOptions { after: cookie.parse().ok(), ..ReadOptions::default() };
    /// let pets = DatabaseService::read_with(&options, |connection| {
    ///     connection.execute_query("SELECT name FROM pets", params! {})
    /// })?;
    /// assert!(pets.is_empty());
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn read_with<T, E, F>(options: &ReadOptions, mut work: F) -> Result<T, E>
    where
        F: FnMut(&mut Connection) -> Result<T, E>,
        E: From<DbError>,
    {
        let read_only = TransactionOptions {
            read_only: true,
            ..TransactionOptions::default()
        };
        let replicas = Self::replicas()?;
        let after = options.after.unwrap_or(WritePosition::NONE);
        let deadline = Instant::now() + options.patience.min(Duration::from_secs(3600));
        for replica in replicas.fit(after) {
            let Some(mut connection) = replica.connection(after, deadline) else {
                continue;
            };
            let result = connection.transaction_with(&read_only, &mut work);
            if result.is_ok() || !replica.failed(&mut connection) {
                replica.succeeded();
                return result;
            }
        }
        let result = Self::connection()?.transaction_with(&read_only, work);
        replicas.reads_on_primary.increment();
        result
    }

    /// Tells how far the primary has written: behind all that was committed before.
    ///
    /// Ask after the transaction, and give it to [`read_with`](Self::read_with) to see what was written; on SQLite it is
    /// always the same. What was committed there and lost in a failover is not seen by anybody.
    ///
    /// # Errors
    ///
    /// Whatever the server says; a standby has no such position.
    #[guarded]
    #[track_caller]
    pub fn write_position(&self) -> Result<WritePosition, DbError> {
        let mut connection = self.pool("connections")?.get()?;
        if connection.backend() == Backend::Sqlite {
            return Ok(WritePosition::NONE);
        }
        // Not `pg_current_wal_lsn`, which with `synchronous_commit = off` may be before what was committed. It may stand behind
        // the header of a page that has nothing else yet; then a read is none the worse for going to the primary.
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS position";
        let rows = uncounted(|| connection.execute_query(sql, Params::new()))?;
        replicas::position(rows.first().ok_or(DbError::NoRow)?, "position")
    }

    #[guarded]
    fn replicas(&self) -> Result<&Replicas, DbError> {
        self.pool("connections")?;
        Ok(&self.replicas)
    }
}
