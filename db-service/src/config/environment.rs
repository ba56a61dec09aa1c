//! Reads the settings from environment variables, and reports all invalid ones.

use std::time::Duration;

use super::DatabaseConfig;
use super::error::ConfigError;
use super::replicas::ReplicaSettings;
use super::settings::{
    self, Migrate, PostgresSettings, ResetOnReturn, SqliteSettings, Synchronous, TlsMode,
};
use super::variables::{NotUnicode, Variables};

/// Reads the settings from the variables that `lookup` returns.
pub(crate) fn read(
    lookup: impl Fn(&'static str) -> Option<Result<String, NotUnicode>>,
) -> Result<DatabaseConfig, ConfigError> {
    let mut variables = Variables {
        lookup,
        faults: Vec::new(),
    };
    let url = variables.url();
    let pool_size = variables.count("DB_POOL_SIZE", 5, 1);
    let max_overflow = variables.count("DB_MAX_OVERFLOW", 10, 0);
    let min_idle = variables.count("DB_MIN_IDLE", 0, 0);
    let pool_timeout = variables.seconds("DB_POOL_TIMEOUT", 30, false);
    let start_timeout = variables.within(
        "DB_START_TIMEOUT",
        0,
        0..=86_400,
        "between 0 and 86400 seconds",
    );
    let drain_timeout = variables.seconds("DB_DRAIN_TIMEOUT", 5, false);
    let pool_recycle = variables.seconds("DB_POOL_RECYCLE", 3600, true);
    let echo_sql = variables.switch("DB_ECHO_SQL");
    let echo_parameters = variables.switch("DB_ECHO_PARAMETERS");
    let slow_query_threshold = variables.milliseconds("DB_SLOW_QUERY_MS", 1000);
    let leak_threshold = variables.seconds("DB_LEAK_THRESHOLD", -1, true);
    let statement_cache_size = variables.within(
        "DB_STATEMENT_CACHE_SIZE",
        512,
        0..=100_000,
        "between 0 and 100000",
    );
    let reset_on_return = variables.choice(
        "DB_RESET_ON_RETURN",
        &ResetOnReturn::NAMES,
        "auto or always",
    );
    let migrate = variables.choice("DB_MIGRATE", &Migrate::NAMES, "apply or check");
    let postgres = PostgresSettings {
        connect_timeout: variables.bounded_seconds(&settings::CONNECT_TIMEOUT, 10),
        tcp_keepalive: variables.bounded_seconds(&settings::TCP_KEEPALIVE, 30),
        tcp_user_timeout: variables.bounded_seconds(&settings::TCP_USER_TIMEOUT, 30),
        statement_timeout: variables.bounded_seconds(&settings::STATEMENT_TIMEOUT, -1),
        lock_timeout: variables.bounded_seconds(&settings::LOCK_TIMEOUT, -1),
        socket_timeout: variables.seconds("DB_SOCKET_TIMEOUT", -1, true),
        idle_in_transaction_timeout: variables
            .bounded_seconds(&settings::IDLE_IN_TRANSACTION_TIMEOUT, -1),
        application_name: variables.text("DB_APPLICATION_NAME"),
        tls_mode: variables.choice(
            "DB_TLS_MODE",
            &TlsMode::NAMES,
            "disable, allow, prefer, require, verify-ca or verify-full",
        ),
        tls_root_certificate: variables.text("DB_TLS_ROOT_CERTIFICATE"),
    };
    let defaults = SqliteSettings::default();
    let sqlite = SqliteSettings {
        busy_timeout: variables.finite_seconds(&settings::BUSY_TIMEOUT, 5),
        write_ahead: variables
            .flag("DB_SQLITE_WAL")
            .unwrap_or(defaults.write_ahead),
        foreign_keys: variables
            .flag("DB_SQLITE_FOREIGN_KEYS")
            .unwrap_or(defaults.foreign_keys),
        synchronous: variables
            .choice(
                "DB_SQLITE_SYNCHRONOUS",
                &Synchronous::NAMES,
                "off, normal, full or extra",
            )
            .unwrap_or(defaults.synchronous),
        private: variables
            .flag("DB_SQLITE_PRIVATE")
            .unwrap_or(defaults.private),
    };
    let replicas = ReplicaSettings::read(&mut variables);
    match url {
        Some(url) if variables.faults.is_empty() => Ok(DatabaseConfig {
            pool_size,
            max_overflow,
            min_idle,
            pool_timeout: pool_timeout.unwrap_or_default(),
            start_timeout: Duration::from_secs(start_timeout.into()),
            drain_timeout: drain_timeout.unwrap_or_default(),
            pool_recycle,
            echo_sql,
            echo_parameters,
            slow_query_threshold,
            leak_threshold,
            statement_cache_size,
            reset_on_return: reset_on_return.unwrap_or_default(),
            migrate: migrate.unwrap_or_default(),
            postgres,
            sqlite,
            replicas,
            ..DatabaseConfig::new(url)
        }),
        _ => Err(ConfigError {
            faults: variables.faults,
        }),
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<DatabaseConfig, String> {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| Ok((*value).to_owned()))
        };
        super::read(lookup).map_err(|error| error.to_string())
    }

    const URL: (&str, &str) = ("DATABASE_URL", "sqlite::memory:");

    #[test]
    fn unset_variables_have_documented_defaults() {
        let config = read(&[URL, ("DB_POOL_SIZE", " ")]).unwrap();
        assert_eq!((config.pool_size, config.max_overflow), (5, 10));
        assert_eq!(
            (config.pool_timeout, config.pool_recycle),
            (Duration::from_secs(30), Some(Duration::from_secs(3600)))
        );
        assert!(!config.echo_sql);
    }

    #[test]
    fn every_variable_is_read() {
        let config = read(&[
            URL,
            ("DB_POOL_SIZE", "100"),
            ("DB_MAX_OVERFLOW", "0"),
            ("DB_MIN_IDLE", "4"),
            ("DB_POOL_TIMEOUT", " 1 "),
            ("DB_START_TIMEOUT", "60"),
            ("DB_POOL_RECYCLE", "-1"),
            ("DB_ECHO_SQL", "TruE"),
            ("DB_STATEMENT_CACHE_SIZE", "0"),
            ("DB_RESET_ON_RETURN", "Always"),
            ("DB_MIGRATE", "check"),
            ("DB_CONNECT_TIMEOUT", "-1"),
            ("DB_TCP_KEEPALIVE", "7"),
            ("DB_TCP_USER_TIMEOUT", "8"),
            ("DB_STATEMENT_TIMEOUT", "1"),
            ("DB_LOCK_TIMEOUT", "2"),
            ("DB_IDLE_IN_TRANSACTION_TIMEOUT", "3"),
            ("DB_SOCKET_TIMEOUT", "4"),
            ("DB_APPLICATION_NAME", "shop"),
            ("DB_TLS_MODE", "Verify-Full"),
            ("DB_TLS_ROOT_CERTIFICATE", "/root.crt"),
            ("DB_BUSY_TIMEOUT", "9"),
            ("DB_SQLITE_WAL", "false"),
            ("DB_SQLITE_FOREIGN_KEYS", "FALSE"),
            ("DB_SQLITE_SYNCHRONOUS", "normal"),
            ("DB_SQLITE_PRIVATE", "true"),
        ])
        .unwrap();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(config.statement_cache_size, 0);
        assert_eq!(config.reset_on_return, ResetOnReturn::Always);
        assert_eq!(config.migrate, Migrate::Check);
        assert_eq!(
            config.postgres,
            PostgresSettings {
                connect_timeout: None,
                tcp_keepalive: seconds(7),
                tcp_user_timeout: seconds(8),
                statement_timeout: seconds(1),
                lock_timeout: seconds(2),
                idle_in_transaction_timeout: seconds(3),
                socket_timeout: seconds(4),
                application_name: Some("shop".to_owned()),
                tls_mode: Some(TlsMode::VerifyFull),
                tls_root_certificate: Some("/root.crt".to_owned()),
            }
        );
        assert_eq!(
            config.sqlite,
            SqliteSettings {
                busy_timeout: Duration::from_secs(9),
                write_ahead: false,
                foreign_keys: false,
                synchronous: Synchronous::Normal,
                private: true,
            }
        );
        assert_eq!(
            (config.pool_size, config.max_overflow, config.min_idle),
            (100, 0, 4)
        );
        assert_eq!(
            (config.pool_timeout, config.pool_recycle),
            (Duration::from_secs(1), None)
        );
        assert_eq!(config.start_timeout, Duration::from_secs(60));
        assert!(config.echo_sql);
        assert!(
            read(&[URL, ("DB_POOL_TIMEOUT", "9223372036854775807")]).is_ok(),
            "no overflow"
        );
    }

    #[test]
    fn white_space_around_a_value_does_not_count() {
        let config = read(&[
            ("DATABASE_URL", "\nsqlite:///data.db\r\n"),
            ("DB_POOL_SIZE", "7\n"),
            ("DB_ECHO_SQL", "true\n"),
            ("DB_TLS_MODE", "require\r\n"),
            ("DB_APPLICATION_NAME", " a shop\n"),
            ("DB_TLS_ROOT_CERTIFICATE", "/root.crt\n"),
        ])
        .unwrap();
        assert_eq!(config.url.to_string(), "sqlite:///data.db");
        assert!(config.pool_size == 7 && config.echo_sql);
        assert_eq!(config.postgres.tls_mode, Some(TlsMode::Require));
        assert_eq!(config.postgres.application_name.as_deref(), Some("a shop"));
        let root = config.postgres.tls_root_certificate.as_deref();
        assert_eq!(root, Some("/root.crt"));
    }

    #[test]
    fn each_invalid_value_has_its_own_message() {
        for (variable, value, text) in [
            (
                "DB_POOL_SIZE",
                "0",
                "DB_POOL_SIZE must be between 1 and 100",
            ),
            (
                "DB_POOL_SIZE",
                "101",
                "DB_POOL_SIZE must be between 1 and 100",
            ),
            (
                "DB_MAX_OVERFLOW",
                "101",
                "DB_MAX_OVERFLOW must be between 0 and 100",
            ),
            (
                "DB_POOL_TIMEOUT",
                "0",
                "DB_POOL_TIMEOUT must be more than 0",
            ),
            (
                "DB_POOL_TIMEOUT",
                "-1",
                "DB_POOL_TIMEOUT must be more than 0",
            ),
            (
                "DB_START_TIMEOUT",
                "-1",
                "DB_START_TIMEOUT must be between 0 and 86400 seconds",
            ),
            (
                "DB_POOL_RECYCLE",
                "0",
                "DB_POOL_RECYCLE must be more than 0, or -1 for never",
            ),
            (
                "DB_POOL_RECYCLE",
                "-2",
                "DB_POOL_RECYCLE must be more than 0, or -1 for never",
            ),
            (
                "DB_TLS_MODE",
                "yes",
                "DB_TLS_MODE must be disable, allow, prefer, require, verify-ca or verify-full",
            ),
            ("DB_SQLITE_WAL", "1", "DB_SQLITE_WAL must be true or false"),
            ("DB_MIGRATE", "dry", "DB_MIGRATE must be apply or check"),
            (
                "DB_STATEMENT_CACHE_SIZE",
                "-1",
                "DB_STATEMENT_CACHE_SIZE must be between 0 and 100000",
            ),
            (
                "DB_POOL_SIZE",
                "5.5",
                "Invalid database configuration: DB_POOL_SIZE: \"5.5\" is not a whole number",
            ),
            (
                "DB_POOL_SIZE",
                "postgresql://u:secret@h",
                "Invalid database configuration: DB_POOL_SIZE: \"***\" is not a whole number",
            ),
            (
                "DB_POOL_SIZE",
                "99999999999999999999",
                "Invalid database configuration: DB_POOL_SIZE: \"99999999999999999999\" is not a whole number",
            ),
        ] {
            assert_eq!(read(&[URL, (variable, value)]).unwrap_err(), text);
        }
    }

    #[test]
    fn all_invalid_variables_are_reported_together() {
        let error = read(&[("DB_POOL_SIZE", "many"), ("DB_MAX_OVERFLOW", "-1")]).unwrap_err();
        assert_eq!(
            error,
            "DATABASE_URL environment variable is required. Example: postgresql://user:password@localhost/dbname; \
             Invalid database configuration: DB_POOL_SIZE: \"many\" is not a whole number; \
             DB_MAX_OVERFLOW must be between 0 and 100"
        );
        assert!(
            read(&[("DATABASE_URL", "")])
                .unwrap_err()
                .starts_with("DATABASE_URL environment variable is required. ")
        );
        let not_unicode = super::read(|_| Some(Err(NotUnicode))).unwrap_err();
        assert_eq!(not_unicode.faults().len(), 32, "each variable has its own");
    }
}
