//! Keeps other processes out while migrations are applied; diesel itself takes no lock.

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

/// Any number will do that nobody else takes; these are the bytes of `db-servi`.
const LOCK: i64 = i64::from_be_bytes(*b"db-servi");
const INTERVAL: Duration = Duration::from_millis(25);

/// Runs `work` while no other process or thread does so on the same database.
pub(crate) fn with_lock<R>(
    connection: &mut Connection,
    config: &DatabaseConfig,
    limit: Duration,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    match config.url.target() {
        Target::Postgres(_) => {
            // Behind PgBouncer in transaction mode a session is whose turn it is, and only a transaction is one's own.
            let mut lock = Connector::new(config, Arc::new(Statistics::default()))?.open()?;
            wait(limit, || try_lock_server(&mut lock))?;
            let result = work(connection);
            if let Err(error) = lock.run("ROLLBACK") {
                log::warn!(
                    "others may have migrated at the same time, since the lock was lost: {}",
                    DbError::from(error)
                );
            }
            result
        }
        #[cfg(feature = "sqlite")]
        Target::SqliteFile(path) => {
            let file = LockFile::open(Path::new(path))?;
            wait(limit, || file.try_lock())?;
            // Closing the file unlocks it, and so does the end of the process.
            work(connection)
        }
        // No other process has it, and of the threads of this one only those that share a service.
        _ => {
            static THREADS: parking_lot::Mutex<()> = parking_lot::Mutex::new(());
            let _alone = THREADS
                .try_lock_for(limit)
                .ok_or(MigrationError::LockTimeout { limit })?;
            work(connection)
        }
    }
}

/// Asks again and again.
fn wait(
    limit: Duration,
    mut try_lock: impl FnMut() -> Result<bool, DbError>,
) -> Result<(), DbError> {
    let began = Instant::now();
    while !try_lock()? {
        if began.elapsed() >= limit {
            return Err(MigrationError::LockTimeout { limit }.into());
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Does not wait inside the server, where the waiting statement's snapshot would hold up a `CREATE INDEX CONCURRENTLY` of the
/// very process that is waited for: a deadlock, which the server ends by failing the migration. Nor does the transaction go
/// on while waiting: PgBouncer may have no more servers than there are processes.
fn try_lock_server(connection: &mut Connection) -> Result<bool, DbError> {
    // Between statements such a transaction has no snapshot.
    connection.run("BEGIN ISOLATION LEVEL READ COMMITTED")?;
    let sql = format!("SELECT pg_catalog.pg_try_advisory_xact_lock({LOCK}) AS locked");
    let rows = connection.execute_query(&sql, Params::new())?;
    let locked: bool = rows.first().ok_or(DbError::NoRow)?.get("locked")?;
    connection.run(if locked {
        // It closes the portal of the query, too, which would keep the snapshot of that.
        "SET LOCAL idle_in_transaction_session_timeout = 0"
    } else {
        "ROLLBACK"
    })?;
    Ok(locked)
}

/// Sees to it that the transaction of a process that was killed keeps others out until it has ended, which is soon.
///
/// The server hears of the death of a client only after the statement that runs, unless it is told to look (from version 14
/// on), and the connection with the lock, which does nothing, ends before.
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

/// A file beside the database that stays there: who removes it may remove one that another process has just locked.
///
/// The lock is the system's, and the database's own locks are left to SQLite: holding one throughout would leave no way to
/// run what must not be in a transaction.
#[cfg(feature = "sqlite")]
struct LockFile {
    file: File,
    path: PathBuf,
}

#[cfg(feature = "sqlite")]
impl LockFile {
    fn open(database: &Path) -> Result<Self, MigrationError> {
        // By whatever name or link a process knows the database, the lock is one.
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
