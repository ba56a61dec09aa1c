//! The settings of each connection.

use std::time::Duration;

#[cfg(any(feature = "postgres", test))]
use super::postgres_url::PostgresUrl;
use super::variables::TimeRange;

/// The maximum of PostgreSQL's timeouts, which are milliseconds in 32 bits.
const MILLISECONDS: Duration = Duration::from_millis(i32::MAX as u64);

/// libpq before version 17 stores this timeout as milliseconds in 32 bits.
pub(crate) const CONNECT_TIMEOUT: TimeRange = TimeRange {
    variable: "DB_CONNECT_TIMEOUT",
    longest: Duration::from_secs(2_147_483),
    range: "between 1 and 2147483 seconds, or -1 for never",
};
/// The maximum of Linux.
pub(crate) const TCP_KEEPALIVE: TimeRange = TimeRange {
    variable: "DB_TCP_KEEPALIVE",
    longest: Duration::from_secs(32_767),
    range: "between 1 and 32767 seconds, or -1 for never",
};
pub(crate) const TCP_USER_TIMEOUT: TimeRange = in_milliseconds("DB_TCP_USER_TIMEOUT");
pub(crate) const STATEMENT_TIMEOUT: TimeRange = in_milliseconds("DB_STATEMENT_TIMEOUT");
pub(crate) const LOCK_TIMEOUT: TimeRange = in_milliseconds("DB_LOCK_TIMEOUT");
pub(crate) const IDLE_IN_TRANSACTION_TIMEOUT: TimeRange =
    in_milliseconds("DB_IDLE_IN_TRANSACTION_TIMEOUT");
/// Milliseconds in 32 bits.
pub(crate) const BUSY_TIMEOUT: TimeRange = TimeRange {
    variable: "DB_BUSY_TIMEOUT",
    longest: MILLISECONDS,
    range: "between 1 and 2147483 seconds",
};

const fn in_milliseconds(variable: &'static str) -> TimeRange {
    TimeRange {
        variable,
        longest: MILLISECONDS,
        range: "between 1 and 2147483 seconds, or -1 for never",
    }
}

/// When the session state of a returned connection is reset on PostgreSQL: role, settings, cursors, subscriptions,
/// advisory locks, temporary objects. On SQLite, a connection with another state than a new one is closed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetOnReturn {
    /// After a statement that may have changed the state, by its words.
    #[default]
    Auto,
    /// At each return. It also finds what triggers, views and defaults of the database have changed.
    Always,
}

impl ResetOnReturn {
    pub(crate) const NAMES: [(&'static str, ResetOnReturn); 2] = [
        ("auto", ResetOnReturn::Auto),
        ("always", ResetOnReturn::Always),
    ];
}

/// The effect of [`DatabaseService::run_migrations`](crate::DatabaseService::run_migrations).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Migrate {
    /// It applies the pending migrations.
    #[default]
    Apply,
    /// It changes nothing. If migrations are pending, it returns
    /// [`MigrationError::Pending`](crate::MigrationError::Pending).
    Check,
}

impl Migrate {
    pub(crate) const NAMES: [(&'static str, Migrate); 2] =
        [("apply", Migrate::Apply), ("check", Migrate::Check)];
}

/// The settings of connections to PostgreSQL.
///
/// A parameter of the URL overrides the setting here. Of two TLS modes, the stricter one is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresSettings {
    /// The timeout for connecting to each host of the URL, rounded up to whole seconds, or `None` for unlimited. libpq
    /// before version 17 takes at least 2 s (`DB_CONNECT_TIMEOUT`, 10 s).
    pub connect_timeout: Option<Duration>,
    /// The time without traffic after which TCP probes the connection, rounded up to whole seconds, or `None` for
    /// never. Three failed probes of 10 s close it (`DB_TCP_KEEPALIVE`, 30 s).
    pub tcp_keepalive: Option<Duration>,
    /// The maximum time that sent data may stay unacknowledged, or `None` for the system's timeout
    /// (`DB_TCP_USER_TIMEOUT`, 30 s).
    pub tcp_user_timeout: Option<Duration>,
    /// The maximum duration of a statement, or `None` for the server's own timeout (`DB_STATEMENT_TIMEOUT`, none).
    pub statement_timeout: Option<Duration>,
    /// The maximum time that a statement waits for a lock, or `None` for the server's own timeout (`DB_LOCK_TIMEOUT`,
    /// none).
    pub lock_timeout: Option<Duration>,
    /// The maximum idle time of a transaction, or `None` for the server's own timeout
    /// (`DB_IDLE_IN_TRANSACTION_TIMEOUT`, none).
    pub idle_in_transaction_timeout: Option<Duration>,
    /// The maximum time that the server may leave a statement unanswered, or `None` for unlimited. Then the connection
    /// is closed (`DB_SOCKET_TIMEOUT`, none). Linux only.
    ///
    /// The server enforces its own timeouts only while it runs. This one also works if the server is stopped or
    /// unreachable. Set it to more than the longest statement takes. The time that the caller's code takes in
    /// `for_each_row` and `bulk_insert` does not count. It does count in diesel's own `copy_from` and row-by-row
    /// loading. diesel's `copy_to` has no timeout.
    ///
    /// With this setting, connections go through a relay in the process on the loopback interface. This costs two
    /// threads and two sockets per connection, and time for each statement. An entry of a password file needs `*` for
    /// its port. Service files and `requirepeer` are refused.
    pub socket_timeout: Option<Duration>,
    /// The name that `pg_stat_activity` shows (`DB_APPLICATION_NAME`, libpq's own).
    pub application_name: Option<String>,
    /// The minimum TLS mode: a stricter mode in the URL is used instead (`DB_TLS_MODE`). Default:
    /// [`VerifyFull`](TlsMode::VerifyFull) with a root certificate here or in the URL, otherwise libpq's default, which
    /// is `PGSSLMODE` or `prefer`.
    pub tls_mode: Option<TlsMode>,
    /// The file with the certificates that verify the server's certificate (`DB_TLS_ROOT_CERTIFICATE`, libpq's own).
    pub tls_root_certificate: Option<String>,
}

/// The encryption of a connection to PostgreSQL: libpq's [`sslmode`]. Later modes are stricter than earlier ones.
///
/// Connections through a Unix socket are never encrypted.
///
/// [`sslmode`]: https://www.postgresql.org/docs/current/libpq-ssl.html
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server requires it.
    Allow,
    /// Encrypted if the server supports it.
    Prefer,
    /// Always encrypted. The server is not verified.
    Require,
    /// Always encrypted. A known authority must have signed the server's certificate.
    VerifyCa,
    /// Always encrypted. A known authority must have signed the server's certificate, and it must be for the URL's
    /// host.
    VerifyFull,
}

impl TlsMode {
    pub(crate) const NAMES: [(&'static str, TlsMode); 6] = [
        ("disable", TlsMode::Disable),
        ("allow", TlsMode::Allow),
        ("prefer", TlsMode::Prefer),
        ("require", TlsMode::Require),
        ("verify-ca", TlsMode::VerifyCa),
        ("verify-full", TlsMode::VerifyFull),
    ];

    #[cfg(any(feature = "postgres", test))]
    fn name(self) -> &'static str {
        let named = Self::NAMES.into_iter().find(|(_, mode)| *mode == self);
        named.map_or("", |(name, _)| name)
    }

    /// Returns the mode with libpq's name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.into_iter().find(|(known, _)| *known == name);
        named.map(|(_, mode)| mode)
    }
}

impl Default for PostgresSettings {
    fn default() -> Self {
        PostgresSettings {
            connect_timeout: Some(Duration::from_secs(10)),
            tcp_keepalive: Some(Duration::from_secs(30)),
            tcp_user_timeout: Some(Duration::from_secs(30)),
            statement_timeout: None,
            lock_timeout: None,
            idle_in_transaction_timeout: None,
            socket_timeout: None,
            application_name: None,
            tls_mode: None,
            tls_root_certificate: None,
        }
    }
}

impl PostgresSettings {
    /// Returns the URL for libpq, with the settings that apply while connecting.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn complete(&self, url: &PostgresUrl) -> String {
        let seconds = |time: Duration| whole_seconds(time).as_secs().to_string();
        let keepalive = match self.tcp_keepalive {
            Some(idle) => vec![
                ("keepalives_idle", seconds(idle)),
                ("keepalives_interval", "10".to_owned()),
                ("keepalives_count", "3".to_owned()),
            ],
            None => vec![("keepalives", "0".to_owned())],
        };
        let optional = [
            ("connect_timeout", self.connect_timeout.map(seconds)),
            ("tcp_user_timeout", self.tcp_user_timeout.map(milliseconds)),
            ("application_name", self.application_name.clone()),
        ];
        let root = Self::url_root_certificate(url).or(self.tls_root_certificate.as_deref());
        let tls = [
            ("sslmode", self.effective_tls_mode(url).map(TlsMode::name)),
            ("sslrootcert", root),
        ];
        let optional = optional
            .iter()
            .filter_map(|(name, value)| Some((*name, value.as_deref()?)))
            .chain(
                keepalive
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            )
            .filter(|(name, _)| url.parameter(name).is_none());
        // The URL's own TLS parameters are already considered here.
        let tls = tls
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        url.with_parameters(&optional.chain(tls).collect::<Vec<_>>())
    }

    /// Returns the stricter of the modes here and in the URL, or `None` to leave the mode to libpq. A root certificate
    /// without a mode means `verify-full`, because libpq's default would not verify the server.
    #[cfg(any(feature = "postgres", test))]
    fn effective_tls_mode(&self, url: &PostgresUrl) -> Option<TlsMode> {
        let in_url = url.parameter("sslmode").and_then(TlsMode::named);
        let has_root =
            self.tls_root_certificate.is_some() || Self::url_root_certificate(url).is_some();
        in_url
            .max(self.tls_mode)
            .or(has_root.then_some(TlsMode::VerifyFull))
    }

    /// Returns the root certificate. An empty name means libpq's default.
    #[cfg(any(feature = "postgres", test))]
    fn url_root_certificate(url: &PostgresUrl) -> Option<&str> {
        url.parameter("sslrootcert").filter(|root| !root.is_empty())
    }

    /// Returns the maximum time to open a connection to `url`: the timeout for each host, plus a second for the
    /// statements after the login. `None` means unlimited.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn opening_limit(&self, url: &PostgresUrl) -> Option<Duration> {
        let limit = match url.parameter("connect_timeout") {
            // libpq treats zero and negative numbers as unlimited.
            Some(seconds) => seconds.parse().ok().filter(|seconds| *seconds > 0),
            None => self
                .connect_timeout
                .map(|time| whole_seconds(time).as_secs()),
        };
        // libpq before version 17 waits for at least two seconds.
        let limit = Duration::from_secs(limit?.max(2));
        let hosts = u32::try_from(url.hosts().len()).ok()?;
        limit
            .checked_mul(hosts)?
            .checked_add(Duration::from_secs(1))
    }

    /// Checks the ranges of the timeouts, which code can set to any value.
    pub(crate) fn check(&self) -> [(bool, &'static str, &'static str); 6] {
        [
            CONNECT_TIMEOUT.check(self.connect_timeout),
            TCP_KEEPALIVE.check(self.tcp_keepalive),
            TCP_USER_TIMEOUT.check(self.tcp_user_timeout),
            STATEMENT_TIMEOUT.check(self.statement_timeout),
            LOCK_TIMEOUT.check(self.lock_timeout),
            IDLE_IN_TRANSACTION_TIMEOUT.check(self.idle_in_transaction_timeout),
        ]
    }

    /// Returns statements that set the timeouts, each beginning with `set`. PgBouncer refuses them as connection
    /// parameters.
    #[cfg(feature = "postgres")]
    pub(crate) fn limits(&self, set: &str) -> String {
        let limits = [
            ("statement_timeout", self.statement_timeout),
            ("lock_timeout", self.lock_timeout),
            (
                "idle_in_transaction_session_timeout",
                self.idle_in_transaction_timeout,
            ),
        ];
        limits
            .into_iter()
            .filter_map(|(name, limit)| Some((name, limit?)))
            .map(|(name, limit)| format!("{set} {name} = {};", milliseconds(limit)))
            .collect()
    }
}

/// Rounds up to seconds, because libpq treats zero as unlimited.
#[cfg(any(feature = "postgres", test))]
fn whole_seconds(time: Duration) -> Duration {
    let more = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs().saturating_add(more).max(1))
}

/// Rounds up to milliseconds, because PostgreSQL and Linux treat zero as unlimited, and SQLite does not wait then.
fn milliseconds(time: Duration) -> String {
    time.as_nanos().div_ceil(1_000_000).to_string()
}

/// The settings of connections to SQLite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteSettings {
    /// The maximum time that a statement waits for another connection's lock. Zero means no wait (`DB_BUSY_TIMEOUT`, 5
    /// s).
    pub busy_timeout: Duration,
    /// Whether a file uses write-ahead logging, so that readers and a writer do not wait for each other
    /// (`DB_SQLITE_WAL`, true).
    pub write_ahead: bool,
    /// Whether foreign keys are enforced (`DB_SQLITE_FOREIGN_KEYS`, true).
    pub foreign_keys: bool,
    /// When SQLite waits for the disk (`DB_SQLITE_SYNCHRONOUS`, full).
    pub synchronous: Synchronous,
    /// Whether a new file gets mode 0600 (Unix). Otherwise the umask decides. An existing file keeps its mode
    /// (`DB_SQLITE_PRIVATE`, false).
    pub private: bool,
}

/// When SQLite waits for the disk: its [`synchronous`] pragma.
///
/// [`synchronous`]: https://www.sqlite.org/pragma.html#pragma_synchronous
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// Never. A crash of the machine can damage the file.
    Off,
    /// At critical moments, and with write-ahead logging only at checkpoints. Then a crash of the machine can undo the
    /// last commits, but damages nothing.
    Normal,
    /// At each commit.
    Full,
    /// At each commit, and also for the directory.
    Extra,
}

impl Synchronous {
    pub(crate) const NAMES: [(&'static str, Synchronous); 4] = [
        ("off", Synchronous::Off),
        ("normal", Synchronous::Normal),
        ("full", Synchronous::Full),
        ("extra", Synchronous::Extra),
    ];
}

impl Default for SqliteSettings {
    fn default() -> Self {
        SqliteSettings {
            busy_timeout: Duration::from_secs(5),
            write_ahead: true,
            foreign_keys: true,
            synchronous: Synchronous::Full,
            private: false,
        }
    }
}

impl SqliteSettings {
    /// Returns the pragmas. The busy timeout comes first, because the others may have to wait for another process.
    #[cfg(feature = "sqlite")]
    pub(crate) fn statements(&self) -> String {
        format!(
            "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = {}; PRAGMA synchronous = {}",
            milliseconds(self.busy_timeout),
            i32::from(self.foreign_keys),
            self.synchronous as i32,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(rest: &str) -> PostgresUrl {
        PostgresUrl::parse(rest).unwrap()
    }

    /// Returns settings in which nothing is set.
    fn bare() -> PostgresSettings {
        PostgresSettings {
            connect_timeout: None,
            tcp_keepalive: None,
            tcp_user_timeout: None,
            ..PostgresSettings::default()
        }
    }

    #[test]
    fn url_parameters_override_settings() {
        let settings = PostgresSettings {
            application_name: Some("a&b=c".to_owned()),
            tls_mode: Some(TlsMode::VerifyFull),
            tcp_keepalive: None,
            tcp_user_timeout: None,
            ..PostgresSettings::default()
        };
        assert_eq!(
            settings.complete(&url("h/d")),
            "postgresql:///?host=h&dbname=d&connect_timeout=10&application_name=a%26b%3Dc&keepalives=0&sslmode=verify%2Dfull"
        );
        assert_eq!(
            settings.complete(&url("h/d?applicati%6Fn_name=x&connect_timeout=3")),
            "postgresql:///?host=h&dbname=d&application_name=x&connect_timeout=3&keepalives=0&sslmode=verify%2Dfull"
        );
    }

    #[test]
    fn stricter_of_two_tls_modes_is_used() {
        use TlsMode::{Allow, Disable, Prefer, Require, VerifyCa, VerifyFull};
        for (query, set, root, mode) in [
            ("", None, None, None),
            ("", Some(Disable), None, Some(Disable)),
            ("ssl=true", Some(Disable), None, Some(Require)),
            ("requiressl=1", Some(Allow), None, Some(Require)),
            (
                "sslm%6fde=verify-full",
                Some(Prefer),
                None,
                Some(VerifyFull),
            ),
            ("sslmode=disable", Some(Require), None, Some(Require)),
            ("sslmode=disable", None, None, Some(Disable)),
            ("", None, Some("/root.crt"), Some(VerifyFull)),
            ("sslrootcert=/root.crt", None, None, Some(VerifyFull)),
            ("sslrootcert=", None, None, None),
            ("sslrootcert=", None, Some("/root.crt"), Some(VerifyFull)),
            ("sslmode=prefer", None, Some("/root.crt"), Some(Prefer)),
            (
                "sslrootcert=/root.crt",
                Some(VerifyCa),
                None,
                Some(VerifyCa),
            ),
        ] {
            let settings = PostgresSettings {
                tls_mode: set,
                tls_root_certificate: root.map(ToOwned::to_owned),
                ..bare()
            };
            let complete = settings.complete(&url(&format!("h/d?{query}")));
            let read = url(complete.strip_prefix("postgresql://").unwrap());
            let read = read
                .parameter("sslmode")
                .map(|mode| TlsMode::named(mode).unwrap());
            assert_eq!(read, mode, "{query} {set:?} {root:?}");
            if root.is_some() {
                assert!(complete.contains("sslrootcert=%2Froot%2Ecrt"), "{complete}");
            }
        }
    }

    #[test]
    fn times_are_rounded_up_to_the_supported_unit() {
        let settings = PostgresSettings {
            connect_timeout: Some(Duration::from_millis(1)),
            tcp_keepalive: Some(Duration::from_millis(1500)),
            tcp_user_timeout: Some(Duration::from_micros(1)),
            ..PostgresSettings::default()
        };
        let complete = settings.complete(&url("h"));
        for part in [
            "connect_timeout=1&",
            "keepalives_idle=2&",
            "tcp_user_timeout=1&",
        ] {
            assert!(complete.contains(part), "{complete}");
        }
        assert_eq!(milliseconds(Duration::from_micros(1001)), "2");
        assert_eq!(milliseconds(Duration::MAX), "18446744073709551616000");
    }

    #[test]
    fn connect_timeout_covers_all_hosts_of_the_url() {
        let limit = |rest: &str| PostgresSettings::default().opening_limit(&url(rest));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(limit("u:a,b@h/d"), seconds(11));
        assert_eq!(limit("u:a,b@h,k/d?options=a,b,c"), seconds(21));
        assert_eq!(limit("/d?host=a,b,c"), seconds(31));
        assert_eq!(limit("h/d?hostaddr=1.2.3.4&connect_timeout=3"), seconds(4));
        assert_eq!(limit("h/d?c%6Fnnect_timeout=1"), seconds(3));
        assert_eq!(limit("h/d?connect_timeout=0"), None);
        assert_eq!(limit("h/d?connect_timeout=-1"), None);
        assert_eq!(bare().opening_limit(&url("h")), None);
    }
}
