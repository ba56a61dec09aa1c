//! `DatabaseService`: reads from replicas.

use std::time::{Duration, Instant};

use singleton_core::guarded;

use super::DatabaseService;
use crate::backend::Backend;
use crate::connection::Connection;
use crate::connection::TransactionOptions;
use crate::error::DbError;
use crate::replicas;
use crate::replicas::Replicas;
use crate::replicas::WritePosition;
use crate::values::Params;

/// Options of [`DatabaseService::read_with`].
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
    /// The position, from [`DatabaseService::write_position`], that the read must see. Default: none.
    pub after: Option<WritePosition>,
    /// The maximum time to wait for a replica to replay up to `after`, before the read goes to the primary. Default:
    /// 500 ms.
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
    /// Runs `work` in a read-only transaction on a usable replica of `DB_REPLICA_URLS`, in round-robin order, or on the
    /// primary if no replica is usable. A replica is usable if it is reachable, a standby, and its lag is at most
    /// `DB_REPLICA_MAX_LAG`.
    ///
    /// If a replica fails, or cancels the read because it conflicts with the replay, the next replica and finally the
    /// primary is tried. Then the whole of `work` runs again, so `work` should have no effects except through its
    /// connection. Without replicas, and on SQLite, the transaction runs on the primary.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, [`DbError::ReadOnly`] if `work` writes, and the errors of the primary.
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

    /// Runs `work` in a read-only transaction, like [`read`](Self::read), that sees everything up to the position in
    /// `options`.
    ///
    /// Waits up to [`patience`](ReadOptions::patience) for a replica to replay up to the position, and then reads from
    /// the primary.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`read`](Self::read).
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
        for replica in replicas.usable(after) {
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

    /// Returns the primary's write position, which is after all transactions committed so far.
    ///
    /// Call it after a transaction, and pass the position to [`read_with`](Self::read_with) to see the transaction's
    /// changes. On SQLite, the position is always the same. After a failover that lost transactions, no read sees them.
    ///
    /// # Errors
    ///
    /// Returns the server's error. A standby has no write position.
    #[guarded]
    #[track_caller]
    pub fn write_position(&self) -> Result<WritePosition, DbError> {
        let mut connection = self.pool("connections")?.get()?;
        if connection.backend() == Backend::Sqlite {
            return Ok(WritePosition::NONE);
        }
        // Not `pg_current_wal_lsn`, which with `synchronous_commit = off` may be before a committed transaction. The
        // insert position may be after the header of an empty page that replicas do not report yet; then the read goes
        // to the primary.
        let sql = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS position";
        let rows =
            connection.internally(|connection| connection.execute_query(sql, Params::new()))?;
        replicas::position(rows.first().ok_or(DbError::NoRow)?, "position")
    }

    #[guarded]
    fn replicas(&self) -> Result<&Replicas, DbError> {
        self.pool("connections")?;
        Ok(&self.replicas)
    }
}
