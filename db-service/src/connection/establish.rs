//! Opening of connections.

use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::sync::atomic::AtomicU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use diesel::ConnectionError;
use diesel::connection::{CacheSize, Connection as _};
use parking_lot::{Condvar, Mutex};

#[cfg(feature = "postgres")]
use super::relayed;
use super::session::{Session, SessionSettings};
#[cfg(feature = "sqlite")]
use super::sqlite_path;
use super::{Connection, on_each};
use crate::config::DatabaseConfig;
use crate::config::Target;
use crate::error::DbError;
#[cfg(feature = "sqlite")]
use crate::error::{Meaning, meaning};
#[cfg(feature = "sqlite")]
use crate::private_file;
use crate::statistics::Statistics;
#[cfg(feature = "postgres")]
use crate::watchdog::CallError;
use crate::watchdog::{self, CallLimit};
#[cfg(feature = "postgres")]
use crate::watchdog::{Watchdog, WatchedConnection};

/// Opens connections with the service's settings.
pub(crate) struct Connector {
    settings: Arc<Settings>,
    calls: CallLimit,
}

/// Whether the pool of the connections closes, and the waits that end with it.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    has_begun: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Closing {
    /// Ends all waits, also later ones.
    pub(crate) fn begin(&self) {
        let _lock = self.lock.lock();
        self.has_begun.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Acquire)
    }

    /// Waits for `pause`, or until the pool closes. Returns whether it closes.
    pub(crate) fn wait(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut lock = self.lock.lock();
        while !self.has_begun() {
            if self.changed.wait_until(&mut lock, end).timed_out() {
                return self.has_begun();
            }
        }
        true
    }
}

struct Settings {
    config: DatabaseConfig,
    statistics: Arc<Statistics>,
    closing: Arc<Closing>,
    /// The name under which all connections share a database in memory, if the URL is one.
    #[cfg(feature = "sqlite")]
    memory: String,
    /// Closes connections whose statement exceeds `DB_SOCKET_TIMEOUT`, if that is set.
    #[cfg(feature = "postgres")]
    watch: Option<Arc<Watchdog>>,
}

impl Connector {
    pub(crate) fn new(
        config: &DatabaseConfig,
        statistics: Arc<Statistics>,
    ) -> Result<Self, DbError> {
        let settings = Settings {
            config: config.clone(),
            statistics,
            closing: Arc::default(),
            #[cfg(feature = "sqlite")]
            memory: next_memory_name(),
            #[cfg(feature = "postgres")]
            watch: watch(config)?,
        };
        Ok(Connector {
            settings: Arc::new(settings),
            calls: CallLimit::new(config),
        })
    }

    /// Returns the limit of concurrent calls to the server.
    pub(crate) fn calls(&self) -> &CallLimit {
        &self.calls
    }

    /// Returns what ends the waits of connections.
    pub(crate) fn closing(&self) -> &Arc<Closing> {
        &self.settings.closing
    }

    /// Opens the first connection, which also sets up a SQLite file.
    pub(crate) fn open_first(&self) -> Result<Connection, DbError> {
        #[cfg_attr(not(feature = "sqlite"), allow(unused_mut))]
        let mut first = self.open()?;
        #[cfg(feature = "sqlite")]
        {
            let config = &self.settings.config;
            let is_file = matches!(config.url.target(), Target::SqliteFile(_));
            if config.sqlite.write_ahead && is_file {
                write_ahead(&mut first, config.sqlite.busy_timeout)?;
            }
        }
        Ok(first)
    }

    /// Opens a connection whose statements are observed from the first one on.
    ///
    /// The timeout is the sum of the timeouts of the URL's hosts, plus a second. A stopped server, or a PgBouncer
    /// without a free session, accepts a client and does not answer.
    pub(crate) fn open(&self) -> Result<Connection, DbError> {
        let config = &self.settings.config;
        let limit = match config.url.target() {
            #[cfg(feature = "postgres")]
            Target::Postgres(url) => config.postgres.opening_limit(url),
            _ => None,
        };
        let Some(limit) = limit else {
            return self.settings.open();
        };
        let settings = Arc::clone(&self.settings);
        let opened = watchdog::run_with_timeout(&self.calls, limit, move || settings.open());
        opened.map_err(|unfinished| unfinished.into_error(config))?
    }
}

impl Settings {
    fn open(&self) -> Result<Connection, DbError> {
        let failed = |source| {
            let target = self.config.url.to_string();
            if let Some(reason) = out_of_descriptors() {
                return DbError::not_connected(target, reason);
            }
            #[cfg(feature = "sqlite")]
            if let Target::SqliteFile(path) = self.config.url.target() {
                let is_open = matches!(&source, ConnectionError::CouldntSetupConfiguration(_));
                let detail = sqlite_path::explained(path.as_ref(), is_open);
                return DbError::connect(target, source).with_connect_detail(detail);
            }
            DbError::connect(target, source)
        };
        let session = Session::new(
            self.config.url.backend(),
            SessionSettings::new(&self.config),
            Arc::clone(&self.statistics),
            Arc::clone(&self.closing),
        );
        let (mut connection, session, statements) = match self.config.url.target() {
            #[cfg(feature = "postgres")]
            Target::Postgres(url) => {
                let settings = &self.config.postgres;
                let complete = settings.complete(url);
                let (connection, watched) = match self.watch.as_ref().zip(settings.socket_timeout) {
                    Some((watch, limit)) => {
                        let (connection, link) = relayed::establish(&complete)
                            .map_err(|failure| failure.into_error(&self.config))?;
                        (
                            connection,
                            Some(WatchedConnection::new(Arc::clone(watch), link, limit)),
                        )
                    }
                    None => {
                        let connection = diesel::PgConnection::establish(&complete);
                        (connection.map_err(failed)?, None)
                    }
                };
                let connection = Connection::Postgres(connection);
                let limits = session.session_limits().to_owned();
                (connection, session.watched(watched), limits)
            }
            #[cfg(feature = "sqlite")]
            Target::SqliteFile(path) => {
                // Without a prefix, SQLite would interpret some names, such as `file:…`, as URIs.
                let path = if path.starts_with('/') {
                    path.clone()
                } else {
                    format!("./{path}")
                };
                if self.config.sqlite.private {
                    private_file::create_database(path.as_ref()).map_err(|error| {
                        failed(ConnectionError::BadConnection(error.to_string()))
                    })?;
                }
                let connection = diesel::SqliteConnection::establish(&path).map_err(failed)?;
                let connection = Connection::Sqlite(connection);
                (connection, session, self.config.sqlite.statements())
            }
            #[cfg(feature = "sqlite")]
            Target::SqliteMemory => {
                let connection =
                    diesel::SqliteConnection::establish(&self.memory).map_err(failed)?;
                let connection = Connection::Sqlite(connection);
                (connection, session, self.config.sqlite.statements())
            }
            // `DatabaseUrl` refuses backends that are not compiled in.
            #[allow(
                unreachable_patterns,
                reason = "both backends are compiled in, or one is not"
            )]
            _ => {
                return Err(failed(ConnectionError::InvalidConnectionUrl(
                    "this backend is not compiled in".to_owned(),
                )));
            }
        };
        on_each!(&mut connection, inner => inner.set_instrumentation(session));
        if self.config.statement_cache_size == 0 {
            connection.set_cache(CacheSize::Disabled);
        }
        if !statements.is_empty() {
            connection
                .run(&statements)
                .map_err(|source| failed(ConnectionError::CouldntSetupConfiguration(source)))?;
        }
        connection.store_clean_state();
        Ok(connection)
    }
}

/// Returns the reason why a connection cannot be opened if the process or the system has no file descriptor left.
///
/// The drivers do not report it: libpq gives no reason, and SQLite reports only that it cannot open the file.
fn out_of_descriptors() -> Option<String> {
    #[cfg(unix)]
    if let Err(error) = std::fs::File::open("/dev/null") {
        use rustix::io::Errno;
        let is_exhausted = matches!(
            Errno::from_io_error(&error),
            Some(Errno::MFILE | Errno::NFILE)
        );
        return is_exhausted.then(|| format!("no file descriptor is left: {error}"));
    }
    None
}

/// Starts the watchdog thread if `DB_SOCKET_TIMEOUT` is set.
#[cfg(feature = "postgres")]
fn watch(config: &DatabaseConfig) -> Result<Option<Arc<Watchdog>>, DbError> {
    let is_server = matches!(config.url.target(), Target::Postgres(_));
    let is_limited = is_server && config.postgres.socket_timeout.is_some();
    let watch = is_limited.then(Watchdog::start).transpose();
    watch.map_err(|error| CallError::NoThread(error).into_error(config))
}

#[cfg(feature = "sqlite")]
fn next_memory_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // SQLite's `memdb` VFS shares a database by name among the connections of a process, and locks it like a file:
    // https://sqlite.org/src/file/src/memdb.c
    format!(
        "file:/db-service-{}?vfs=memdb",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Turns write-ahead logging on, so that readers do not wait for a writer. The file stores the setting. If several
/// processes do this at once, SQLite refuses all but one without waiting, so this function retries.
#[cfg(feature = "sqlite")]
fn write_ahead(
    connection: &mut Connection,
    patience: Duration,
) -> Result<(), diesel::result::Error> {
    let deadline = Instant::now() + patience;
    loop {
        match connection.run("PRAGMA journal_mode = WAL") {
            Err(diesel::result::Error::DatabaseError(_, information))
                if information.message().contains("locked") && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            // A file that cannot be written keeps its mode.
            Err(error) if meaning(&error) == Meaning::ReadOnly => return Ok(()),
            result => return result,
        }
    }
}
