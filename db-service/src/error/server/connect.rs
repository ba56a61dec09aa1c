//! Errors of opening a connection, without the URL's secrets.

use std::fmt;

use diesel::ConnectionError;

use super::{HIDDEN, matching, patterns};
use crate::error::one_line;
use singleton_core::__private::Escaped;

/// The driver's error from opening a connection, displayed on one line and without the URL's secrets.
///
/// libpq quotes the host, the user, the database, and parts of a URL that it cannot parse. `Display` and `Debug` show a
/// quoted name only if the URL contains it outside the password. For the rest of the message, the rules of
/// [`ServerError`](crate::ServerError) apply.
/// [`driver_error`](Self::driver_error) returns everything.
pub struct ConnectError {
    source: ConnectionError,
    /// The URL without its password.
    target: Box<str>,
    /// Whether the text comes from this crate, and so contains no secret.
    is_ours: bool,
    /// The text that this crate adds to the driver's message, on one line and without secrets.
    detail: Option<Box<str>>,
}

impl ConnectError {
    pub(crate) fn new(target: &str, source: ConnectionError) -> Self {
        ConnectError {
            source,
            target: target.into(),
            is_ours: false,
            detail: None,
        }
    }

    /// Adds a text to the driver's message. It must be one line, and contain no secret.
    #[cfg(feature = "sqlite")]
    pub(crate) fn with_detail(self, detail: String) -> Self {
        ConnectError {
            detail: Some(detail.into()),
            ..self
        }
    }

    /// Returns the error of an attempt that failed before the driver was called, or that was given up.
    pub(crate) fn from_reason(target: &str, reason: String) -> Self {
        ConnectError {
            is_ours: true,
            ..ConnectError::new(target, ConnectionError::BadConnection(reason))
        }
    }

    /// Returns the driver's error, including everything that it quotes.
    pub fn driver_error(&self) -> &ConnectionError {
        &self.source
    }

    /// Returns whether the reason is that there is no server, or that it accepts no connections at present: it is
    /// starting up, shutting down, full, or a standby that has to be promoted.
    ///
    /// With several hosts, this must be the reason for each of them. A server that reports its state in another language
    /// than English is not recognized.
    pub(crate) fn is_without_server(&self) -> bool {
        let text = match &self.source {
            ConnectionError::BadConnection(text) => text,
            ConnectionError::CouldntSetupConfiguration(error) => {
                return super::meaning(error) == super::Meaning::Lost;
            }
            _ => return false,
        };
        let mut reasons = relevant_lines(text).peekable();
        reasons.peek().is_some() && reasons.all(is_of_absent_server)
    }

    /// Returns whether a name may be shown: the URL contains it outside the password, or it cannot be part of a
    /// password.
    fn is_public(&self, name: &str) -> bool {
        self.target.contains(name)
            || name.starts_with('/')
            || patterns::MODES.contains(&name)
            || name.parse::<std::net::IpAddr>().is_ok()
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_reason(formatter)?;
        match &self.detail {
            Some(detail) => write!(formatter, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl ConnectError {
    fn show_reason(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match &self.source {
            ConnectionError::BadConnection(text) if self.is_ours => {
                return formatter.write_str(&one_line(text));
            }
            ConnectionError::BadConnection(text) if text.trim().is_empty() => {
                return formatter.write_str("the driver gives no reason");
            }
            ConnectionError::BadConnection(text) | ConnectionError::InvalidConnectionUrl(text) => {
                lines(text, HIDDEN)
            }
            ConnectionError::InvalidCString(_) => Some("the URL contains a NUL".to_owned()),
            ConnectionError::CouldntSetupConfiguration(error) => {
                return super::show(error, formatter);
            }
            _ => None,
        };
        // Names contain no quotes, so every second part is a name.
        for (position, part) in text.as_deref().unwrap_or(HIDDEN).split('"').enumerate() {
            match position % 2 {
                0 => write!(formatter, "{}", Escaped(part))?,
                _ if self.is_public(part) => write!(formatter, "\"{}\"", Escaped(part))?,
                _ => formatter.write_str("\"…\"")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ConnectError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ConnectError({self})")
    }
}

impl std::error::Error for ConnectError {}

/// Joins the lines of libpq's message without their values. `hidden` replaces an unknown line.
pub(super) fn lines(text: &str, hidden: &str) -> Option<String> {
    let mut shown: Vec<String> = Vec::new();
    for line in relevant_lines(text) {
        let line = whole_line(line).unwrap_or_else(|| hidden.to_owned());
        if !shown.contains(&line) {
            shown.push(line);
        }
    }
    (!shown.is_empty()).then(|| shown.join("; "))
}

/// Returns the lines of libpq's message, without those that add nothing or can contain any text.
fn relevant_lines(text: &str) -> impl Iterator<Item = &str> {
    const LEFT_OUT: [&str; 8] = [
        "\t",
        "DETAIL:",
        "HINT:",
        "CONTEXT:",
        "LOCATION:",
        "QUERY:",
        "LINE ",
        "Either provide the file",
    ];
    let is_left_out = |line: &&str| LEFT_OUT.iter().any(|beginning| line.starts_with(beginning));
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .filter(move |line| !is_left_out(line))
}

/// Returns whether a line is the reason of a server that does not exist or accepts no connections at present.
fn is_of_absent_server(line: &str) -> bool {
    const WHOLE: [&str; 21] = [
        // The system's reasons.
        "Connection refused",
        "Connection reset by peer",
        "Connection timed out",
        "Operation timed out",
        "Host is unreachable",
        "Network is unreachable",
        "No route to host",
        // The socket.
        "No such file or directory",
        "timeout expired",
        // A port that is forwarded to a server that does not run yet.
        "server closed the connection unexpectedly",
        "the database system is starting up",
        "the database system is shutting down",
        "the database system is in recovery mode",
        "the database system is not yet accepting connections",
        "the database system is not accepting connections",
        "sorry, too many clients already",
        "session is read-only",
        "server is in hot standby mode",
        "pgbouncer cannot connect to server",
        "pgbouncer is shutting down",
        "no more connections allowed (max_client_conn)",
    ];
    const BEGINNINGS: [&str; 3] = [
        "could not translate host name ",
        "remaining connection slots are reserved for ",
        // This crate.
        "the server did not answer within ",
    ];
    let reason = line
        .split_once(" failed: ")
        .map_or(line, |(_, reason)| reason);
    let reason = without_severity(reason).trim_end();
    WHOLE.contains(&reason) || BEGINNINGS.iter().any(|text| reason.starts_with(text))
}

/// Removes the severity that libpq writes before a server message if no statement is running.
pub(super) fn without_severity(line: &str) -> &str {
    const SEVERITIES: [&str; 3] = ["FATAL:  ", "ERROR:  ", "PANIC:  "];
    SEVERITIES
        .iter()
        .find_map(|severity| line.strip_prefix(severity))
        .unwrap_or(line)
}

/// Returns a line without its values: the server, the severity and the message.
fn whole_line(line: &str) -> Option<String> {
    const SERVERS: [&str; 3] = [
        "connection to server at \"{name}\" ({address}), port {number} failed",
        "connection to server at \"{name}\", port {number} failed",
        "connection to server on socket \"{name}\" failed",
    ];
    let of_server = line.split_once(" failed: ").and_then(|(server, rest)| {
        let server = format!("{server} failed");
        let shown = SERVERS
            .iter()
            .find_map(|pattern| matching::fill(pattern, &server));
        Some((format!("{}: ", shown?), rest))
    });
    let (server, rest) = of_server.unwrap_or((String::new(), line));
    let said = without_severity(rest);
    let severity = &rest[..rest.len() - said.len()];
    match matching::shown(said) {
        Some(shown) => Some(format!("{server}{severity}{shown}")),
        None if server.is_empty() => None,
        None => Some(format!("{server}{severity}{HIDDEN}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: &str = "postgres://ada:***@db.example:5432,other.example/shop";

    #[track_caller]
    fn shown(text: &str) -> String {
        let error = ConnectError::new(TARGET, ConnectionError::BadConnection(text.to_owned()));
        let shown = error.to_string();
        assert!(
            !shown.contains("secret") && !shown.contains('\n'),
            "{shown}"
        );
        assert_eq!(format!("{error:?}"), format!("ConnectError({shown})"));
        shown
    }

    #[test]
    fn libpq_messages_are_shown_on_one_line() {
        for (text, expected) in [
            (
                "connection to server at \"db.example\" (10.0.0.1), port 5432 failed: Connection refused\n\
                 \tIs the server running on that host and accepting TCP/IP connections?\n\
                 connection to server at \"other.example\" (::1), port 5432 failed: FATAL:  password authentication failed for user \"ada\"\n",
                "connection to server at \"db.example\" (10.0.0.1), port 5432 failed: Connection refused; \
                 connection to server at \"other.example\" (::1), port 5432 failed: FATAL:  password authentication failed for user \"ada\"",
            ),
            (
                "connection to server on socket \"/tmp/.s.PGSQL.5432\" failed: FATAL:  database \"shop\" does not exist\n",
                "connection to server on socket \"/tmp/.s.PGSQL.5432\" failed: FATAL:  database \"shop\" does not exist",
            ),
            (
                "could not translate host name \"other.example\" to address: Name or service not known\n",
                "could not translate host name \"other.example\" to address: Name or service not known",
            ),
            (
                "connection to server at \"127.0.0.1\", port 1 failed: FATAL:  secret\nDETAIL:  secret\n",
                "connection to server at \"127.0.0.1\", port 1 failed: FATAL:  the server's message is not shown because it may contain values; see driver_error()",
            ),
            (" \n", "the driver gives no reason"),
            (
                "the server did not answer within 1.5s",
                "the server did not answer within 1.5s",
            ),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn absent_server_is_distinguished_from_wrong_settings() {
        let is_without_server = |text: &str| {
            let source = ConnectionError::BadConnection(text.to_owned());
            ConnectError::new(TARGET, source).is_without_server()
        };
        const HOST: &str = "connection to server at \"db.example\" (10.0.0.1), port 5432 failed: ";
        const SOCKET: &str = "connection to server on socket \"/tmp/.s.PGSQL.5432\" failed: ";
        for (server, reason) in [
            (
                HOST,
                "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?\n",
            ),
            (
                SOCKET,
                "No such file or directory\n\tIs the server running locally and accepting connections on that socket?\n",
            ),
            (
                "",
                "could not translate host name \"db.example\" to address: Name or service not known\n",
            ),
            (
                "",
                "could not translate host name \"db.example\" to address: Temporary failure in name resolution\n",
            ),
            (HOST, "timeout expired\n"),
            (
                HOST,
                "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n",
            ),
            (HOST, "FATAL:  the database system is starting up\n"),
            (
                HOST,
                "FATAL:  the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been yet reached.\n",
            ),
            (HOST, "FATAL:  sorry, too many clients already\n"),
            (HOST, "session is read-only\n"),
            ("", "the server did not answer within 11s"),
        ] {
            assert!(is_without_server(&format!("{server}{reason}")), "{reason}");
        }
        for (server, reason) in [
            (
                HOST,
                "FATAL:  password authentication failed for user \"ada\"\n",
            ),
            (HOST, "FATAL:  database \"shop\" does not exist\n"),
            (HOST, "FATAL:  role \"ada\" does not exist\n"),
            (HOST, "FATAL:  role \"Connection refused\" does not exist\n"),
            (
                HOST,
                "FATAL:  no pg_hba.conf entry for host \"10.0.0.1\", user \"ada\", database \"shop\", no encryption\n",
            ),
            (HOST, "fe_sendauth: no password supplied\n"),
            (HOST, "server does not support SSL, but SSL was required\n"),
            (HOST, "root certificate file \"/none\" does not exist\n"),
            (
                HOST,
                "could not open certificate file \"/none\": No such file or directory\n",
            ),
            (HOST, "SSL error: certificate verify failed\n"),
            (
                "",
                "no thread could be started: Resource temporarily unavailable",
            ),
            ("", "unable to open database file"),
            ("", " \n"),
        ] {
            assert!(!is_without_server(&format!("{server}{reason}")), "{reason}");
        }
        let refused = format!("{HOST}Connection refused\n");
        assert!(is_without_server(&format!("{refused}{refused}")));
        let wrong = format!("{HOST}FATAL:  password authentication failed for user \"ada\"\n");
        assert!(!is_without_server(&format!("{refused}{wrong}")));
    }

    /// If a password is not encoded, libpq takes parts of it for other parts of the URL.
    #[test]
    fn no_part_of_a_password_is_shown() {
        for (text, expected) in [
            (
                "could not translate host name \"secret@db.example\" to address: Name or service not known\n",
                "could not translate host name \"…\" to address: Name or service not known",
            ),
            (
                "connection to server at \"secret\" (10.0.0.1), port 5432 failed: FATAL:  database \"secret@db.example\" does not exist\n",
                "connection to server at \"…\" (10.0.0.1), port 5432 failed: FATAL:  database \"…\" does not exist",
            ),
            (
                "invalid port number: \"secret\"\n",
                "invalid port number: \"…\"",
            ),
            (
                "invalid integer value \"secret\" for connection option \"port\"\n",
                "invalid integer value \"…\" for connection option \"…\"",
            ),
            (
                "missing key/value separator \"=\" in URI query parameter: \"secret\"\n",
                HIDDEN,
            ),
            ("numéro de port invalide : « secret »\n", HIDDEN),
        ] {
            assert_eq!(shown(text), expected);
        }
        let nul = std::ffi::CString::new("postgres://ada:secret@h/d\0").unwrap_err();
        for source in [
            ConnectionError::InvalidCString(nul),
            ConnectionError::InvalidConnectionUrl("secret".to_owned()),
            ConnectionError::CouldntSetupConfiguration(diesel::result::Error::QueryBuilderError(
                "secret".into(),
            )),
        ] {
            let error = crate::DbError::connect(TARGET.to_owned(), source);
            let chain = anyhow::Error::from(error);
            assert!(
                !format!("{chain:#} {chain:?}").contains("secret"),
                "{chain:#}"
            );
        }
    }
}
