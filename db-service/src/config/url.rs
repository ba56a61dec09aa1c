//! Database URLs: their backend, their target, and the parts that may be shown.

use std::fmt;
use std::str::FromStr;

use super::postgres_url::PostgresUrl;
use crate::backend::Backend;
use singleton_core::__private::Escaped;

/// The reason why a text is not a URL of a database that this build can open.
///
/// The message never contains the text, which may contain a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The scheme before `://` is unknown.
    #[error("the scheme is none of postgres://, postgresql:// and sqlite://")]
    UnknownScheme,
    /// The URL begins with a quote. Docker's `--env-file` keeps the quotes of a value.
    #[error("it begins with a quote; write the URL without quotes")]
    Quoted,
    /// This build does not contain the backend.
    #[error("{backend} is not compiled in; build db-service with the feature `{feature}`")]
    NotCompiled {
        /// The backend that the URL names.
        backend: Backend,
        /// The cargo feature to turn on.
        feature: &'static str,
    },
    /// A character in the user name, password or host must be percent-encoded.
    #[error(
        "the user name or password contains an @, : or / that must be percent-encoded (%40, %3A, %2F)"
    )]
    UnencodedCharacter,
    /// In a URL without an `@`, the text after the colon of a host is not a port. It may be a password.
    #[error(
        "the port after a host must be a whole number between 1 and 65535; a user name and a password come before \
         the host: user:password@host"
    )]
    PortOrPassword,
    /// A character that separates parameters must be percent-encoded in a host, a database name, or a parameter.
    #[error(
        "a host, the database or a parameter contains an &, ;, # or = that must be percent-encoded (%26, %3B, %23, %3D)"
    )]
    UnencodedSeparator,
    /// White space or a control character must be percent-encoded.
    #[error("it contains white space or a control character that must be percent-encoded")]
    WhiteSpace,
    /// An IPv6 address has an opening bracket and no matching end.
    #[error("an IPv6 address is written as [::1] or [::1]:5432")]
    Ipv6Host,
    /// A percent sign is not followed by two hexadecimal digits, or the decoded bytes are not UTF-8.
    #[error("it contains a % that does not begin a percent-encoded character")]
    InvalidEncoding,
    /// A parameter after the question mark has no value.
    #[error(
        "parameter {position} after the question mark has no value; write name=value, and %26 for an & in a value"
    )]
    #[non_exhaustive]
    MissingValue {
        /// The position of the parameter, from 1.
        position: usize,
    },
    /// libpq does not know a parameter after the question mark.
    #[error(
        "parameter {position} after the question mark is unknown to libpq{}; write %26 for an & in a value",
        suggestion.map(|name| format!(" (did you mean {name}?)")).unwrap_or_default()
    )]
    #[non_exhaustive]
    UnknownParameter {
        /// The position of the parameter, from 1.
        position: usize,
        /// A parameter of libpq with a similar name.
        suggestion: Option<&'static str>,
    },
    /// libpq does not accept the value of a parameter.
    #[error("{name} must be {expected}")]
    #[non_exhaustive]
    InvalidParameter {
        /// The parameter's name in libpq. The part before the question mark sets some of them, such as `user` and
        /// `port`.
        name: &'static str,
        /// The valid values.
        expected: &'static str,
    },
    /// `host`, `hostaddr` and `port` are lists of different lengths.
    #[error("the hosts, their addresses and their ports are lists of different lengths")]
    UnevenHosts,
    /// The URL contains a NUL byte, which neither backend accepts.
    #[error("it contains a NUL character")]
    Nul,
    /// A SQLite URL has parameters or a fragment.
    #[error("a sqlite:// URL has no parameters, and its file name contains no ?, # or ;")]
    SqliteParameters,
    /// A SQLite URL has fewer than three slashes, as in `sqlite://name`.
    #[error(
        "a sqlite:// URL names a file after three slashes: sqlite:///data.db is relative to the working directory, \
         sqlite:////var/lib/data.db is absolute"
    )]
    SqliteHost,
}

/// A parsed database URL. `Debug` and `Display` hide the password and other secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    target: Target,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Postgres(PostgresUrl),
    SqliteFile(String),
    SqliteMemory,
}

impl DatabaseUrl {
    /// Parses a URL, and checks that this build contains its backend.
    ///
    /// White space and byte-order marks around the URL do not count, such as the newline at the end of a file with a
    /// secret.
    ///
    /// # Errors
    ///
    /// Returns [`UrlError`] if the URL is invalid or its backend is not compiled in.
    ///
    /// # Examples
    ///
    /// ```
    /// use db_service::{Backend, DatabaseUrl};
    ///
    /// let url = DatabaseUrl::parse("sqlite:///data.db")?;
    /// assert_eq!(url.backend(), Backend::Sqlite);
    /// # Ok::<(), db_service::UrlError>(())
    /// ```
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        if url.contains('\0') {
            return Err(UrlError::Nul);
        }
        let url = url.trim_matches(|next: char| next.is_whitespace() || next == '\u{feff}');
        if url.starts_with(['"', '\'']) {
            return Err(UrlError::Quoted);
        }
        if url.eq_ignore_ascii_case("sqlite::memory:") {
            return Self::of(Target::SqliteMemory);
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            let is_sqlite = url.split(':').next().is_some_and(is_sqlite) && url.contains(':');
            return Err(if is_sqlite {
                UrlError::SqliteHost
            } else {
                UrlError::UnknownScheme
            });
        };
        let target = match scheme.to_ascii_lowercase().split('+').next() {
            Some("postgres" | "postgresql") => Target::Postgres(PostgresUrl::parse(rest)?),
            Some("sqlite") => sqlite_target(rest)?,
            _ => return Err(UrlError::UnknownScheme),
        };
        Self::of(target)
    }

    fn of(target: Target) -> Result<Self, UrlError> {
        let url = DatabaseUrl { target };
        let (compiled, feature) = match url.backend() {
            Backend::Postgres => (cfg!(feature = "postgres"), "postgres"),
            Backend::Sqlite => (cfg!(feature = "sqlite"), "sqlite"),
        };
        if !compiled {
            let backend = url.backend();
            return Err(UrlError::NotCompiled { backend, feature });
        }
        Ok(url)
    }

    /// Returns the backend that the URL names.
    pub fn backend(&self) -> Backend {
        match self.target {
            Target::Postgres(_) => Backend::Postgres,
            Target::SqliteFile(_) | Target::SqliteMemory => Backend::Sqlite,
        }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        DatabaseUrl::parse(url)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Postgres(url) => write!(formatter, "{url}"),
            Target::SqliteFile(path) => write!(formatter, "sqlite:///{}", Escaped(path)),
            Target::SqliteMemory => formatter.write_str("sqlite::memory:"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({self})")
    }
}

fn is_sqlite(scheme: &str) -> bool {
    scheme.to_ascii_lowercase().split('+').next() == Some("sqlite")
}

fn sqlite_target(rest: &str) -> Result<Target, UrlError> {
    if rest.contains(['?', '#', ';']) {
        return Err(UrlError::SqliteParameters);
    }
    match rest.strip_prefix('/') {
        Some("" | ":memory:") => Ok(Target::SqliteMemory),
        Some(path) if holds_credentials(path) => Err(UrlError::SqliteHost),
        Some(path) => Ok(Target::SqliteFile(path.to_owned())),
        None if rest.is_empty() => Ok(Target::SqliteMemory),
        None => Err(UrlError::SqliteHost),
    }
}

/// Returns whether a path looks like `user:password@host`.
fn holds_credentials(path: &str) -> bool {
    let path = path.trim_start_matches('/');
    // Skip a Windows drive letter.
    let path = match path.as_bytes() {
        [drive, b':', b'/' | b'\\', ..] if drive.is_ascii_alphabetic() => &path[2..],
        _ => path,
    };
    path.split_once(':')
        .is_some_and(|(_, rest)| rest.contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(feature = "sqlite")]
    fn sqlite_urls_name_files_or_memory() {
        for (url, target) in [
            (
                "sqlite:///relative.db",
                Target::SqliteFile("relative.db".to_owned()),
            ),
            (
                "sqlite:////var/lib/absolute.db",
                Target::SqliteFile("/var/lib/absolute.db".to_owned()),
            ),
            ("sqlite::memory:", Target::SqliteMemory),
            ("sqlite:///:memory:", Target::SqliteMemory),
            ("sqlite://", Target::SqliteMemory),
            (
                "sqlite+pysqlite:///a.db",
                Target::SqliteFile("a.db".to_owned()),
            ),
        ] {
            assert!(
                *DatabaseUrl::parse(url).unwrap().target() == target,
                "{url}"
            );
        }
        for url in [
            "sqlite://data.db",
            "sqlite://data/x.db",
            "sqlite:/data/x.db",
            "sqlite:data.db",
            "sqlite:",
            "sqlite+pysqlite:/data.db",
            "sqlite://C:/data.db",
            "sqlite://u:secret@/data.db",
            "sqlite:///u:secret@h/data.db",
            "sqlite:////u:secret@h/data.db",
        ] {
            assert_eq!(DatabaseUrl::parse(url), Err(UrlError::SqliteHost), "{url}");
        }
        for url in ["sqlite:///C:/me@home/data.db", "sqlite:////a:b/data.db"] {
            assert!(DatabaseUrl::parse(url).is_ok(), "{url}");
        }
        for url in [
            "sqlite:///a.db?mode=ro",
            "sqlite:///a.db#key",
            "sqlite:///a.db;password=secret",
            "sqlite://?key=secret",
        ] {
            let error = DatabaseUrl::parse(url);
            assert_eq!(error, Err(UrlError::SqliteParameters), "{url}");
        }
    }

    #[test]
    fn invalid_urls_are_refused() {
        for url in [
            "",
            "postgres",
            "mysql://a",
            "sqlite",
            "postgresql:/h/d",
            "/var/lib/data.db",
            "://",
            "http://x",
            "password",
        ] {
            assert_eq!(
                DatabaseUrl::parse(url),
                Err(UrlError::UnknownScheme),
                "{url}"
            );
        }
        assert_eq!(DatabaseUrl::parse("sqlite:///a\0b"), Err(UrlError::Nul));
        for url in ["\"sqlite:///a.db\"", " 'sqlite:///a.db'\n", "\"secret"] {
            assert_eq!(DatabaseUrl::parse(url), Err(UrlError::Quoted), "{url}");
        }
    }

    #[test]
    #[cfg(feature = "sqlite")]
    fn white_space_around_a_url_does_not_count() {
        for url in [
            "sqlite:///a b.db\n",
            "sqlite:///a b.db\r\n",
            " \tsqlite:///a b.db ",
            "\u{feff}sqlite:///a b.db\n",
        ] {
            assert_eq!(
                DatabaseUrl::parse(url).unwrap().to_string(),
                "sqlite:///a b.db"
            );
        }
        let memory = DatabaseUrl::parse("sqlite::memory:\n").unwrap();
        assert!(*memory.target() == Target::SqliteMemory);
    }

    #[test]
    fn path_is_shown_on_one_line() {
        let target = Target::SqliteFile("a\nb".to_owned());
        assert_eq!(DatabaseUrl { target }.to_string(), r"sqlite:///a\nb");
    }

    #[test]
    #[cfg(not(feature = "postgres"))]
    fn missing_backend_error_names_its_feature() {
        let error = DatabaseUrl::parse("postgresql+psycopg2://u:secret@h/d").unwrap_err();
        assert_eq!(
            error.to_string(),
            "PostgreSQL is not compiled in; build db-service with the feature `postgres`"
        );
    }
}
