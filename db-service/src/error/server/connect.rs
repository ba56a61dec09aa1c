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
    target: String,
    /// Whether the text comes from this crate, and so contains no secret.
    is_ours: bool,
    /// What this crate adds to the driver's message, on one line and without secrets.
    detail: Option<String>,
}

impl ConnectError {
    pub(crate) fn new(target: &str, source: ConnectionError) -> Self {
        ConnectError {
            source,
            target: target.to_owned(),
            is_ours: false,
            detail: None,
        }
    }

    /// Adds a text to the driver's message. It must be one line, and contain no secret.
    pub(crate) fn with_detail(self, detail: Option<String>) -> Self {
        ConnectError { detail, ..self }
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
    /// The beginnings of lines that are dropped, because they add nothing or can contain any text.
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
    let mut shown: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_left_out = LEFT_OUT.iter().any(|beginning| line.starts_with(beginning));
        if line.trim().is_empty() || is_left_out {
            continue;
        }
        let line = whole_line(line).unwrap_or_else(|| hidden.to_owned());
        if !shown.contains(&line) {
            shown.push(line);
        }
    }
    (!shown.is_empty()).then(|| shown.join("; "))
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
