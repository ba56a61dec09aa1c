//! The migration lock, which keeps other processes from migrating at the same time. diesel's migrations do not lock.

#[cfg(feature = "sqlite")]
use std::fs::{File, TryLockError};
#[cfg(feature = "sqlite")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::config::Target;
use crate::connection::Connection;
use crate::connection::Connector;
use crate::error::DbError;
use crate::error::MigrationError;
#[cfg(feature = "sqlite")]
use crate::private_file;
use crate::statistics::Statistics;
use crate::values::Params;

/// The key of the advisory lock: the bytes of `db-servi`. Other programs must not use it.
const LOCK: i64 = i64::from_be_bytes(*b"db-servi");
const INTERVAL: Duration = Duration::from_millis(25);

/// Runs `work` under the migration lock of the database.
pub(crate) fn with_lock<R>(
    connection: &mut Connection,
    config: &DatabaseConfig,
    limit: Duration,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    match config.url.target() {
        Target::Postgres(_) => {
            // The lock is held by a transaction, not by a session, because PgBouncer in transaction mode shares sessions
            // between clients.
            let mut lock = Connector::new(config, Arc::new(Statistics::default()))?.open()?;
            wait(limit, || try_lock_server(&mut lock))?;
            let result = work(connection);
            if let Err(error) = lock.run("ROLLBACK") {
                log::warn!(
                    "another process may have migrated at the same time, because the migration lock was lost: {}",
                    DbError::from(error)
                );
            }
            result
        }
        #[cfg(feature = "sqlite")]
        Target::SqliteFile(path) => {
            let file = LockFile::open(Path::new(path))?;
            wait(limit, || file.try_lock())?;
            // Closing the file releases the lock, as does the end of the process.
            work(connection)
        }
        // A database in memory belongs to this process, and only threads that share the service can use it.
        _ => {
            static THREADS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
            let _alone = THREADS
                .try_lock_for(limit)
                .ok_or(MigrationError::LockTimeout { limit })?;
            work(connection)
        }
    }
}

/// Polls until the lock is acquired or the timeout expires.
fn wait(
    limit: Duration,
    mut try_lock: impl FnMut() -> Result<bool, DbError>,
) -> Result<(), DbError> {
    let started_at = Instant::now();
    while !try_lock()? {
        if started_at.elapsed() >= limit {
            return Err(MigrationError::LockTimeout { limit }.into());
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Tries once to acquire the advisory lock, so that no statement waits on the server.
///
/// A waiting statement would hold a snapshot. `CREATE INDEX CONCURRENTLY`, run by the lock's holder, waits for such
/// snapshots: a deadlock, which the server resolves by failing the migration. The transaction does not stay open between attempts
/// either, because PgBouncer may have no more server connections than there are processes.
fn try_lock_server(connection: &mut Connection) -> Result<bool, DbError> {
    // A READ COMMITTED transaction has no snapshot between statements.
    connection.run("BEGIN ISOLATION LEVEL READ COMMITTED")?;
    let sql = format!("SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK}) AS locked");
    let rows = connection.execute_query(&sql, Params::new())?;
    let locked: bool = rows.first().ok_or(DbError::NoRow)?.get("locked")?;
    connection.run(if locked {
        // This statement also closes the query's portal, which would keep its snapshot.
        "SET LOCAL idle_in_transaction_session_timeout = 0"
    } else {
        "ROLLBACK"
    })?;
    Ok(locked)
}

/// Takes a second lock in the migration's transaction. If this process is killed, the server holds that lock until it
/// has ended the transaction.
///
/// The server notices a dead client only after the running statement, unless `client_connection_check_interval` is set
/// (from version 14). The first lock's connection is idle, so the server releases that lock
/// at once, while the statement still runs.
pub(crate) fn hold_until_commit(connection: &mut Connection) -> Result<(), DbError> {
    if connection.backend() == Backend::Postgres {
        connection.run(
            "SELECT pg_catalog.set_config('client_connection_check_interval', '1s', true) \
             WHERE pg_catalog.current_setting('client_connection_check_interval', true) IS NOT NULL",
        )?;
        connection.run(&format!(
            "SELECT pg_catalog.pg_advisory_xact_lock({})",
            LOCK + 1
        ))?;
    }
    Ok(())
}

/// Opens the lock file beside the database. The file is never removed, because another process may already have
/// it open.
///
/// The operating system provides the lock. SQLite's own lock would need an open transaction, in which some statements
/// cannot run.
#[cfg(feature = "sqlite")]
struct LockFile {
    file: File,
    path: PathBuf,
}

#[cfg(feature = "sqlite")]
impl LockFile {
    fn open(database: &Path) -> Result<Self, MigrationError> {
        // The canonical path, so that processes that use different names or links share one lock.
        let database = database
            .canonicalize()
            .unwrap_or_else(|_| database.to_owned());
        let mut path = database.clone().into_os_string();
        path.push("-migrations.lock");
        let path = PathBuf::from(path);
        match private_file::open_lock(&path, &database) {
            Ok(file) => Ok(LockFile { file, path }),
            Err(source) => Err(MigrationError::LockFile { path, source }),
        }
    }

    fn try_lock(&self) -> Result<bool, DbError> {
        match self.file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(source)) => Err(MigrationError::LockFile {
                path: self.path.clone(),
                source,
            }
            .into()),
        }
    }
}
