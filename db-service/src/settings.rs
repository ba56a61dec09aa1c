//! What is set on each connection, apart from where it leads.

#[cfg(any(feature = "postgres", test))]
use std::fmt::Write;
use std::time::Duration;

#[cfg(any(feature = "postgres", test))]
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// What is set on each connection to PostgreSQL; what stands in the URL comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresSettings {
    /// How long connecting to each host of the URL may take, one after the other, in whole seconds and at least 2;
    /// `None` for as long as it takes (`DB_CONNECT_TIMEOUT`, 10 s).
    pub connect_timeout: Option<Duration>,
    /// After how long a silent connection is probed; three probes of 10 s that fail end it; `None` for
    /// never (`DB_TCP_KEEPALIVE`, 30 s).
    pub tcp_keepalive: Option<Duration>,
    /// How long what was sent may stay unacknowledged; `None` for the system's limit (`DB_TCP_USER_TIMEOUT`, 30 s).
    pub tcp_user_timeout: Option<Duration>,
    /// How long a statement may take; `None` for the server's own limit (`DB_STATEMENT_TIMEOUT`, none).
    pub statement_timeout: Option<Duration>,
    /// How long a statement waits for a lock; likewise (`DB_LOCK_TIMEOUT`, none).
    pub lock_timeout: Option<Duration>,
    /// How long a transaction may do nothing; likewise (`DB_IDLE_IN_TRANSACTION_TIMEOUT`, none).
    pub idle_in_transaction_timeout: Option<Duration>,
    /// How long the server may leave a statement unanswered before the connection is closed; `None` for as long as it takes
    /// (`DB_SOCKET_TIMEOUT`, none). The server keeps its own limits only as long as it runs: this one holds against a
    /// server that was stopped or is out of reach. It should be longer than the longest statement; what rows are used for in
    /// `for_each_row`, and made by in `bulk_insert`, does not count, while with diesel's own `copy_from` and row-by-row loading
    /// it does, and reading from its `copy_to` has no limit. On Linux only.
    pub socket_timeout: Option<Duration>,
    /// What the server shows in `pg_stat_activity` (`DB_APPLICATION_NAME`, libpq's own).
    pub application_name: Option<String>,
    /// How the connection is encrypted (`DB_TLS_MODE`, libpq's own: `prefer`).
    pub tls_mode: Option<TlsMode>,
    /// The file with the certificates that the server's is checked against (`DB_TLS_ROOT_CERTIFICATE`, libpq's own).
    pub tls_root_certificate: Option<String>,
}

/// How a connection to PostgreSQL is encrypted, as libpq's [`sslmode`] says.
///
/// [`sslmode`]: https://www.postgresql.org/docs/current/libpq-ssl.html
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// If the server insists.
    Allow,
    /// If the server can.
    Prefer,
    /// Always, whoever the server is.
    Require,
    /// Always, with a server whose certificate is known.
    VerifyCa,
    /// Always, with a server whose certificate is known and made out to its host.
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
    /// The URL with what is set while connecting, unless it says so itself; `tcp_user_timeout` in the place of the one here.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn complete(&self, url: &str, tcp_user_timeout: Option<Duration>) -> String {
        let seconds = |time: Duration| time.as_secs().max(1).to_string();
        let keepalive = match self.tcp_keepalive {
            Some(idle) => vec![
                ("keepalives_idle", seconds(idle)),
                ("keepalives_interval", "10".to_owned()),
                ("keepalives_count", "3".to_owned()),
            ],
            None => vec![("keepalives", "0".to_owned())],
        };
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let optional = [
            ("connect_timeout", self.connect_timeout.map(seconds)),
            ("tcp_user_timeout", tcp_user_timeout.map(milliseconds)),
            ("application_name", self.application_name.clone()),
            ("sslmode", self.tls_mode.map(|mode| mode.name().to_owned())),
            ("sslrootcert", self.tls_root_certificate.clone()),
        ];
        let optional = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let mut complete = url.to_owned();
        let mut separator = match url.split_once('?') {
            None => "?",
            Some((_, "")) => "",
            Some(_) => "&",
        };
        for (name, value) in optional
            .chain(keepalive)
            .filter(|(name, _)| !gives(url, name))
        {
            let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
            // Writing to a string does not fail.
            let _ = write!(complete, "{separator}{name}={value}");
            separator = "&";
        }
        complete
    }

    /// How long opening a connection to `url` may take: the time for each host, and a second for what follows on the
    /// login. `None` where there is no limit, or the URL has one of its own.
    #[cfg(feature = "postgres")]
    pub(crate) fn opening_limit(&self, url: &str) -> Option<Duration> {
        let hosts = u32::try_from(1 + url.matches(',').count()).ok()?;
        let limit = self
            .connect_timeout
            .filter(|_| !gives(url, "connect_timeout"))?;
        limit
            .checked_mul(hosts)?
            .checked_add(Duration::from_secs(1))
    }

    /// The time limits, as statements that begin with `set`; not while connecting, since PgBouncer refuses that.
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
            .map(|(name, limit)| format!("{set} {name} = {};", limit.as_millis()))
            .collect()
    }
}

/// Tells whether a URL sets something itself.
#[cfg(any(feature = "postgres", test))]
fn gives(url: &str, name: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = query.split('&');
    pairs.any(|pair| pair.split_once('=').is_some_and(|(given, _)| given == name))
}

/// What is set on each connection to SQLite.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteSettings {
    /// How long a statement waits for the locks of others (`DB_BUSY_TIMEOUT`, 5 s).
    pub busy_timeout: Duration,
    /// Whether a file is put into write-ahead mode, in which readers and a writer do not wait for each other (`DB_SQLITE_WAL`, true).
    pub write_ahead: bool,
    /// Whether foreign keys are enforced (`DB_SQLITE_FOREIGN_KEYS`, true).
    pub foreign_keys: bool,
    /// When a commit is taken to be on disk (`DB_SQLITE_SYNCHRONOUS`, full).
    pub synchronous: Synchronous,
}

/// When SQLite takes a commit to be on disk, as its [`synchronous`] says.
///
/// [`synchronous`]: https://www.sqlite.org/pragma.html#pragma_synchronous
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// When the system has it; a crash of the machine can damage the file.
    Off,
    /// In write-ahead mode a crash of the machine can undo the last commits, and damages nothing.
    Normal,
    /// When it is written through.
    Full,
    /// Likewise, and the folder too.
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
        }
    }
}

impl SqliteSettings {
    /// The time-out first: the rest may have to wait for another process.
    #[cfg(feature = "sqlite")]
    pub(crate) fn statements(&self) -> String {
        format!(
            "PRAGMA busy_timeout = {}; PRAGMA foreign_keys = {}; PRAGMA synchronous = {}",
            self.busy_timeout.as_millis().min(i32::MAX as u128),
            i32::from(self.foreign_keys),
            self.synchronous as i32,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_the_url_comes_first() {
        let settings = PostgresSettings {
            application_name: Some("a&b=c".to_owned()),
            tls_mode: Some(TlsMode::VerifyFull),
            tcp_keepalive: None,
            tcp_user_timeout: None,
            ..PostgresSettings::default()
        };
        assert_eq!(
            settings.complete("postgresql://h/d", None),
            "postgresql://h/d?connect_timeout=10&application_name=a%26b%3Dc&sslmode=verify%2Dfull&keepalives=0"
        );
        assert_eq!(
            settings.complete("postgresql://h/d?sslmode=require&connect_timeout=3", None),
            "postgresql://h/d?sslmode=require&connect_timeout=3&application_name=a%26b%3Dc&keepalives=0"
        );
    }
}
