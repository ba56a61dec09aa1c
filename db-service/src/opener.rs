//! Opens connections.

use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(feature = "sqlite")]
use std::time::{Duration, Instant};

use diesel::connection::{CacheSize, Connection as _};

use crate::config::DatabaseConfig;
use crate::error::DbError;
use crate::manager::CLEANING;
use crate::multi::DbConnection as Connection;
use crate::observer::Observer;
#[cfg(feature = "postgres")]
use crate::socket::{self, Search};
use crate::statistics::Statistics;
use crate::url::Target;
#[cfg(feature = "postgres")]
use crate::watch::{Watch, Watched};

/// Opens connections as the settings say.
pub(crate) struct Opener {
    config: DatabaseConfig,
    statistics: Arc<Statistics>,
    /// The name that all connections share a database in memory by, if it is one.
    #[cfg(feature = "sqlite")]
    memory: String,
    #[cfg(feature = "postgres")]
    watch: Option<Arc<Watch>>,
}

impl Opener {
    pub(crate) fn new(
        config: &DatabaseConfig,
        statistics: Arc<Statistics>,
    ) -> Result<Self, DbError> {
        Ok(Opener {
            config: config.clone(),
            statistics,
            #[cfg(feature = "sqlite")]
            memory: next_memory_name(),
            #[cfg(feature = "postgres")]
            watch: watch(config)?,
        })
    }

    /// Opens the first connection, through which a file is set up as well.
    pub(crate) fn open_first(&self) -> Result<Connection, DbError> {
        #[cfg_attr(not(feature = "sqlite"), allow(unused_mut))]
        let mut first = self.open()?;
        #[cfg(feature = "sqlite")]
        if self.config.sqlite.write_ahead
            && matches!(self.config.url.target(), Target::SqliteFile(_))
        {
            write_ahead(&mut first, self.config.sqlite.busy_timeout)?;
        }
        Ok(first)
    }

    /// Opens a connection, observed from its first statement on.
    pub(crate) fn open(&self) -> Result<Connection, DbError> {
        let failed = |source| DbError::Connect {
            target: self.config.url.to_string(),
            source: self.config.url.redacted(source),
        };
        let observer = Observer::new(
            self.config.url.backend(),
            &self.config,
            Arc::clone(&self.statistics),
        );
        let (mut connection, observer, statements) = match self.config.url.target() {
            #[cfg(feature = "postgres")]
            Target::Postgres(url) => {
                let settings = &self.config.postgres;
                let _turn = socket::turn(&url.to_string());
                let search = Arc::new(Search::begin(settings.tcp_user_timeout));
                let limit = settings.opening_limit(url);
                let watch = self.watch.as_ref().zip(limit);
                let opening = watch.map(|(watch, limit)| (watch.opening(&search, limit), limit));
                let url = settings.complete(url, search.user_timeout());
                let established = diesel::PgConnection::establish(&url);
                let is_late = opening.and_then(|(opening, limit)| opening.end().then_some(limit));
                let connection = established.map_err(|source| {
                    failed(match is_late {
                        Some(limit) => diesel::ConnectionError::BadConnection(format!(
                            "the server did not answer within {limit:?}"
                        )),
                        None => source,
                    })
                })?;
                let watched = match (&self.watch, search.find()) {
                    (Some(watch), Some(socket)) => Some(Watched::new(Arc::clone(watch), socket)),
                    _ => {
                        log::debug!(
                            "a connection has a socket that is not known: its server can make callers wait"
                        );
                        None
                    }
                };
                let connection = Connection::Postgres(connection);
                // Without a cache the session may be another with each transaction, and each has its limits set.
                let limits = match self.config.statement_cache_size {
                    0 => String::new(),
                    _ => settings.limits("SET"),
                };
                (connection, observer.watched(watched), limits)
            }
            #[cfg(feature = "sqlite")]
            Target::SqliteFile(path) => {
                // Without a prefix SQLite would take some names for something else, such as `file:…`.
                let path = if path.starts_with('/') {
                    path.clone()
                } else {
                    format!("./{path}")
                };
                let connection = diesel::SqliteConnection::establish(&path).map_err(failed)?;
                let connection = Connection::Sqlite(connection);
                (connection, observer, self.config.sqlite.statements())
            }
            #[cfg(feature = "sqlite")]
            Target::SqliteMemory => {
                let connection =
                    diesel::SqliteConnection::establish(&self.memory).map_err(failed)?;
                let connection = Connection::Sqlite(connection);
                (connection, observer, self.config.sqlite.statements())
            }
            // `DatabaseUrl` refuses what is not compiled in.
            #[allow(
                unreachable_patterns,
                reason = "both backends are compiled in, or one is not"
            )]
            _ => {
                return Err(failed(diesel::ConnectionError::InvalidConnectionUrl(
                    "this backend is not compiled in".to_owned(),
                )));
            }
        };
        connection.set_instrumentation(observer);
        if self.config.statement_cache_size == 0 {
            connection.set_prepared_statement_cache_size(CacheSize::Disabled);
        }
        if !statements.is_empty() {
            connection
                .within(CLEANING, |connection| connection.run(&statements))
                .map_err(|source| {
                    failed(diesel::ConnectionError::CouldntSetupConfiguration(source))
                })?;
        }
        Ok(connection)
    }
}

/// SQLite does not wait for a server.
#[cfg(feature = "postgres")]
fn watch(config: &DatabaseConfig) -> Result<Option<Arc<Watch>>, DbError> {
    let is_server = matches!(config.url.target(), Target::Postgres(_));
    let watch = is_server.then(Watch::start).transpose();
    watch.map_err(|error| DbError::Connect {
        target: config.url.to_string(),
        source: diesel::ConnectionError::BadConnection(format!(
            "no thread could be started: {error}"
        )),
    })
}

#[cfg(feature = "sqlite")]
fn next_memory_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // The `memdb` file system shares a database among the connections of a process by its name,
    // with the locking of a file: https://sqlite.org/src/file/src/memdb.c
    format!(
        "file:/db-service-{}?vfs=memdb",
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Lets readers go on while somebody writes; the file remembers it. Of several processes that are about
/// to do so SQLite refuses all but one, without waiting.
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
            result => return result,
        }
    }
}
