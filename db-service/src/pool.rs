//! The pool: r2d2 with a manager that knows the age of a connection and leaves it clean.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use diesel::connection::Connection as _;
use parking_lot::{Mutex, RwLock};
use r2d2::{HandleError, ManageConnection};

use crate::config::DatabaseConfig;
use crate::error::DbError;
use crate::gate::{Gate, Permit};
use crate::multi::DbConnection as Connection;
use crate::observer::{Observer, Traces};
use crate::statistics::{PoolStatus, Statistics};
use crate::url::Target;

/// How long SQLite waits for the locks of others.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was in use this recently is taken to be alive, as HikariCP does: a check is a round trip.
const ALIVE_WINDOW: Duration = Duration::from_millis(500);

pub(crate) struct ConnectionPool {
    /// `None` once the service was shut down.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    gate: Arc<Gate>,
    pub(crate) statistics: Arc<Statistics>,
    timeout: Duration,
    pool_size: u32,
    maximum: u32,
}

impl ConnectionPool {
    /// Opens one connection, so that what is wrong shows at once and in the server's own words, and leaves it in the pool.
    pub(crate) fn open(config: &DatabaseConfig) -> Result<Self, DbError> {
        let statistics = Arc::new(Statistics::default());
        let manager = Manager::open(config, Arc::clone(&statistics))?;
        let maximum = config.pool_size + config.max_overflow;
        let pool = r2d2::Pool::builder()
            .max_size(maximum)
            .min_idle(Some(0))
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(config.pool_timeout)
            .error_handler(Box::new(LogErrors))
            .build_unchecked(manager);
        Ok(ConnectionPool {
            pool: RwLock::new(Some(pool)),
            gate: Gate::new(maximum as usize),
            statistics,
            timeout: config.pool_timeout,
            pool_size: config.pool_size,
            maximum,
        })
    }

    /// Hands out a connection within the time limit.
    pub(crate) fn get(&self) -> Result<PooledConnection, DbError> {
        let deadline = Instant::now() + self.timeout;
        let Some(permit) = self.gate.acquire(deadline) else {
            return Err(self.timed_out(None));
        };
        let pool = self.pool.read().clone().ok_or(DbError::Closed)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = pool
            .get_timeout(left)
            .map_err(|source| self.timed_out(Some(source)))?;
        self.statistics.total_connections.increment();
        self.statistics.active_connections.increment();
        Ok(PooledConnection {
            connection,
            statistics: Arc::clone(&self.statistics),
            _permit: permit,
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let (open, idle) = self.size();
        let statistics = &self.statistics;
        PoolStatus {
            pool_size: self.pool_size,
            checked_in: idle,
            checked_out: open.saturating_sub(idle),
            overflow: open.saturating_sub(self.pool_size),
            invalid: statistics.invalid.get(),
            total_connections: statistics.total_connections.get(),
            active_connections: statistics.active_connections.get(),
            successful_queries: statistics.successful_queries.get(),
            failed_queries: statistics.failed_queries.get(),
            transactions_committed: statistics.transactions_committed.get(),
            transactions_rolled_back: statistics.transactions_rolled_back.get(),
        }
    }

    /// Closes the idle connections, and those in use when they come back.
    pub(crate) fn close(&self) {
        drop(self.pool.write().take());
    }

    fn size(&self) -> (u32, u32) {
        let state = self.pool.read().as_ref().map(r2d2::Pool::state);
        state.map_or((0, 0), |state| (state.connections, state.idle_connections))
    }

    fn timed_out(&self, source: Option<r2d2::Error>) -> DbError {
        DbError::PoolTimeout {
            timeout: self.timeout,
            open: self.size().0,
            maximum: self.maximum,
            source,
        }
    }
}

/// A connection on loan; it goes back to the pool on drop, rolled back if need be.
///
/// It dereferences to [`Connection`], so diesel's DSL works on `&mut *connection`.
pub struct PooledConnection {
    connection: r2d2::PooledConnection<Manager>,
    statistics: Arc<Statistics>,
    // Last, so that the connection is back before the next caller is let through.
    _permit: Permit,
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection.connection
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection.connection
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.statistics.active_connections.decrement();
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pooled{:?}", **self)
    }
}

/// Makes, checks and cleans connections for r2d2.
struct Manager {
    config: DatabaseConfig,
    statistics: Arc<Statistics>,
    /// The connection that showed that the database can be reached; the pool's first.
    first: Mutex<Option<Connection>>,
    /// Keeps a database in memory alive while no other connection is open.
    _anchor: Mutex<Option<Connection>>,
    /// How many connections r2d2 holds idle.
    idle: Mutex<u32>,
}

struct Managed {
    connection: Connection,
    traces: Arc<Traces>,
    opened: Instant,
    used: Instant,
}

#[derive(Debug, thiserror::Error)]
enum ManagerError {
    #[error(transparent)]
    Connect(#[from] DbError),
    #[error("a connection was lost: {0}")]
    Lost(#[source] diesel::result::Error),
    #[error("a connection was renewed after DB_POOL_RECYCLE")]
    Recycled,
    #[error("the driver panicked while connecting")]
    Panicked,
}

impl Manager {
    fn open(config: &DatabaseConfig, statistics: Arc<Statistics>) -> Result<Self, DbError> {
        let mut config = config.clone();
        if matches!(config.url.target(), Target::SqliteMemory) {
            config.memory = Some(next_memory_name());
        }
        #[cfg_attr(not(feature = "sqlite"), allow(unused_mut))]
        let mut first = establish(&config)?;
        #[cfg(feature = "sqlite")]
        if matches!(config.url.target(), Target::SqliteFile(_)) {
            write_ahead(&mut first)?;
        }
        let anchor = config
            .memory
            .is_some()
            .then(|| establish(&config))
            .transpose()?;
        Ok(Manager {
            config,
            statistics,
            first: Mutex::new(Some(first)),
            _anchor: Mutex::new(anchor),
            idle: Mutex::new(0),
        })
    }
}

impl ManageConnection for Manager {
    type Connection = Managed;
    type Error = ManagerError;

    fn connect(&self) -> Result<Managed, ManagerError> {
        let first = self.first.lock().take();
        let mut connection = match first {
            Some(connection) => connection,
            // r2d2 would lose the place of a connection for good whose making panics.
            None => panic::catch_unwind(AssertUnwindSafe(|| establish(&self.config)))
                .map_err(|_| ManagerError::Panicked)??,
        };
        let traces = Arc::new(Traces::default());
        connection.set_instrumentation(Observer::new(
            self.config.url.backend(),
            self.config.echo_sql,
            Arc::clone(&self.statistics),
            Arc::clone(&traces),
        ));
        *self.idle.lock() += 1;
        let now = Instant::now();
        Ok(Managed {
            connection,
            traces,
            opened: now,
            used: now,
        })
    }

    /// Runs at every checkout, so the connection is idle no longer, whatever comes out.
    fn is_valid(&self, managed: &mut Managed) -> Result<(), ManagerError> {
        *self.idle.lock() -= 1;
        if self
            .config
            .pool_recycle
            .is_some_and(|recycle| managed.opened.elapsed() >= recycle)
        {
            return Err(ManagerError::Recycled);
        }
        if managed.used.elapsed() < ALIVE_WINDOW {
            return Ok(());
        }
        managed.connection.run("SELECT 1").map_err(|error| {
            self.statistics.invalid.increment();
            ManagerError::Lost(error)
        })
    }

    /// Runs when a connection comes back: cleans it, and gives up what is broken or beyond the size of the pool.
    fn has_broken(&self, managed: &mut Managed) -> bool {
        managed.used = Instant::now();
        let raw_transaction = managed
            .traces
            .raw_transaction
            .swap(false, Ordering::Relaxed);
        if !managed.connection.restore(raw_transaction) {
            self.statistics.invalid.increment();
            return true;
        }
        // As SQLAlchemy does: what is open beyond the pool's size is closed once that many are idle.
        let mut idle = self.idle.lock();
        let surplus = *idle >= self.config.pool_size;
        if !surplus {
            *idle += 1;
        }
        surplus
    }
}

#[derive(Debug)]
struct LogErrors;

impl HandleError<ManagerError> for LogErrors {
    fn handle_error(&self, error: ManagerError) {
        match error {
            ManagerError::Recycled => log::debug!("{error}"),
            _ => log::warn!("{error}"),
        }
    }
}

fn next_memory_name() -> String {
    use std::sync::atomic::AtomicU64;
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The `memdb` file system shares a database among the connections of a process by its name,
    // with the locking of a file: https://sqlite.org/src/file/src/memdb.c
    format!(
        "file:/db-service-{}?vfs=memdb",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn establish(config: &DatabaseConfig) -> Result<Connection, DbError> {
    let failed = |source| DbError::Connect {
        target: config.url.to_string(),
        source,
    };
    match config.url.target() {
        #[cfg(feature = "postgres")]
        Target::Postgres(url) => diesel::PgConnection::establish(url)
            .map(Connection::Postgres)
            .map_err(failed),
        #[cfg(feature = "sqlite")]
        Target::SqliteFile(path) => {
            // Without a prefix SQLite would take some names for something else, such as `file:…`.
            let path = if path.starts_with('/') {
                path.clone()
            } else {
                format!("./{path}")
            };
            sqlite(&path).map_err(failed)
        }
        #[cfg(feature = "sqlite")]
        Target::SqliteMemory => {
            sqlite(config.memory.as_deref().unwrap_or(":memory:")).map_err(failed)
        }
        // `DatabaseUrl` refuses what is not compiled in.
        #[allow(
            unreachable_patterns,
            reason = "both backends are compiled in, or one is not"
        )]
        _ => Err(failed(diesel::ConnectionError::InvalidConnectionUrl(
            "this backend is not compiled in".to_owned(),
        ))),
    }
}

#[cfg(feature = "sqlite")]
fn sqlite(path: &str) -> Result<Connection, diesel::ConnectionError> {
    let mut connection = Connection::Sqlite(diesel::SqliteConnection::establish(path)?);
    // The time-out first: the rest may have to wait for another process.
    connection
        .run(&format!(
            "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = ON",
            BUSY_TIMEOUT.as_millis()
        ))
        .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(connection)
}

/// Lets readers go on while somebody writes; the file remembers it. SQLite does not wait by itself for
/// another process that is about to do the same.
#[cfg(feature = "sqlite")]
fn write_ahead(connection: &mut Connection) -> Result<(), diesel::result::Error> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        match connection.run("PRAGMA journal_mode = WAL") {
            Err(diesel::result::Error::DatabaseError(_, information))
                if information.message().contains("locked") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}
