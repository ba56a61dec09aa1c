//! The errors of the database service.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::panic::Location;
use std::time::Duration;

use diesel::result::Error as DieselError;

use crate::tokens::Kind;
use singleton_core::__private::Escaped;

mod chain;
mod migration;
mod server;
mod violation;

pub(crate) use chain::{Chain, one_line};
pub use migration::{MigrationError, MigrationStop, RefusedStatement};
pub use server::{ConnectError, ServerError};
pub(crate) use server::{
    Meaning, meaning, remember_names_of_statement, remember_place_in_statement, statement_text,
    without_binds,
};

/// An error of the database service.
///
/// `Display` is one line that ends with the messages of all causes, so [`source`](StdError::source) returns `None`.
/// [`cause`](DbError::cause) returns the error below.
///
/// `Display` and `Debug` of the error and of its causes never show a statement's values. [`ServerError`] documents
/// which parts of the server's messages they show.
// A field `r#source` has the name `source`, and thiserror does not return it from `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The service or one of its dependencies could not be initialized.
    #[error(transparent)]
    Service(#[from] singleton_core::Error),
    /// A connection could not be opened.
    #[error("could not connect to {target}: {source}")]
    #[non_exhaustive]
    Connect {
        /// The database, without its password.
        target: String,
        /// The driver's error.
        r#source: ConnectError,
    },
    /// No connection became available within the timeout: all were in use, or none could be opened.
    ///
    /// The numbers are those of one moment. `in_use` and `idle` together are at most `open`, and `in_use` and
    /// `connecting` at most `maximum`. The caller that gets the error is not counted.
    #[error(
        "timed out after {timeout:?} {} ({open} of at most {maximum} open, {in_use} in use, {idle} idle, \
         {waiting} waiting, {connecting} connecting{}){}",
        PoolProblem::of(*in_use, *maximum, last_failure.as_deref(), r#source.as_ref()),
        longest.map(|longest| format!("; {longest}")).unwrap_or_default(),
        PoolProblem::of(*in_use, *maximum, last_failure.as_deref(), r#source.as_ref()).advice_or_reasons()
    )]
    #[non_exhaustive]
    PoolTimeout {
        /// The timeout of the checkout.
        timeout: Duration,
        /// The number of open connections.
        open: u32,
        /// The maximum number of open connections.
        maximum: u32,
        /// The number of idle connections.
        idle: u32,
        /// The number of callers that held a connection.
        in_use: usize,
        /// The number of callers for which a connection was being opened or checked.
        connecting: u32,
        /// The number of callers that waited until another one returns its connection.
        waiting: usize,
        /// The caller that has held a connection for the longest time.
        longest: Option<Holder>,
        /// The reason why the last attempt to connect failed. `None` after a success.
        last_failure: Option<String>,
        /// The pool's error, if the pool could not open a connection.
        r#source: Option<r2d2::Error>,
    },
    /// The service was shut down.
    #[error("DatabaseService has been shut down")]
    Closed,
    /// A row would have duplicated a unique value.
    #[error("unique constraint violated: {source}")]
    #[non_exhaustive]
    UniqueViolation {
        /// The name of the constraint. SQLite does not report it.
        constraint: Option<String>,
        /// The table.
        table: Option<String>,
        /// The columns of the constraint, if the server reports them.
        columns: Vec<String>,
        /// The server's error.
        r#source: ServerError,
    },
    /// A row would have referred to a missing row, or a deleted row has others that refer to it, also with `RESTRICT`.
    #[error("foreign key constraint violated: {source}")]
    #[non_exhaustive]
    ForeignKeyViolation {
        /// The name of the constraint. SQLite does not report it.
        constraint: Option<String>,
        /// The table. SQLite does not report it.
        table: Option<String>,
        /// The server's error.
        r#source: ServerError,
    },
    /// A required value is NULL.
    #[error("not-null constraint violated: {source}")]
    #[non_exhaustive]
    NotNullViolation {
        /// The table.
        table: Option<String>,
        /// The column.
        column: Option<String>,
        /// The server's error.
        r#source: ServerError,
    },
    /// A value violates a `CHECK` constraint.
    #[error("check constraint violated: {source}")]
    #[non_exhaustive]
    CheckViolation {
        /// The name of the constraint. SQLite reports the expression of an unnamed constraint; it is dropped, because
        /// it may contain values.
        constraint: Option<String>,
        /// The table. SQLite does not report it.
        table: Option<String>,
        /// The server's error.
        r#source: ServerError,
    },
    /// A row conflicts with another one by an `EXCLUDE` constraint. SQLite has no such constraints.
    #[error("exclusion constraint violated: {source}")]
    #[non_exhaustive]
    ExclusionViolation {
        /// The name of the constraint.
        constraint: Option<String>,
        /// The table.
        table: Option<String>,
        /// The server's error.
        r#source: ServerError,
    },
    /// The transaction was rolled back because of a conflict with concurrent transactions: their results match no
    /// serial order.
    #[error("transaction rolled back because of a conflict with concurrent transactions: {0}")]
    SerializationFailure(ServerError),
    /// The transaction was rolled back because it and others waited for each other.
    #[error("transaction rolled back because of a deadlock: {0}")]
    Deadlock(ServerError),
    /// The statement exceeded the server's `statement_timeout`.
    #[error("statement timed out: {0}")]
    StatementTimeout(ServerError),
    /// The statement waited for a lock for longer than the lock timeout.
    #[error("timed out waiting for a lock: {0}")]
    LockTimeout(ServerError),
    /// The connection broke, or the server ended it. A statement outside a transaction may have been executed.
    #[error("connection lost: {0}")]
    ConnectionLost(ServerError),
    /// The server did not answer within `DB_SOCKET_TIMEOUT`, and the connection was closed. A statement outside a
    /// transaction may have been executed, or may still run.
    #[error("no answer from the server within {limit:?}, so the connection was closed: {source}")]
    #[non_exhaustive]
    NoAnswer {
        /// The timeout.
        limit: Duration,
        /// The driver's error.
        r#source: ServerError,
    },
    /// The connection was lost during `COMMIT`. The transaction may have been committed or not.
    #[error(
        "connection lost during COMMIT, so the transaction may have been committed or not: {0}"
    )]
    OutcomeUnknown(ServerError),
    /// The statement writes, but the transaction or the database is read-only.
    #[error("the database is read-only here: {0}")]
    ReadOnly(ServerError),
    /// The disk is full. Nothing was written.
    #[error("the disk of the database is full: {0}")]
    DiskFull(ServerError),
    /// The statement has a syntax error.
    #[error(
        "syntax error{place}: {error}",
        place = .0.position().map(|position| format!(" at character {position}")).unwrap_or_default(),
        error = .0
    )]
    Syntax(ServerError),
    /// The server refused the statement for another reason.
    #[error("database query failed: {0}")]
    Query(ServerError),
    /// The text contains no statement.
    #[error("the statement is empty")]
    EmptyStatement,
    /// The text contains more than one statement. Nothing was executed.
    #[error("only one statement can be executed at a time, but {second} follows the first one")]
    #[non_exhaustive]
    MultipleStatements {
        /// The first word of the second statement if it is an SQL keyword, otherwise the kind of its first token, such
        /// as `a literal`.
        second: String,
    },
    /// The statement is a `COPY` between server and client.
    #[error(
        "COPY … FROM STDIN and COPY … TO STDOUT cannot be executed as statements; use bulk_insert, or diesel's copy_from and copy_to"
    )]
    CopyUnsupported,
    /// The statement contains a placeholder of the backend instead of a `:name` parameter.
    #[error(
        "the placeholder {placeholder} is not supported; name the parameter, as in :id, and pass its value with params!"
    )]
    #[non_exhaustive]
    RawPlaceholder {
        /// The placeholder, such as `?`, `$1` or `@name`. If it is neither a number nor an ASCII name, its first
        /// character and `…`.
        placeholder: String,
    },
    /// The statement names a parameter that was not passed.
    #[error(
        "the statement needs a parameter :{}, which was not given",
        Escaped(name)
    )]
    #[non_exhaustive]
    MissingParameter {
        /// The parameter.
        name: String,
    },
    /// A parameter was passed that the statement does not name.
    #[error(
        "the parameter :{} was given, but the statement does not use it",
        Escaped(name)
    )]
    #[non_exhaustive]
    UnusedParameter {
        /// The parameter.
        name: String,
    },
    /// `bulk_insert` got no columns, or a column twice.
    #[error("rows cannot be inserted into these columns: {problem}")]
    #[non_exhaustive]
    InvalidColumns {
        /// The problem.
        problem: String,
    },
    /// The number of values in a row differs from the number of columns.
    #[error("row {row} has {found} values for {expected} columns")]
    #[non_exhaustive]
    RowLength {
        /// The position of the row, from 1.
        row: u64,
        /// The number of columns.
        expected: usize,
        /// The number of values.
        found: usize,
    },
    /// The database cannot store a value exactly.
    #[error("the value for {name:?}{} cannot be stored: {problem}", row.map(|row| format!(" in row {row}")).unwrap_or_default())]
    #[non_exhaustive]
    UnstorableValue {
        /// The parameter or the column.
        name: String,
        /// The position of the inserted row, from 1.
        row: Option<u64>,
        /// The reason.
        problem: &'static str,
    },
    /// The closure of a transaction executed a `COMMIT`, `ROLLBACK` or `PREPARE TRANSACTION`.
    ///
    /// A [`Connection`](crate::Connection) refuses such a statement and has executed nothing of it. The driver's
    /// connection inside executes it; then all later statements of the closure are refused, and so is the commit.
    #[error(
        "the closure ends its transaction: return Ok to commit or Err to roll back, and execute no COMMIT or ROLLBACK"
    )]
    EndsTransaction,
    /// An earlier statement of the transaction has failed, so the statement, or the commit, was refused. Nothing of
    /// the transaction is stored.
    ///
    /// PostgreSQL refuses all statements after a failed one, up to the rollback to an earlier savepoint. SQLite does so
    /// only if the failure has ended the transaction: `INSERT OR ROLLBACK`, a full disk, an I/O error.
    #[error("current transaction is aborted and executes nothing more; its first error was: {first}{}", place(*at))]
    #[non_exhaustive]
    TransactionAborted {
        /// The first error of the transaction.
        first: ServerError,
        /// The source location of the call that failed. `None` for a statement of diesel's DSL.
        at: Option<&'static Location<'static>>,
    },
    /// A table was changed since the statement was prepared on this connection, and the statement cannot be prepared
    /// again within the transaction. A retry of the whole transaction succeeds.
    ///
    /// Outside a transaction, the connection prepares and executes the statement again by itself.
    #[error("a table was changed since the statement was prepared: {0}")]
    StalePlan(ServerError),
    /// The backend cannot execute the query.
    #[error("the query cannot be executed: {what}")]
    #[non_exhaustive]
    Unsupported {
        /// The missing feature of the backend, and the way around it.
        what: &'static str,
    },
    /// A statement that must return a row returned none.
    #[error("the statement returned no row, but one is required")]
    NoRow,
    /// The row has no such column.
    #[error("there is no column {column:?} in the row; it has {}", Escaped(available.join(", ")))]
    #[non_exhaustive]
    UnknownColumn {
        /// The requested column.
        column: String,
        /// The row's columns.
        available: Vec<String>,
    },
    /// The column's value cannot be read as the requested type.
    #[error("column {column:?} holds {found}, which cannot be read as {expected}")]
    #[non_exhaustive]
    WrongType {
        /// The column.
        column: String,
        /// The kind of its value.
        found: &'static str,
        /// The requested type.
        expected: &'static str,
    },
    /// A row cannot be deserialized.
    #[error(
        "cannot deserialize {}: {}",
        place_in_result(*row, column.as_deref()),
        Escaped(problem)
    )]
    #[non_exhaustive]
    Deserialize {
        /// The position of the row in the result, from 1. `None` for [`Row::deserialize`](crate::Row::deserialize).
        row: Option<u64>,
        /// The column, if one is the reason. `None` if serde does not report it, as for flattened structs.
        column: Option<String>,
        /// The reason: the kind of the value, the type that it cannot be read as, or the columns of the row.
        problem: String,
    },
    /// A value cannot be converted to parameters.
    #[error(
        "cannot make parameters{}: {}",
        field.as_ref().map(|field| format!(" of field {field:?}")).unwrap_or_default(),
        Escaped(problem)
    )]
    #[non_exhaustive]
    Serialize {
        /// The field, if one is the reason.
        field: Option<String>,
        /// The reason.
        problem: String,
    },
    /// The server sent a value that [`Value`](crate::Value) cannot represent, such as text in another encoding.
    #[error("column {column:?} holds a value that cannot be represented: {source}")]
    #[non_exhaustive]
    UnreadableValue {
        /// The column.
        column: String,
        /// The reason, a [`ServerError`]. Its [`driver_error`](ServerError::driver_error) returns the full text.
        r#source: Box<dyn StdError + Send + Sync>,
    },
    /// The table does not exist.
    #[error("there is no table {:?}", shortened(table))]
    #[non_exhaustive]
    UnknownTable {
        /// The requested table.
        table: String,
    },
    /// The text is not a valid table name.
    #[error(
        "{:?} is not a table name: {problem}; write name, schema.name, or \"Any Name\" in quotes as in a statement",
        shortened(table)
    )]
    #[non_exhaustive]
    InvalidTableName {
        /// The given text.
        table: String,
        /// The reason.
        problem: &'static str,
    },
    /// Migrations could not be read, applied or reverted.
    #[error("migration failed: {0}")]
    Migration(MigrationError),
    /// A fake database does not support the call.
    #[error(
        "a fake database has no {what}; use a real database, or only statements that return rows"
    )]
    #[non_exhaustive]
    Fake {
        /// The missing feature.
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
    /// Returns whether nothing was changed and a retry can succeed: after a serialization failure, a deadlock, a stale
    /// plan, or a timeout while waiting for a lock or a connection.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            DbError::SerializationFailure(_)
                | DbError::Deadlock(_)
                | DbError::StalePlan(_)
                | DbError::LockTimeout(_)
                | DbError::PoolTimeout { .. }
        )
    }

    /// Returns the error below, for a downcast to its type.
    ///
    /// | error | cause |
    /// |---|---|
    /// | [`Connect`](DbError::Connect) | [`ConnectError`] |
    /// | [`PoolTimeout`](DbError::PoolTimeout) | [`r2d2::Error`], if the pool could not open a connection |
    /// | [`Migration`](DbError::Migration) | [`MigrationError`] |
    /// | [`Service`](DbError::Service) | the error that the service's `initialize` or `ping` returned |
    /// | any other error of the server or the driver | [`ServerError`] |
    /// | any other | `None` |
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, ServerError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let error = DatabaseService::execute_query("SELECT * FROM nowhere", params! {}).unwrap_err();
    /// assert_eq!(error.to_string(), "database query failed: no such table: nowhere");
    /// let cause: &ServerError = error.cause().and_then(|cause| cause.downcast_ref()).unwrap();
    /// assert_eq!(cause.to_string(), "no such table: nowhere");
    /// # });
    /// # Ok::<(), db_service::UrlError>(())
    /// ```
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            DbError::Service(error) => error.cause(),
            DbError::Connect { source, .. } => Some(source),
            DbError::PoolTimeout { source, .. } => source.as_ref().map(|error| error as _),
            DbError::UnreadableValue { source, .. } => Some(&**source),
            DbError::Migration(error) => Some(error),
            error => error.server_error().map(|error| error as _),
        }
    }

    /// Returns the server's suggestion, if it sent one.
    ///
    /// It can contain values: a function of the user can raise an error with any hint. So it is not a part of `Display`
    /// and `Debug`. SQLite has no hints.
    ///
    /// The hint, the detail and the position of [`TransactionAborted`](DbError::TransactionAborted) are those of the
    /// first error of the transaction, and those of [`Migration`](DbError::Migration) are those of the failed
    /// statement.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let error = DatabaseService::execute_query("SELECT nmae FROM pets", params! {}).unwrap_err();
    /// // On PostgreSQL: `Perhaps you meant to reference the column "pets.name".`, and `Some(8)`.
    /// assert_eq!((error.hint(), error.position()), (None, None));
    /// # });
    /// # Ok::<(), db_service::UrlError>(())
    /// ```
    pub fn hint(&self) -> Option<&str> {
        self.server_error().and_then(ServerError::hint)
    }

    /// Returns the server's detail, if it sent one, such as `Key (id)=(7) already exists.`.
    ///
    /// It quotes values. So it is not a part of `Display` and `Debug`, and should not be logged. SQLite has no details.
    pub fn detail(&self) -> Option<&str> {
        self.server_error().and_then(ServerError::detail)
    }

    /// Returns the position of the error in the statement, if it is known: the number of the character, from 1, in the
    /// text that the caller passed.
    ///
    /// A position in the value of a parameter is the position of its `:name`. One behind the last character means the
    /// end of the text. It is `None` on SQLite, whose driver reports none, for queries of diesel's DSL, whose text is
    /// not the caller's, for batches and migrations, and if PostgreSQL reports none, as for most errors that depend on
    /// stored values.
    pub fn position(&self) -> Option<usize> {
        self.server_error().and_then(ServerError::position)
    }

    /// Returns the error of the server or the driver.
    fn server_error(&self) -> Option<&ServerError> {
        match self {
            DbError::UniqueViolation { source, .. }
            | DbError::ForeignKeyViolation { source, .. }
            | DbError::NotNullViolation { source, .. }
            | DbError::CheckViolation { source, .. }
            | DbError::ExclusionViolation { source, .. }
            | DbError::NoAnswer { source, .. }
            | DbError::SerializationFailure(source)
            | DbError::Deadlock(source)
            | DbError::StatementTimeout(source)
            | DbError::LockTimeout(source)
            | DbError::ConnectionLost(source)
            | DbError::OutcomeUnknown(source)
            | DbError::ReadOnly(source)
            | DbError::DiskFull(source)
            | DbError::Syntax(source)
            | DbError::StalePlan(source)
            | DbError::TransactionAborted { first: source, .. }
            | DbError::Query(source) => Some(source),
            DbError::UnreadableValue { source, .. } => source.downcast_ref(),
            DbError::Migration(error) => {
                let cause: &DbError = error.cause()?.downcast_ref()?;
                cause.server_error()
            }
            DbError::Service(_)
            | DbError::Connect { .. }
            | DbError::PoolTimeout { .. }
            | DbError::Closed
            | DbError::EmptyStatement
            | DbError::MultipleStatements { .. }
            | DbError::CopyUnsupported
            | DbError::RawPlaceholder { .. }
            | DbError::MissingParameter { .. }
            | DbError::UnusedParameter { .. }
            | DbError::InvalidColumns { .. }
            | DbError::RowLength { .. }
            | DbError::UnstorableValue { .. }
            | DbError::EndsTransaction
            | DbError::Unsupported { .. }
            | DbError::NoRow
            | DbError::UnknownColumn { .. }
            | DbError::WrongType { .. }
            | DbError::Deserialize { .. }
            | DbError::Serialize { .. }
            | DbError::UnknownTable { .. }
            | DbError::InvalidTableName { .. }
            | DbError::Fake { .. } => None,
        }
    }

    /// Returns the error of a failed connection. `target` is the URL without its password.
    pub(crate) fn connect(target: String, source: diesel::ConnectionError) -> Self {
        DbError::Connect {
            source: ConnectError::new(&target, source),
            target,
        }
    }

    /// Returns whether a connection failed because there is no server, or because it accepts no connections at present.
    pub(crate) fn is_without_server(&self) -> bool {
        matches!(self, DbError::Connect { source, .. } if source.is_without_server())
    }

    /// Adds a text, on one line and without secrets, to the reason of a failed connection.
    #[cfg(feature = "sqlite")]
    pub(crate) fn with_connect_detail(self, detail: String) -> Self {
        match self {
            DbError::Connect { target, source } => DbError::Connect {
                target,
                source: source.with_detail(detail),
            },
            error => error,
        }
    }

    /// Returns the error of an attempt to connect that failed before the driver was called, or that was given up.
    pub(crate) fn not_connected(target: String, reason: String) -> Self {
        DbError::Connect {
            source: ConnectError::from_reason(&target, reason),
            target,
        }
    }

    /// Returns the error for a second statement that begins with this token.
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

    /// Returns the error for a placeholder of the backend.
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

    /// Returns the error for a column's value that the driver cannot read.
    pub(crate) fn unreadable(column: &str, source: Box<dyn StdError + Send + Sync>) -> Self {
        DbError::UnreadableValue {
            column: column.to_owned(),
            source: Box::new(ServerError::from(DieselError::DeserializationError(source))),
        }
    }

    /// Creates the error of a value of diesel's DSL, whose parameters have no names.
    pub(crate) fn unstorable_in_query(problem: &'static str) -> Self {
        DbError::UnstorableValue {
            name: "a parameter of the query".to_owned(),
            row: None,
            problem,
        }
    }

    /// Adds the position of the row, from 1, to the error of a value.
    pub(crate) fn in_row(self, number: u64) -> Self {
        match self {
            DbError::UnstorableValue { name, problem, .. } => DbError::UnstorableValue {
                name,
                row: Some(number),
                problem,
            },
            other => other,
        }
    }

    /// Returns the error of a query that the backend does not support, for diesel.
    pub(crate) fn unsupported(what: &'static str) -> DieselError {
        DbError::Unsupported { what }.into()
    }

    /// Returns the error of a `COMMIT`.
    pub(crate) fn from_commit(source: DieselError) -> Self {
        match DbError::from(source) {
            DbError::ConnectionLost(source) => DbError::OutcomeUnknown(source),
            error => error,
        }
    }
}

// `#[from]` would make the error a source.
impl From<MigrationError> for DbError {
    fn from(error: MigrationError) -> Self {
        DbError::Migration(error)
    }
}

/// The caller that has held a connection for the longest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The source location of the checkout.
    pub location: &'static Location<'static>,
    /// The time since the checkout.
    pub held: Duration,
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { location, held } = self;
        write!(
            formatter,
            "the longest has been held for {held:.1?}, checked out at {location}"
        )
    }
}

/// Why a caller got no connection in time.
enum PoolProblem {
    /// All connections were in use.
    Full,
    /// No connection could be opened, for these reasons.
    Refused(String),
    /// No attempt to open a connection has ended yet.
    Pending,
}

impl PoolProblem {
    fn of(
        in_use: usize,
        maximum: u32,
        last_failure: Option<&str>,
        of_r2d2: Option<&r2d2::Error>,
    ) -> Self {
        let of_r2d2 = of_r2d2.map(|error| Chain(error).to_string());
        if in_use >= maximum as usize {
            return PoolProblem::Full;
        }
        match pool_failures(last_failure, of_r2d2) {
            none if none.is_empty() => PoolProblem::Pending,
            reasons => PoolProblem::Refused(reasons),
        }
    }

    /// Returns the end of the message.
    fn advice_or_reasons(self) -> String {
        match self {
            PoolProblem::Full => {
                "; return connections sooner, or raise DB_POOL_SIZE or DB_POOL_TIMEOUT".to_owned()
            }
            PoolProblem::Refused(reasons) => reasons,
            PoolProblem::Pending => String::new(),
        }
    }
}

impl fmt::Display for PoolProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PoolProblem::Full => "waiting for a connection",
            PoolProblem::Refused(_) => "because no usable connection could be opened",
            PoolProblem::Pending => "while connections were being opened or checked",
        })
    }
}

/// Returns the reasons why a pool has no connection, after a colon: the error of the last attempt to connect, and
/// r2d2's error, which contains the last error of an attempt or a check.
fn pool_failures(last: Option<&str>, of_r2d2: Option<String>) -> String {
    const WAITED: &str = "timed out waiting for connection";
    let of_r2d2 = of_r2d2.as_deref();
    let of_r2d2 = of_r2d2.and_then(|text| match text.strip_prefix(WAITED) {
        Some(message) => message.strip_prefix(": "),
        None => Some(text),
    });
    match (last, of_r2d2) {
        (None, None) => String::new(),
        (Some(reason), None) | (None, Some(reason)) => format!(": {reason}"),
        (Some(last), Some(pool)) if pool.ends_with(last) => format!(": {pool}"),
        (Some(last), Some(pool)) => format!(": {last}; {pool}"),
    }
}

/// Returns the names of a row and a column, for the middle of a message.
fn place_in_result(row: Option<u64>, column: Option<&str>) -> String {
    match (row, column) {
        (Some(row), Some(column)) => format!("row {row}, column {column:?}"),
        (Some(row), None) => format!("row {row}"),
        (None, Some(column)) => format!("column {column:?}"),
        (None, None) => "the row".to_owned(),
    }
}

/// Returns a source location for the end of a message.
fn place(at: Option<&'static Location<'static>>) -> String {
    at.map(|at| format!(" (at {at})")).unwrap_or_default()
}

/// Returns the part of a name that an error shows.
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
            assert!(
                error.ends_with(&format!("but {shown} follows the first one")),
                "{error}"
            );
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
            assert!(
                error.starts_with(&format!("the placeholder {shown} is not")),
                "{error}"
            );
        }
    }

    #[test]
    fn pool_timeout_shows_each_reason_once() {
        let shown = |last, of_r2d2: Option<&str>| pool_failures(last, of_r2d2.map(str::to_owned));
        let waited = "timed out waiting for connection";
        let (refused, lost) = ("could not connect: refused", "a connection was lost");
        let with = |reason| format!("{waited}: {reason}");
        assert_eq!(shown(None, None), "");
        assert_eq!(shown(None, Some(waited)), "");
        assert_eq!(shown(Some(refused), None), format!(": {refused}"));
        assert_eq!(shown(Some(refused), Some(waited)), format!(": {refused}"));
        assert_eq!(
            shown(Some(refused), Some(&with(refused))),
            format!(": {refused}")
        );
        assert_eq!(shown(None, Some(&with(lost))), format!(": {lost}"));
        assert_eq!(
            shown(Some(refused), Some(&with(lost))),
            format!(": {refused}; {lost}")
        );
    }

    #[test]
    fn unreadable_value_is_not_shown() {
        let bytes = b"secret\xff".to_vec();
        let (listed, problem) = (format!("{bytes:?}"), String::from_utf8(bytes).unwrap_err());
        assert!(format!("{problem:?}").contains(&listed), "{problem:?}");
        for source in [Box::new(problem) as _, "secret".into()] {
            let error = DbError::unreadable("name", source);
            assert!(error.source().is_none());
            let source = error.cause().unwrap();
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
