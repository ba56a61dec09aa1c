//! The settings of the database service.

mod environment;
mod error;
mod libpq_parameters;
mod misspelt;
mod postgres_url;
mod replicas;
mod settings;
mod url;
mod variables;

pub use error::{ConfigError, ConfigFault};
#[cfg(feature = "postgres")]
pub(crate) use postgres_url::{Host, PostgresUrl};
pub use replicas::ReplicaSettings;
pub use settings::{
    Migrate, PostgresSettings, ResetOnReturn, SqliteSettings, Synchronous, TlsMode,
};
pub(crate) use url::Target;
pub use url::{DatabaseUrl, UrlError};

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use singleton_core::{Error, Service, env, guarded, service};

use variables::NotUnicode;

/// The settings of the database service.
///
/// Each field names its environment variable and its default.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use db_service::DatabaseConfig;
///
/// let mut config = DatabaseConfig::new("sqlite::memory:".parse()?);
/// config.pool_timeout = Duration::from_secs(1);
/// assert_eq!(config.pool_size, 5);
/// # Ok::<(), db_service::UrlError>(())
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DatabaseConfig {
    /// The database (`DATABASE_URL`).
    pub url: DatabaseUrl,
    /// The maximum number of idle connections (`DB_POOL_SIZE`, 5).
    pub pool_size: u32,
    /// The maximum number of open connections beyond `pool_size` (`DB_MAX_OVERFLOW`, 10).
    pub max_overflow: u32,
    /// The number of idle connections that the pool keeps open in advance, at most `pool_size` (`DB_MIN_IDLE`, 0).
    pub min_idle: u32,
    /// The maximum time that a caller waits for a connection (`DB_POOL_TIMEOUT`, 30 s).
    pub pool_timeout: Duration,
    /// The time during which the start tries the first connection again while there is no server, or while it is
    /// starting up, shutting down or full. The last attempt may end later. Other errors, such as a wrong password, fail
    /// at once, and a shutdown ends the wait (`DB_START_TIMEOUT`, 0 s).
    pub start_timeout: Duration,
    /// The maximum time that a shutdown waits for connections in use (`DB_DRAIN_TIMEOUT`, 5 s).
    pub drain_timeout: Duration,
    /// The maximum lifetime of a connection, or `None` for unlimited (`DB_POOL_RECYCLE`, 3600 s).
    pub pool_recycle: Option<Duration>,
    /// Whether statements are logged without their parameters (`DB_ECHO_SQL`, false).
    pub echo_sql: bool,
    /// Whether statements are logged with their parameters, secrets included (`DB_ECHO_PARAMETERS`, false).
    pub echo_parameters: bool,
    /// The duration from which a statement is logged as slow, or `None` for never (`DB_SLOW_QUERY_MS`, 1000 ms).
    pub slow_query_threshold: Option<Duration>,
    /// The time from which a checkout is logged as a possible leak, or `None` for never (`DB_LEAK_THRESHOLD`, never).
    pub leak_threshold: Option<Duration>,
    /// The approximate number of prepared statements per connection. 0 disables the cache, as PgBouncer before 1.21
    /// needs in transaction mode (`DB_STATEMENT_CACHE_SIZE`, 512).
    pub statement_cache_size: u32,
    /// When the session state of a returned connection is reset (`DB_RESET_ON_RETURN`, `auto`).
    pub reset_on_return: ResetOnReturn,
    /// Whether `run_migrations` applies pending migrations or only checks that there are none (`DB_MIGRATE`, `apply`).
    pub migrate: Migrate,
    /// Settings of connections to PostgreSQL.
    pub postgres: PostgresSettings,
    /// Settings of connections to SQLite.
    pub sqlite: SqliteSettings,
    /// The standbys to read from.
    pub replicas: ReplicaSettings,
}

impl DatabaseConfig {
    /// Creates settings with the defaults.
    pub fn new(url: DatabaseUrl) -> Self {
        DatabaseConfig {
            url,
            pool_size: 5,
            max_overflow: 10,
            min_idle: 0,
            pool_timeout: Duration::from_secs(30),
            start_timeout: Duration::ZERO,
            drain_timeout: Duration::from_secs(5),
            pool_recycle: Some(Duration::from_secs(3600)),
            echo_sql: false,
            echo_parameters: false,
            slow_query_threshold: Some(Duration::from_secs(1)),
            leak_threshold: None,
            statement_cache_size: 512,
            reset_on_return: ResetOnReturn::Auto,
            migrate: Migrate::Apply,
            postgres: PostgresSettings::default(),
            sqlite: SqliteSettings::default(),
            replicas: ReplicaSettings::default(),
        }
    }

    /// Checks the ranges of the fields, which code can set to any value.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let in_time = |time: Duration| !time.is_zero();
        let faults = [
            (
                (1..=100).contains(&self.pool_size),
                "DB_POOL_SIZE",
                "between 1 and 100",
            ),
            (
                self.max_overflow <= 100,
                "DB_MAX_OVERFLOW",
                "between 0 and 100",
            ),
            (
                self.min_idle <= self.pool_size,
                "DB_MIN_IDLE",
                "between 0 and DB_POOL_SIZE",
            ),
            (in_time(self.pool_timeout), "DB_POOL_TIMEOUT", "more than 0"),
            (
                in_time(self.drain_timeout),
                "DB_DRAIN_TIMEOUT",
                "more than 0",
            ),
            (
                self.pool_recycle.is_none_or(in_time),
                "DB_POOL_RECYCLE",
                "more than 0, or -1 for never",
            ),
            (
                self.slow_query_threshold.is_none_or(in_time),
                "DB_SLOW_QUERY_MS",
                "more than 0, or -1 for never",
            ),
            (
                self.leak_threshold.is_none_or(in_time),
                "DB_LEAK_THRESHOLD",
                "more than 0, or -1 for never",
            ),
            (
                self.statement_cache_size <= 100_000,
                "DB_STATEMENT_CACHE_SIZE",
                "between 0 and 100000",
            ),
            (
                self.postgres.socket_timeout.is_none_or(in_time),
                "DB_SOCKET_TIMEOUT",
                "more than 0, or -1 for never",
            ),
            (
                self.replicas.max_lag.is_none_or(in_time),
                "DB_REPLICA_MAX_LAG",
                "more than 0, or -1 for never",
            ),
            (
                self.replicas.support(self.url.backend()),
                "DB_REPLICA_URLS",
                "URLs of PostgreSQL, as DATABASE_URL then is",
            ),
        ];
        // The field may be zero, so that statements do not wait. The variable may not.
        let busy_timeout = Some(self.sqlite.busy_timeout).filter(|timeout| !timeout.is_zero());
        let times = self.postgres.check().into_iter();
        let times = times.chain([settings::BUSY_TIMEOUT.check(busy_timeout)]);
        ConfigError::of_ranges(faults.into_iter().chain(times))
    }

    /// Reads the settings from the environment variables.
    ///
    /// Logs a variable that begins with `DB_` or `DATABASE_` if it is not a setting, but resembles one, such as
    /// `DB_POLL_SIZE`. The record contains no value.
    ///
    /// # Errors
    ///
    /// Returns [`ConfigError`] with all invalid variables.
    pub fn from_env() -> Result<Self, ConfigError> {
        let known = RefCell::new(Vec::new());
        let config = environment::read(|name| {
            known.borrow_mut().push(name);
            match env::var(name) {
                Ok(value) => Some(Ok(value)),
                Err(env::VarError::NotPresent) => None,
                Err(env::VarError::NotUnicode(_)) => Some(Err(NotUnicode)),
            }
        });
        misspelt::warn(env::names(), &known.into_inner(), |name| {
            env::var_os(name).is_some_and(|value| !value.is_empty())
        });
        config
    }
}

/// The service that holds the settings. [`DatabaseService`](crate::DatabaseService) requires it.
#[service]
pub struct ConfigService {
    config: DatabaseConfig,
}

impl Service for ConfigService {
    fn initialize() -> anyhow::Result<Self> {
        Ok(ConfigService {
            config: DatabaseConfig::from_env()?,
        })
    }
}

impl ConfigService {
    /// Creates a service with these settings, for `ConfigService::provide` or a
    /// [`Scope`](singleton_core::testing::Scope).
    pub fn new(config: DatabaseConfig) -> Self {
        ConfigService { config }
    }

    /// Returns the settings.
    ///
    /// # Errors
    ///
    /// Returns an error if an environment variable is invalid. Its cause is a [`ConfigError`].
    #[guarded]
    pub fn get_config(&self) -> Result<&DatabaseConfig, Error> {
        Ok(&self.config)
    }
}

impl fmt::Debug for ConfigService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConfigService")
            .field("config", &self.config)
            .finish()
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    fn thresholds(
        slow_query: &str,
        leak: &str,
    ) -> Result<(Option<Duration>, Option<Duration>), String> {
        environment::read(|name| match name {
            "DATABASE_URL" => Some(Ok("sqlite::memory:".to_owned())),
            "DB_SLOW_QUERY_MS" => Some(Ok(slow_query.to_owned())),
            "DB_LEAK_THRESHOLD" => Some(Ok(leak.to_owned())),
            _ => None,
        })
        .map(|config| (config.slow_query_threshold, config.leak_threshold))
        .map_err(|error| error.to_string())
    }

    #[test]
    fn thresholds_have_defaults_units_and_an_off_switch() {
        let (milliseconds, seconds) = (Duration::from_millis, Duration::from_secs);
        assert_eq!(thresholds("", ""), Ok((Some(milliseconds(1000)), None)));
        assert_eq!(
            thresholds("250", "60"),
            Ok((Some(milliseconds(250)), Some(seconds(60))))
        );
        assert_eq!(thresholds("-1", "-1"), Ok((None, None)));
    }

    #[test]
    fn zero_threshold_is_refused_from_the_environment_and_from_code() {
        let text = "DB_SLOW_QUERY_MS must be more than 0, or -1 for never; \
                    DB_LEAK_THRESHOLD must be more than 0, or -1 for never";
        assert_eq!(thresholds("0", "0").unwrap_err(), text);
        let mut config = DatabaseConfig::new("sqlite::memory:".parse().unwrap());
        assert_eq!(config.check(), Ok(()));
        config.slow_query_threshold = Some(Duration::ZERO);
        config.leak_threshold = Some(Duration::ZERO);
        assert_eq!(config.check().unwrap_err().to_string(), text);
    }
}
