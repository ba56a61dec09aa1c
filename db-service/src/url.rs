//! `DATABASE_URL`: which backend, where, and what of it may be shown.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

use crate::backend::Backend;
use crate::escaped::Escaped;
use crate::redaction::redacted;

/// Why a text is no URL of a database that this build can open. It never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The part before `://` names no known backend.
    #[error("the scheme is none of postgres://, postgresql:// and sqlite://")]
    UnknownScheme,
    /// The backend was left out when the program was built.
    #[error("{backend} is not compiled in; build db-service with the feature `{feature}`")]
    NotCompiled {
        /// The backend that the URL names.
        backend: Backend,
        /// The cargo feature to turn on.
        feature: &'static str,
    },
    /// A character in the user name, password or host has to be percent-encoded.
    #[error(
        "the user name or password holds an @, : or / that must be percent-encoded (%40, %3A, %2F)"
    )]
    UnencodedCharacter,
    /// The address of a host begins with a bracket and does not end as it should.
    #[error("an IPv6 address is written as [::1] or [::1]:5432")]
    Ipv6Host,
    /// A percent sign is not followed by two hexadecimal digits, or what it encodes is no text.
    #[error("it holds a % that does not begin a percent-encoded character")]
    InvalidEncoding,
    /// A NUL byte, which neither backend accepts.
    #[error("it holds a NUL character")]
    Nul,
    /// SQLite takes no query.
    #[error("a sqlite:// URL takes no parameters after a question mark")]
    SqliteParameters,
    /// `sqlite://name`, where the name would be a host.
    #[error(
        "a sqlite:// URL names a file after three slashes, such as sqlite:///data.db or sqlite:////var/lib/data.db"
    )]
    SqliteHost,
}

/// A database URL, taken apart as far as needed. Its `Debug` and `Display` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    target: Target,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The URL as libpq takes it; it may hold a password.
    Postgres(String),
    SqliteFile(String),
    SqliteMemory,
}

impl DatabaseUrl {
    /// Reads a URL and checks that its backend is compiled in.
    ///
    /// # Errors
    ///
    /// See [`UrlError`].
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
        if url.eq_ignore_ascii_case("sqlite::memory:") {
            return Self::of(Target::SqliteMemory);
        }
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::UnknownScheme)?;
        let target = match scheme.to_ascii_lowercase().split('+').next() {
            Some("postgres" | "postgresql") => {
                check_postgres(rest)?;
                Target::Postgres(format!("postgresql://{rest}"))
            }
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

    /// The backend that the URL names.
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
            Target::Postgres(url) => write!(formatter, "{}", Escaped(redacted(url))),
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

fn sqlite_target(rest: &str) -> Result<Target, UrlError> {
    if rest.contains('?') {
        return Err(UrlError::SqliteParameters);
    }
    match rest.strip_prefix('/') {
        Some("" | ":memory:") => Ok(Target::SqliteMemory),
        Some(path) => Ok(Target::SqliteFile(path.to_owned())),
        None if rest.is_empty() => Ok(Target::SqliteMemory),
        None => Err(UrlError::SqliteHost),
    }
}

/// Refuses what libpq would misread, since its messages quote the pieces that it misreads: pieces of a password.
fn check_postgres(rest: &str) -> Result<(), UrlError> {
    // As libpq does: the user's part ends at the first @, unless a slash comes before it.
    let (user, place) = match rest.find(['@', '/']) {
        Some(end) if rest[end..].starts_with('@') => (&rest[..end], &rest[end + 1..]),
        _ => ("", rest),
    };
    let hosts = place.split(['/', '?']).next().unwrap_or_default();
    let path = place[hosts.len()..].split('?').next().unwrap_or_default();
    if user.contains(['?', '#'])
        || user.matches(':').count() > 1
        || hosts.contains('@')
        || path.contains('@')
    {
        return Err(UrlError::UnencodedCharacter);
    }
    // Without an @ a password would stand where libpq expects a port, and tells what it found there.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = |host: &str| host.split_once(':').is_none_or(|(_, port)| is_port(port));
    for host in hosts.split(',') {
        match host.strip_prefix('[') {
            Some(host) => match host.split_once(']') {
                // libpq would quote the whole URL.
                None | Some(("", _)) => return Err(UrlError::Ipv6Host),
                Some((_, "")) => {}
                Some((_, port)) if port.strip_prefix(':').is_some_and(is_port) => {}
                Some(_) => return Err(UrlError::Ipv6Host),
            },
            None if has_port(host) => {}
            None => return Err(UrlError::UnencodedCharacter),
        }
    }
    check_encoding(rest)
}

fn check_encoding(text: &str) -> Result<(), UrlError> {
    let encoded_well = text.split('%').skip(1).all(|after| {
        after.len() >= 2
            && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())
            && !after.starts_with("00")
    });
    let decoded: Cow<'_, [u8]> = percent_decode_str(text).into();
    if encoded_well && std::str::from_utf8(&decoded).is_ok() {
        Ok(())
    } else {
        Err(UrlError::InvalidEncoding)
    }
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
        assert_eq!(
            DatabaseUrl::parse("sqlite://data.db"),
            Err(UrlError::SqliteHost)
        );
        assert_eq!(
            DatabaseUrl::parse("sqlite:///a.db?mode=ro"),
            Err(UrlError::SqliteParameters)
        );
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "",
            "postgres",
            "mysql://a",
            "sqlite:",
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
    }

    #[test]
    fn ambiguous_passwords_are_refused_before_libpq_quotes_them() {
        for url in [
            "u:p@ss@h/d",
            "u:p/ss@h/d",
            "u:p:ss@h/d",
            "u:p/ss?x@h/d",
            "u:p:/ss@h/d",
            "u:p?a=b@h/d",
            "u:secret/d",
            "h:1,u:secret/d",
        ] {
            assert_eq!(
                check_postgres(url),
                Err(UrlError::UnencodedCharacter),
                "{url}"
            );
        }
        for url in [
            "u:p%@h/d",
            "u:p%4@h/d",
            "u:%ff@h/d",
            "u:%00@h/d",
            "u@h/d?password=%zz",
        ] {
            assert_eq!(check_postgres(url), Err(UrlError::InvalidEncoding), "{url}");
        }
        for url in [
            "u:p@[::1/d",
            "u:p@[]/d",
            "u:p@h,[::1]x/d",
            "u:p@[::1]:x/d",
            "u:p@[::1:5432",
        ] {
            assert_eq!(check_postgres(url), Err(UrlError::Ipv6Host), "{url}");
        }
        for url in [
            "",
            "h",
            "u@h",
            "u:p%40ss@h:1,k:2/d?sslmode=disable",
            "u:p@a,b:2,[::1],[fe80::1%25eth0]:5432,/d?target_session_attrs=read-write",
            "[::1]:5432/d",
            "/d?host=/tmp",
        ] {
            assert_eq!(check_postgres(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(
            redacted("postgresql://ada:secret@h/d"),
            "postgresql://ada:***@h/d"
        );
        assert_eq!(
            redacted(
                "postgresql://h/d?port=1&password=secret&sslpassword=secret&p%61ssword=secret&user=a;password=secret"
            ),
            "postgresql://h/d?port=1&password=***&sslpassword=***&p%61ssword=***&user=***"
        );
        assert_eq!(redacted("postgresql://ada@h"), "postgresql://ada@h");
        assert_eq!(
            redacted("postgresql://ada:a,b:1@[::1]:1,b,c:3/d?target_session_attrs=read-write"),
            "postgresql://ada:***@[::1]:1,b,c:3/d?target_session_attrs=read-write"
        );
        let target = Target::SqliteFile("a\nb".to_owned());
        assert_eq!(DatabaseUrl { target }.to_string(), r"sqlite:///a\nb");
    }

    #[test]
    #[cfg(not(feature = "postgres"))]
    fn a_backend_that_was_left_out_names_its_feature() {
        let error = DatabaseUrl::parse("postgresql+psycopg2://u:secret@h/d").unwrap_err();
        assert_eq!(
            error.to_string(),
            "PostgreSQL is not compiled in; build db-service with the feature `postgres`"
        );
    }
}
