//! What can go wrong between a call and its rows.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use diesel::result::Error as DieselError;

use crate::tokens::Kind;
use singleton_core::__private::Escaped;

mod migration;
mod server;
mod violation;

pub use migration::{MigrationError, MigrationStop};
pub use server::{ConnectError, ServerError};
pub(crate) use server::{Meaning, compare, meaning, statement_text, without_binds};

/// Why the database service did not do what it was asked to.
///
/// Neither `Display` nor `Debug`, nor those of its sources, show the values of a statement; [`ServerError`] says what they show
/// of the server's messages.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The service, or one that it requires, could not be initialised.
    #[error(transparent)]
    Service(#[from] singleton_core::Error),
    /// No connection could be opened.
    #[error("could not connect to {target}: {source}")]
    #[non_exhaustive]
    Connect {
        /// The database, without its password.
        target: String,
        /// What the driver says.
        source: ConnectError,
    },
    /// All connections were in use, or none could be opened, until the time limit.
    #[error(
        "timed out after {timeout:?} waiting for a connection ({open} of at most {maximum} open, {in_use} in use, \
         {idle} idle, {waiting} waiting{}); give connections back sooner, or raise DB_POOL_SIZE or DB_POOL_TIMEOUT{}",
        longest.map(|longest| format!("; {longest}")).unwrap_or_default(),
        last_failure.as_ref().map(|failure| format!(": {failure}")).unwrap_or_default()
    )]
    #[non_exhaustive]
    PoolTimeout {
        /// How long the caller was to wait at most.
        timeout: Duration,
        /// How many connections were open.
        open: u32,
        /// How many may be open at once.
        maximum: u32,
        /// How many of those were idle.
        idle: u32,
        /// How many callers had one, or were about to get it.
        in_use: usize,
        /// How many callers waited for one of those to come back.
        waiting: usize,
        /// Who had held one longest.
        longest: Option<Holder>,
        /// Why connecting failed the last time, unless it has succeeded since.
        last_failure: Option<String>,
        /// What the pool says, where it was the pool that did not deliver.
        source: Option<r2d2::Error>,
    },
    /// The service was shut down.
    #[error("DatabaseService has been shut down")]
    Closed,
    /// A row would have repeated what must be unique.
    #[error("unique constraint violated: {source}")]
    #[non_exhaustive]
    UniqueViolation {
        /// The name of the constraint; SQLite does not tell it.
        constraint: Option<String>,
        /// The table.
        table: Option<String>,
        /// The columns of the constraint, where the server names them.
        columns: Vec<String>,
        /// What the server says.
        source: ServerError,
    },
    /// A row would have referred to one that is not there, or left others referring to none.
    #[error("foreign key constraint violated: {source}")]
    #[non_exhaustive]
    ForeignKeyViolation {
        /// The name of the constraint; SQLite tells neither it nor the table.
        constraint: Option<String>,
        /// The table.
        table: Option<String>,
        /// What the server says.
        source: ServerError,
    },
    /// A value is missing that must be there.
    #[error("not-null constraint violated: {source}")]
    #[non_exhaustive]
    NotNullViolation {
        /// The table.
        table: Option<String>,
        /// The column.
        column: Option<String>,
        /// What the server says.
        source: ServerError,
    },
    /// A value is not one of those that the table allows.
    #[error("check constraint violated: {source}")]
    #[non_exhaustive]
    CheckViolation {
        /// The name of the constraint. SQLite reports a constraint without a name by its expression, which is not kept here,
        /// because it may hold values.
        constraint: Option<String>,
        /// The table; SQLite does not tell it.
        table: Option<String>,
        /// What the server says.
        source: ServerError,
    },
    /// The transaction was rolled back since no order of it and others at the same time explains what they saw.
    #[error("transaction rolled back because of others at the same time: {0}")]
    SerializationFailure(#[source] ServerError),
    /// The transaction was rolled back since it and others waited for each other.
    #[error("transaction rolled back because of a deadlock: {0}")]
    Deadlock(#[source] ServerError),
    /// The statement took longer than the server's `statement_timeout`.
    #[error("statement timed out: {0}")]
    StatementTimeout(#[source] ServerError),
    /// A lock was not to be had within the time that a statement waits for one.
    #[error("timed out waiting for a lock: {0}")]
    LockTimeout(#[source] ServerError),
    /// The connection broke, or the server ended it. A statement outside of a transaction may have been executed.
    #[error("connection lost: {0}")]
    ConnectionLost(#[source] ServerError),
    /// The server has not answered within `DB_SOCKET_TIMEOUT`, and the connection was closed. A statement outside of a transaction
    /// may have been executed, or may still be.
    #[error("no answer from the server within {limit:?}, so the connection was closed: {source}")]
    #[non_exhaustive]
    NoAnswer {
        /// How long an answer was waited for.
        limit: Duration,
        /// What the driver says.
        source: ServerError,
    },
    /// The connection was lost while a transaction was committed: it may have been, or not.
    #[error(
        "connection lost during COMMIT, so the transaction may have been committed or not: {0}"
    )]
    OutcomeUnknown(#[source] ServerError),
    /// Something was to change that is only to be read.
    #[error("the database is read-only here: {0}")]
    ReadOnly(#[source] ServerError),
    /// There is no room left for what was to be written; nothing was.
    #[error("the disk of the database is full: {0}")]
    DiskFull(#[source] ServerError),
    /// The statement is not understood.
    #[error("syntax error: {0}")]
    Syntax(#[source] ServerError),
    /// The server refused the statement for another reason.
    #[error("database query failed: {0}")]
    Query(#[source] ServerError),
    /// The statement holds no statement.
    #[error("the statement is empty")]
    EmptyStatement,
    /// There is more than one statement where one is expected.
    #[error("only one statement can be executed at a time, and after the first follows {second}")]
    #[non_exhaustive]
    MultipleStatements {
        /// The word that the second statement begins with, if it is a keyword of SQL; else what kind of text it begins with,
        /// such as `a literal`.
        second: String,
    },
    /// `COPY` between server and client.
    #[error(
        "COPY … FROM STDIN and TO STDOUT are no statements with rows; use bulk_insert, or diesel's copy_from and copy_to"
    )]
    CopyUnsupported,
    /// The statement holds a placeholder that is none of ours.
    #[error("{placeholder} is no parameter here; name it, as in :id, and give it with params!")]
    #[non_exhaustive]
    RawPlaceholder {
        /// The placeholder, such as `?`, `$1` or `@name`; of one that is neither numbered nor named in ASCII the first character
        /// and `…`.
        placeholder: String,
    },
    /// The statement names a parameter that was not given.
    #[error(
        "the statement needs a parameter :{}, which was not given",
        Escaped(name)
    )]
    #[non_exhaustive]
    MissingParameter {
        /// The parameter.
        name: String,
    },
    /// A parameter was given that the statement does not name.
    #[error(
        "the parameter :{} was given, but the statement does not use it",
        Escaped(name)
    )]
    #[non_exhaustive]
    UnusedParameter {
        /// The parameter.
        name: String,
    },
    /// Rows were to be inserted into no columns, or into one twice.
    #[error("rows cannot go into these columns: {problem}")]
    #[non_exhaustive]
    InvalidColumns {
        /// What is wrong with them.
        problem: String,
    },
    /// A row has not as many values as there are columns to go into.
    #[error("row {row} has {found} values for {expected} columns")]
    #[non_exhaustive]
    RowLength {
        /// Which of the rows, from 1.
        row: u64,
        /// The number of columns.
        expected: usize,
        /// The number of values.
        found: usize,
    },
    /// A value would not be stored as what it is.
    #[error("the value for {name:?}{} cannot be stored: {problem}", row.map(|row| format!(" in row {row}")).unwrap_or_default())]
    #[non_exhaustive]
    UnstorableValue {
        /// The parameter or the column.
        name: String,
        /// Which of the rows that are inserted, from 1.
        row: Option<u64>,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The statement would end the transaction that a closure runs in, behind its back.
    #[error(
        "a transaction ends with its closure: return Ok to commit, Err to roll back, and execute no COMMIT or ROLLBACK"
    )]
    EndsTransaction,
    /// A statement that always has a row had none.
    #[error("the statement returned no row where there must be one")]
    NoRow,
    /// The row has no such column.
    #[error("there is no column {column:?} in the row; it has {}", Escaped(available.join(", ")))]
    #[non_exhaustive]
    UnknownColumn {
        /// The column asked for.
        column: String,
        /// The columns that there are.
        available: Vec<String>,
    },
    /// The column's value cannot be read as the type asked for.
    #[error("column {column:?} holds {found}, which cannot be read as {expected}")]
    #[non_exhaustive]
    WrongType {
        /// The column.
        column: String,
        /// The kind of value that it holds.
        found: &'static str,
        /// The type asked for.
        expected: &'static str,
    },
    /// The server sent a value that has no counterpart here, such as text in another encoding.
    #[error("column {column:?} holds a value that cannot be represented: {source}")]
    #[non_exhaustive]
    UnreadableValue {
        /// The column.
        column: String,
        /// The reason, a [`ServerError`]. Its [`driver_error`](ServerError::driver_error) returns the full text.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// There is no such table.
    #[error("there is no table {:?}", shortened(table))]
    #[non_exhaustive]
    UnknownTable {
        /// The table asked for.
        table: String,
    },
    /// What should be the name of a table cannot be one.
    #[error(
        "{:?} is no name of a table: {problem}; write name, schema.name, or \"Any Name\" in quotes as in a statement",
        shortened(table)
    )]
    #[non_exhaustive]
    InvalidTableName {
        /// What was given.
        table: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Migrations could not be read, applied or reverted.
    #[error("migration failed: {0}")]
    Migration(#[from] MigrationError),
    /// A fake database was asked for what only a real one has.
    #[error("a fake database has no {what}; use a real one, or ask for rows only")]
    #[non_exhaustive]
    Fake {
        /// What is missing.
        what: &'static str,
    },
}

/// The keywords that begin a statement.
const STATEMENTS: [&str; 41] = [
    "ALTER",
    "ANALYZE",
    "ATTACH",
    "BEGIN",
    "CALL",
    "CHECKPOINT",
    "CLUSTER",
    "COMMENT",
    "COMMIT",
    "COPY",
    "CREATE",
    "DEALLOCATE",
    "DECLARE",
    "DELETE",
    "DETACH",
    "DO",
    "DROP",
    "END",
    "EXECUTE",
    "EXPLAIN",
    "GRANT",
    "INSERT",
    "LISTEN",
    "LOCK",
    "MERGE",
    "NOTIFY",
    "PRAGMA",
    "PREPARE",
    "REINDEX",
    "RELEASE",
    "REPLACE",
    "REVOKE",
    "ROLLBACK",
    "SAVEPOINT",
    "SELECT",
    "SET",
    "TRUNCATE",
    "UPDATE",
    "VACUUM",
    "VALUES",
    "WITH",
];

impl DbError {
    /// Tells whether nothing has changed and the same may well succeed if it is done again: after a
    /// serialisation failure, a deadlock, or when a lock or a connection was not to be had in time.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            DbError::SerializationFailure(_)
                | DbError::Deadlock(_)
                | DbError::LockTimeout(_)
                | DbError::PoolTimeout { .. }
        )
    }

    /// The error of a connection that was not opened; `target` is the URL without its password.
    pub(crate) fn connect(target: String, source: diesel::ConnectionError) -> Self {
        DbError::Connect {
            source: ConnectError::new(&target, source),
            target,
        }
    }

    /// The error of an attempt to connect that did not get as far as the driver, or that was given up.
    pub(crate) fn not_connected(target: String, reason: String) -> Self {
        DbError::Connect {
            source: ConnectError::ours(&target, reason),
            target,
        }
    }

    /// The error for a second statement that begins with this token.
    pub(crate) fn multiple_statements(kind: Kind, text: &str) -> Self {
        let second = match kind {
            Kind::Word if text.starts_with(|first: char| first.is_ascii_digit()) => "a number",
            Kind::Word => STATEMENTS
                .into_iter()
                .find(|word| word.eq_ignore_ascii_case(text))
                .unwrap_or("a word"),
            Kind::Quoted => "a literal or a quoted name",
            Kind::Parameter | Kind::Placeholder => "a parameter",
            Kind::Open => "a parenthesis",
            _ => "a character",
        };
        DbError::MultipleStatements {
            second: second.to_owned(),
        }
    }

    /// The error for a placeholder of the backend's own.
    pub(crate) fn raw_placeholder(text: &str) -> Self {
        const LONGEST: usize = 64;
        let sign = text.chars().next().unwrap_or('?');
        let name = &text[sign.len_utf8().min(text.len())..];
        let is_numbered = "?$:".contains(sign)
            && name.len() <= 5
            && name.bytes().all(|byte| byte.is_ascii_digit());
        let is_named = sign != '#'
            && name.len() <= LONGEST
            && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        DbError::RawPlaceholder {
            placeholder: if is_numbered || is_named {
                text.to_owned()
            } else {
                format!("{sign}…")
            },
        }
    }

    /// The error for a value of a column that the driver cannot read.
    pub(crate) fn unreadable(column: &str, source: Box<dyn StdError + Send + Sync>) -> Self {
        DbError::UnreadableValue {
            column: column.to_owned(),
            source: Box::new(ServerError::from(DieselError::DeserializationError(source))),
        }
    }

    /// The error of a `COMMIT`.
    pub(crate) fn of_commit(source: DieselError) -> Self {
        match DbError::from(source) {
            DbError::ConnectionLost(source) => DbError::OutcomeUnknown(source),
            error => error,
        }
    }
}

/// Who has held a connection longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Where in the program it was taken.
    pub location: &'static Location<'static>,
    /// For how long it has been held.
    pub held: Duration,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { location, held } = self;
        write!(
            formatter,
            "the longest has been held for {held:.1?}, taken at {location}"
        )
    }
}

/// As much of a name as an error shows.
fn shortened(name: &str) -> Cow<'_, str> {
    const MAX: usize = 128;
    match name.floor_char_boundary(MAX) {
        end if end == name.len() => name.into(),
        end => format!("{}…", &name[..end]).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;
    use crate::backend::Backend;
    use crate::sql;

    #[track_caller]
    fn refused(sql: &str, backend: Backend) -> String {
        let error = sql::parse(sql, backend).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("secret"), "{shown}");
        error.to_string()
    }

    #[test]
    fn second_statement_error_shows_at_most_a_keyword() {
        for (second, shown) in [
            ("delete FROM a", "DELETE"),
            ("secret", "a word"),
            ("'secret'", "a literal or a quoted name"),
            ("\"secret\"", "a literal or a quoted name"),
            ("[secret]", "a literal or a quoted name"),
            ("4711secret", "a number"),
            (":secret", "a parameter"),
            ("(secret", "a parenthesis"),
            ("-secret", "a character"),
        ] {
            let error = refused(&format!("SELECT 1; {second}"), Backend::Sqlite);
            assert!(error.ends_with(&format!("follows {shown}")), "{error}");
        }
    }

    #[test]
    fn placeholder_error_shows_at_most_a_number_or_name() {
        let (postgres, sqlite) = (Backend::Postgres, Backend::Sqlite);
        let long = format!("@{}", "secret".repeat(20));
        for (backend, placeholder, shown) in [
            (postgres, "$1", "$1"),
            (postgres, "$1secret", "$…"),
            (sqlite, "?", "?"),
            (sqlite, "?12", "?12"),
            (sqlite, "?1secret", "?…"),
            (sqlite, ":1", ":1"),
            (sqlite, "$name", "$name"),
            (sqlite, "@name", "@name"),
            (sqlite, "#secret", "#…"),
            (sqlite, "@sécretsecret", "@…"),
            (sqlite, "@1secret", "@…"),
            (sqlite, &long, "@…"),
        ] {
            let error = refused(&format!("SELECT {placeholder}"), backend);
            assert!(error.starts_with(&format!("{shown} is no")), "{error}");
        }
    }

    #[test]
    fn unreadable_value_is_not_shown() {
        let bytes = b"secret\xff".to_vec();
        let (listed, problem) = (format!("{bytes:?}"), String::from_utf8(bytes).unwrap_err());
        assert!(format!("{problem:?}").contains(&listed), "{problem:?}");
        for source in [Box::new(problem) as _, "secret".into()] {
            let error = DbError::unreadable("name", source);
            let source = error.source().unwrap();
            let server: &ServerError = source.downcast_ref().unwrap();
            let in_full = format!("{:?}", server.driver_error());
            assert!(in_full.contains("secret") || in_full.contains(&listed));
            let shown = format!("{error} {error:?} {source} {source:?}");
            assert!(
                !shown.contains("secret") && !shown.contains(&listed),
                "{shown}"
            );
        }
    }
}
