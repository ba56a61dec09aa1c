//! The server's and the driver's errors, without the values and statements that they quote.

use std::fmt;
use std::sync::Arc;

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use singleton_core::__private::Escaped;

pub use connect::ConnectError;
pub(crate) use matching::{is_name, is_path};
use named::Comparison;
pub(crate) use named::{
    remember_names_of_statement, remember_place_in_statement, statement_text, without_binds,
};

mod connect;
mod matching;
mod named;
mod patterns;

/// The replacement for an unknown message, which may contain values.
const HIDDEN: &str =
    "the server's message is not shown because it may contain values; see driver_error()";

/// An error of the driver or the server, displayed without the values and statements that it quotes.
///
/// `Display` and `Debug` show a message only if it matches a list of known messages. Names of tables, columns and
/// constraints stay, and values become `…`: `value "4711" is out of range for type integer` appears as
/// `value "…" is out of range for type integer`. The word at a syntax error is shown if it is a keyword or a name in the
/// text of the statement, and no literal contains it or ends directly before it.
///
/// A fixed text replaces any other message, such as one that a trigger raises or one in a language other than English.
/// The names of the constraint, table and column that the server sends with the message appear before that text.
/// Details, hints and contexts are never shown. [`detail`](Self::detail) and [`hint`](Self::hint) return them, and
/// [`driver_error`](Self::driver_error) returns everything.
///
/// There is one exception. If a statement converts a value to a name, as `:p::regclass` does, PostgreSQL reports the
/// value as a name, and the message shows it: `relation "value" does not exist`.
#[derive(Clone)]
pub struct ServerError {
    error: Arc<DieselError>,
    /// Whether the name or word that the message quotes is one of the statement.
    is_of_statement: bool,
    /// The position in the caller's text.
    position: Option<usize>,
}

/// The meaning of an error, in more detail than diesel's kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    Unique,
    ForeignKey,
    NotNull,
    Check,
    Exclusion,
    Conflict,
    Deadlock,
    StatementTimeout,
    LockTimeout,
    Lost,
    ReadOnly,
    DiskFull,
    Syntax,
    StalePlan,
    Other,
}

impl ServerError {
    /// Converts an error whose position in the caller's text is known.
    pub(crate) fn at(position: Option<usize>, error: DieselError) -> Self {
        ServerError::compared(position, named::take_comparison(&error), error)
    }

    /// Converts a copy of an error. The error itself can still be converted.
    pub(crate) fn from_copy(position: Option<usize>, error: DieselError) -> Self {
        ServerError::compared(position, named::copy_comparison(&error), error)
    }

    fn compared(position: Option<usize>, comparison: Comparison, error: DieselError) -> Self {
        ServerError {
            error: Arc::new(error),
            is_of_statement: comparison.is_of_statement,
            position: position.or(comparison.position),
        }
    }

    /// Returns the server's suggestion, which can contain values. See [`DbError::hint`](crate::DbError::hint).
    pub fn hint(&self) -> Option<&str> {
        self.information()?.hint()
    }

    /// Returns the server's detail, which quotes values. See [`DbError::detail`](crate::DbError::detail).
    pub fn detail(&self) -> Option<&str> {
        self.information()?.details()
    }

    /// Returns the position of the error in the caller's statement, in characters from 1. See
    /// [`DbError::position`](crate::DbError::position).
    pub fn position(&self) -> Option<usize> {
        self.position
    }

    fn information(&self) -> Option<&(dyn DatabaseErrorInformation + Send + Sync)> {
        match &*self.error {
            DieselError::DatabaseError(_, information) => Some(&**information),
            _ => None,
        }
    }

    /// Returns the driver's error, including the values that it quotes.
    pub fn driver_error(&self) -> &DieselError {
        &self.error
    }
}

impl From<DieselError> for ServerError {
    fn from(error: DieselError) -> Self {
        ServerError::at(None, error)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.error {
            DieselError::DatabaseError(_, information) if self.is_of_statement => {
                write!(formatter, "{}", Escaped(information.message()))
            }
            error => show(error, formatter),
        }
    }
}

impl fmt::Debug for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ServerError({self})")
    }
}

impl std::error::Error for ServerError {}

/// Writes an error without values. A fixed text replaces the errors of the driver that may contain any text.
fn show(error: &DieselError, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    match error {
        DieselError::DatabaseError(kind, information) => match message(*kind, &**information) {
            Some(shown) => write!(out, "{}", Escaped(shown)),
            None => {
                for (object, name) in [
                    ("constraint", information.constraint_name()),
                    ("table", information.table_name()),
                    ("column", information.column_name()),
                ] {
                    if let Some(name) = name.filter(|name| is_name(name)) {
                        write!(out, "{object} \"{}\", ", Escaped(name))?;
                    }
                }
                out.write_str(HIDDEN)
            }
        },
        DieselError::InvalidCString(_) => out.write_str("the statement or the URL contains a NUL"),
        DieselError::QueryBuilderError(error) if error.is::<diesel::result::EmptyChangeset>() => {
            write!(out, "{error}")
        }
        DieselError::QueryBuilderError(_) => {
            out.write_str("the query could not be built; see driver_error()")
        }
        DieselError::SerializationError(_) => {
            out.write_str("a value could not be serialized; see driver_error()")
        }
        // The message contains byte positions and no text.
        DieselError::DeserializationError(error) if error.is::<std::str::Utf8Error>() => {
            write!(out, "{error}")
        }
        DieselError::DeserializationError(_) => {
            out.write_str("a value could not be deserialized; see driver_error()")
        }
        DieselError::RollbackErrorOnCommit {
            rollback_error,
            commit_error,
        } => {
            out.write_str("COMMIT failed: ")?;
            show(commit_error, out)?;
            out.write_str("; ROLLBACK failed too: ")?;
            show(rollback_error, out)
        }
        DieselError::NotFound
        | DieselError::RollbackTransaction
        | DieselError::AlreadyInTransaction
        | DieselError::NotInTransaction
        | DieselError::BrokenTransactionManager
        | DieselError::IntegerConversion(_) => write!(out, "{error}"),
        _ => out.write_str(HIDDEN),
    }
}

/// Returns the message without its values, or `None` if the message is unknown.
fn message(
    kind: DatabaseErrorKind,
    information: &(dyn DatabaseErrorInformation + Send + Sync),
) -> Option<String> {
    let message = information.message().trim_end();
    // A function of the user can raise a text that looks like a constraint error, but it rarely sets the error code.
    let is_constraint = message.contains(" constraint failed: ")
        || message.contains(" violates ") && message.contains(" constraint");
    match kind {
        DatabaseErrorKind::Unknown if is_constraint => None,
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
            matching::shown(message).or_else(|| connect::lines(message, HIDDEN))
        }
        _ => matching::shown(message),
    }
}

/// Returns the meaning of an error.
///
/// If diesel's kind is too general, the beginning of the English message decides. A server that uses another language
/// needs `lc_messages = C`. Only known messages count, because an unknown one may quote a value that looks like another
/// message.
pub(crate) fn meaning(error: &DieselError) -> Meaning {
    const BEGINNINGS: [(&str, Meaning); 24] = [
        (
            "cached plan must not change result type",
            Meaning::StalePlan,
        ),
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
        (
            "canceling statement due to statement timeout",
            Meaning::StatementTimeout,
        ),
        (
            "canceling statement due to lock timeout",
            Meaning::LockTimeout,
        ),
        ("could not obtain lock", Meaning::LockTimeout),
        ("database is locked", Meaning::LockTimeout),
        ("database table is locked", Meaning::LockTimeout),
        ("attempt to write a readonly database", Meaning::ReadOnly),
        ("database or disk is full", Meaning::DiskFull),
        ("syntax error", Meaning::Syntax),
        ("fts5: syntax error", Meaning::Syntax),
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
        // From version 18, PostgreSQL reports `ON DELETE RESTRICT` with a code of its own.
        DatabaseErrorKind::ForeignKeyViolation | DatabaseErrorKind::RestrictViolation => {
            Meaning::ForeignKey
        }
        DatabaseErrorKind::NotNullViolation => Meaning::NotNull,
        DatabaseErrorKind::CheckViolation => Meaning::Check,
        DatabaseErrorKind::ExclusionViolation => Meaning::Exclusion,
        DatabaseErrorKind::SerializationFailure => Meaning::Conflict,
        DatabaseErrorKind::ReadOnlyTransaction => Meaning::ReadOnly,
        // libpq rejects a statement with too many parameters and sends nothing, so the connection is not lost.
        DatabaseErrorKind::UnableToSendCommand
            if information.message().starts_with("number of parameters") =>
        {
            Meaning::Other
        }
        DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
            Meaning::Lost
        }
        _ => {
            let message = information.message();
            let is_near = message.starts_with("near \"") && message.ends_with("\": syntax error");
            // PostgreSQL writes the name of the file between this beginning and this end.
            let is_full =
                message.starts_with("could not ") && message.ends_with("No space left on device");
            let line = connect::without_severity(message.lines().next().unwrap_or_default());
            let beginning = BEGINNINGS.iter().find(|(text, _)| line.starts_with(text));
            let meaning = match beginning {
                _ if is_near => Meaning::Syntax,
                _ if is_full => Meaning::DiskFull,
                // diesel's kind is that of an error which a trigger raises: SQLite implements `RESTRICT` as a trigger.
                _ if message == "FOREIGN KEY constraint failed" => Meaning::ForeignKey,
                Some((_, meaning)) => *meaning,
                None => return Meaning::Other,
            };
            let is_known = match meaning {
                // libpq appends lines.
                Meaning::Lost => matching::shown(line).is_some(),
                _ => matching::shown(message).is_some(),
            };
            if is_known { meaning } else { Meaning::Other }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_as(kind: DatabaseErrorKind, message: &str) -> String {
        let error = DieselError::DatabaseError(kind, Box::new(message.to_owned()));
        let error = ServerError::from(error);
        assert_eq!(format!("{error:?}"), format!("ServerError({error})"));
        error.to_string()
    }

    fn shown(message: &str) -> String {
        shown_as(DatabaseErrorKind::Unknown, message)
    }

    #[test]
    fn values_and_statements_are_redacted_and_names_are_shown() {
        for (message, expected) in [
            (
                "invalid input syntax for type integer: \"secret\"",
                "invalid input syntax for type integer: \"…\"",
            ),
            (
                "value \"4711\" is out of range for type integer",
                "value \"…\" is out of range for type integer",
            ),
            (
                "syntax error at or near \"secret\"",
                "syntax error at or near \"…\"",
            ),
            ("near \"secret\": syntax error", "near \"…\": syntax error"),
            (
                "column \"a\" of relation \"b\" does not exist",
                "column \"a\" of relation \"b\" does not exist",
            ),
            // Values that imitate the end of the message, a name, or another line.
            (
                "value \"a\" is out of range for type secret\" is out of range for type integer",
                "value \"…\" is out of range for type integer",
            ),
            (
                "invalid input syntax for type date: \"x\" column \"secret\"",
                "invalid input syntax for type date: \"…\"",
            ),
            (
                "invalid input syntax for type date: \"x\nsecret\"",
                "invalid input syntax for type date: \"…\"",
            ),
            (
                "operator does not exist: character varying(10) ~~* public.\"Mood\"[]",
                "operator does not exist: character varying(10) ~~* public.\"Mood\"[]",
            ),
            (
                "function größe(timestamp(3) without time zone, integer[]) does not exist",
                "function größe(timestamp(3) without time zone, integer[]) does not exist",
            ),
            (
                "relation \"a\u{1b}b\" does not exist",
                r#"relation "a\u{1b}b" does not exist"#,
            ),
            ("no such table: secret", "no such table: …"),
            (
                "unable to open database: secret",
                "unable to open database: …",
            ),
        ] {
            assert_eq!(shown(message), expected);
        }
    }

    #[test]
    fn unknown_messages_are_not_shown() {
        for message in [
            "",
            "secret",
            "it failed\nDETAIL: secret",
            "column \"secret",
            "relation \"a\" does not exist\nDETAIL: secret",
            "relation \"a\nsecret\" does not exist",
            "relation \"a\" secret \"b\" does not exist",
            "function f(integer, se cret) does not exist",
            "cannot execute secret in a read-only transaction",
            "la relation « secret » n'existe pas",
            "syntaxe en entrée invalide pour le type integer : « secret »",
            "Syntaxfehler bei »secret«",
            "UNIQUE constraint failed: secret.secret",
            "duplicate key value violates unique constraint \"secret\"",
            &format!("relation \"{}\" does not exist", "secret".repeat(40)),
        ] {
            assert_eq!(shown(message), HIDDEN, "{message}");
        }
    }

    #[test]
    fn sqlite_violations_show_only_names() {
        let unique = "UNIQUE constraint failed: users.user name, users.email";
        assert_eq!(shown_as(DatabaseErrorKind::UniqueViolation, unique), unique);
        let check = DatabaseErrorKind::CheckViolation;
        let named = "CHECK constraint failed: pets_legs";
        assert_eq!(shown_as(check, named), named);
        let unnamed = "CHECK constraint failed: role IN ('secret')";
        assert_eq!(shown_as(check, unnamed), "CHECK constraint failed: …");
    }

    #[test]
    fn lost_connection_message_is_one_line() {
        let lost = "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n\
                    \tbefore or while processing the request.\n";
        let expected = "server closed the connection unexpectedly";
        for kind in [
            DatabaseErrorKind::ClosedConnection,
            DatabaseErrorKind::UnableToSendCommand,
        ] {
            assert_eq!(shown_as(kind, lost), expected);
        }
        let several =
            format!("FATAL:  terminating connection due to administrator command\n{lost}secret\n");
        let expected = format!(
            "FATAL:  terminating connection due to administrator command; {expected}; {HIDDEN}"
        );
        assert_eq!(
            shown_as(DatabaseErrorKind::ClosedConnection, &several),
            expected
        );
    }

    /// The names that the server sends beside an unknown message.
    #[derive(Debug)]
    struct French;

    impl DatabaseErrorInformation for French {
        fn message(&self) -> &str {
            "la valeur « secret » rompt la contrainte unique « users_email_key »"
        }

        fn details(&self) -> Option<&str> {
            Some("La clé « (email)=(secret) » existe déjà.")
        }

        fn hint(&self) -> Option<&str> {
            Some("secret")
        }

        fn table_name(&self) -> Option<&str> {
            Some("users")
        }

        fn column_name(&self) -> Option<&str> {
            Some("a\nb")
        }

        fn constraint_name(&self) -> Option<&str> {
            Some("users_email_key")
        }

        fn statement_position(&self) -> Option<i32> {
            None
        }
    }

    #[test]
    fn names_are_shown_if_the_message_is_hidden() {
        let error =
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, Box::new(French));
        assert_eq!(
            ServerError::from(error).to_string(),
            format!("constraint \"users_email_key\", table \"users\", {HIDDEN}")
        );
    }

    #[test]
    fn other_driver_errors_show_only_their_kind() {
        let text = || "secret".into();
        for error in [
            DieselError::QueryBuilderError(text()),
            DieselError::SerializationError(text()),
            DieselError::DeserializationError(text()),
            DieselError::InvalidCString(std::ffi::CString::new("secret\0secret").unwrap_err()),
            DieselError::RollbackErrorOnCommit {
                rollback_error: Box::new(DieselError::QueryBuilderError(text())),
                commit_error: Box::new(DieselError::SerializationError(text())),
            },
        ] {
            let error = ServerError::from(error);
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("secret") && shown.contains(' '), "{shown}");
            assert!(std::error::Error::source(&error).is_none());
        }
    }

    #[test]
    fn quoted_values_do_not_change_the_meaning() {
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
        for message in [
            "invalid input syntax for type integer: \"deadlock detected\"",
            "syntaxe en entrée invalide pour le type integer : « deadlock detected »",
            "no such column: deadlock detected",
            "unable to open database: database or disk is full",
            "an order says: canceling statement due to statement timeout",
            "deadlock detected by a trigger",
            "deadlock detected\nby a trigger",
            "terminating connection of a customer",
        ] {
            assert_eq!(of(message), Meaning::Other, "{message}");
        }
    }
}
