//! What a database says of a failure, without the values and statements that it quotes.

use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::escaped::Escaped;

/// What the driver or the server says; what `Display` and `Debug` show holds no parameter and no statement.
///
/// PostgreSQL quotes both, as in `invalid input syntax for type integer: "secret"`: what is quoted is kept
/// only where it is the name of something, such as a table or a constraint, and at anything else the text
/// ends with `…`. A message that a trigger or function of one's own raises is shown as far as that goes.
pub struct ServerError(DieselError);

/// What the server's refusal means, where diesel does not say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Unique,
    ForeignKey,
    NotNull,
    Check,
    Conflict,
    Deadlock,
    StatementTimeout,
    LockTimeout,
    Lost,
    ReadOnly,
    DiskFull,
    Syntax,
    Other,
}

impl ServerError {
    /// The driver's error in full, with whatever it quotes.
    pub fn driver_error(&self) -> &DieselError {
        &self.0
    }
}

impl From<DieselError> for ServerError {
    fn from(error: DieselError) -> Self {
        ServerError(error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            DieselError::DatabaseError(_, information) => redact(information.message(), formatter),
            other => write!(formatter, "{}", Escaped(other)),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerError({self})")
    }
}

impl std::error::Error for ServerError {}

/// Writes a message up to the first quotation that is not a name.
fn redact(message: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    /// What stands before a name; only the first line counts, the others are details.
    const NAMED: [&str; 15] = [
        "column",
        "constraint",
        "database",
        "encoding",
        "extension",
        "function",
        "index",
        "relation",
        "role",
        "schema",
        "sequence",
        "table",
        "trigger",
        "type",
        "view",
    ];
    let mut rest = message.lines().next().unwrap_or_default();
    while let Some((before, quoted)) = rest.split_once('"') {
        let word = before.trim_end().rsplit(' ').next().unwrap_or_default();
        let name = quoted.split_once('"').filter(|_| NAMED.contains(&word));
        let Some((name, after)) = name else {
            return write!(out, "{}…", Escaped(before));
        };
        write!(out, "{}\"{}\"", Escaped(before), Escaped(name))?;
        rest = after;
    }
    write!(out, "{}", Escaped(rest))
}

/// Tells what an error means. Where diesel knows only that the server refused, the message tells, in English:
/// a server of another language has its `lc_messages` set to `C` for it.
pub(crate) fn meaning(error: &DieselError) -> Meaning {
    const TEXTS: [(&str, Meaning); 23] = [
        ("terminating connection", Meaning::Lost),
        ("server closed the connection", Meaning::Lost),
        ("connection not open", Meaning::Lost),
        ("no connection to the server", Meaning::Lost),
        ("could not receive data from server", Meaning::Lost),
        ("could not send data to server", Meaning::Lost),
        ("SSL connection has been closed", Meaning::Lost),
        ("SSL SYSCALL error", Meaning::Lost),
        ("SSL error", Meaning::Lost),
        ("could not serialize access", Meaning::Conflict),
        ("deadlock detected", Meaning::Deadlock),
        ("due to statement timeout", Meaning::StatementTimeout),
        ("due to lock timeout", Meaning::LockTimeout),
        ("could not obtain lock", Meaning::LockTimeout),
        ("database is locked", Meaning::LockTimeout),
        ("database table is locked", Meaning::LockTimeout),
        ("in a read-only transaction", Meaning::ReadOnly),
        ("readonly database", Meaning::ReadOnly),
        ("disk is full", Meaning::DiskFull),
        ("syntax error", Meaning::Syntax),
        ("unterminated quoted", Meaning::Syntax),
        ("unrecognized token", Meaning::Syntax),
        ("incomplete input", Meaning::Syntax),
    ];
    let DieselError::DatabaseError(kind, information) = error else {
        return match error {
            DieselError::BrokenTransactionManager => Meaning::Lost,
            _ => Meaning::Other,
        };
    };
    match kind {
        DatabaseErrorKind::UniqueViolation => Meaning::Unique,
        DatabaseErrorKind::ForeignKeyViolation => Meaning::ForeignKey,
        DatabaseErrorKind::NotNullViolation => Meaning::NotNull,
        DatabaseErrorKind::CheckViolation => Meaning::Check,
        DatabaseErrorKind::SerializationFailure => Meaning::Conflict,
        DatabaseErrorKind::ReadOnlyTransaction => Meaning::ReadOnly,
        // libpq refuses it before it sends anything.
        DatabaseErrorKind::UnableToSendCommand
            if information.message().starts_with("number of parameters") =>
        {
            Meaning::Other
        }
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
            Meaning::Lost
        }
        _ => {
            // What is quoted is the user's, and may say anything.
            let message = information.message();
            let own = message.split('"').next().unwrap_or_default();
            let is_near = own.ends_with("near ") && message.ends_with("syntax error");
            // PostgreSQL names the file in between.
            let is_full =
                own.starts_with("could not ") && message.ends_with("No space left on device");
            let text = TEXTS.iter().find(|(text, _)| own.contains(text));
            match text {
                _ if is_near => Meaning::Syntax,
                _ if is_full => Meaning::DiskFull,
                Some((_, meaning)) => *meaning,
                None => Meaning::Other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str) -> String {
        let error =
            DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()));
        let error = ServerError(error);
        assert_eq!(format!("{error:?}"), format!("ServerError({error})"));
        error.to_string()
    }

    #[test]
    fn values_and_statements_are_left_out_and_names_are_not() {
        for (message, expected) in [
            (
                "invalid input syntax for type integer: \"secret\"",
                "invalid input syntax for type integer: …",
            ),
            ("value \"4711\" is out of range for type integer", "value …"),
            (
                "syntax error at or near \"secret\"",
                "syntax error at or near …",
            ),
            ("near \"secret\": syntax error", "near …"),
            (
                "column \"a\" of relation \"b\" does not exist",
                "column \"a\" of relation \"b\" does not exist",
            ),
            // A value that would pass for a name.
            (
                "invalid input syntax for type date: \"x\" column \"secret\"",
                "invalid input syntax for type date: …",
            ),
            ("it failed\nDETAIL: secret", "it failed"),
            ("column \"secret", "column …"),
        ] {
            assert_eq!(shown(message), expected);
        }
    }

    #[test]
    fn what_is_quoted_does_not_say_what_it_means() {
        let of = |message: &str| {
            let information = Box::new(message.to_owned());
            meaning(&DieselError::DatabaseError(
                DatabaseErrorKind::Unknown,
                information,
            ))
        };
        assert_eq!(of("deadlock detected"), Meaning::Deadlock);
        assert_eq!(of("near \"x\": syntax error"), Meaning::Syntax);
        assert_eq!(of("database or disk is full"), Meaning::DiskFull);
        let extend = "could not extend file \"base/5/16384\": No space left on device";
        assert_eq!(of(extend), Meaning::DiskFull);
        assert_eq!(
            of("invalid input syntax for type integer: \"deadlock detected\""),
            Meaning::Other
        );
    }
}
