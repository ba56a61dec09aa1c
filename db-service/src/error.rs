//! What can go wrong between a call and its rows.

use std::error::Error as StdError;
use std::time::Duration;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

/// Why the database service did not do what it was asked to.
///
/// No variant holds the text or the parameters of a statement; the sources are those of diesel and r2d2.
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
        source: diesel::ConnectionError,
    },
    /// All connections were in use, or none could be opened, until the time limit.
    #[error(
        "timed out after {timeout:?} waiting for a connection ({open} of at most {maximum} open); \
         give connections back sooner, or raise DB_POOL_SIZE or DB_POOL_TIMEOUT{}",
        source.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
    )]
    #[non_exhaustive]
    PoolTimeout {
        /// How long the caller was to wait at most.
        timeout: Duration,
        /// How many connections were open.
        open: u32,
        /// How many may be open at once.
        maximum: u32,
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
        source: DieselError,
    },
    /// The server refused the statement, or the connection broke.
    #[error("database query failed: {0}")]
    Query(#[source] DieselError),
    /// The statement holds no statement.
    #[error("the statement is empty")]
    EmptyStatement,
    /// There is more than one statement where one is expected.
    #[error("only one statement can be executed at a time, and after the first follows {second:?}")]
    #[non_exhaustive]
    MultipleStatements {
        /// The first word of the second statement.
        second: String,
    },
    /// `COPY` between server and client.
    #[error(
        "COPY … FROM STDIN and TO STDOUT are no statements with rows; use execute_many, or diesel's copy_from and copy_to"
    )]
    CopyUnsupported,
    /// The statement holds a placeholder that is none of ours.
    #[error("{placeholder} is no parameter here; name it, as in :id, and give it with params!")]
    #[non_exhaustive]
    RawPlaceholder {
        /// The placeholder.
        placeholder: String,
    },
    /// The statement names a parameter that was not given.
    #[error("the statement needs a parameter :{name}, which was not given")]
    #[non_exhaustive]
    MissingParameter {
        /// The parameter.
        name: String,
    },
    /// A parameter was given that the statement does not name.
    #[error("the parameter :{name} was given, but the statement does not use it")]
    #[non_exhaustive]
    UnusedParameter {
        /// The parameter.
        name: String,
    },
    /// A statement that always has a row had none.
    #[error("the statement returned no row where there must be one")]
    NoRow,
    /// The row has no such column.
    #[error("there is no column {column:?} in the row; it has {}", available.join(", "))]
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
    /// The server sent a value that has no counterpart here, such as a date beyond the year 262000.
    #[error("column {column:?} holds a value that cannot be represented: {source}")]
    #[non_exhaustive]
    UnreadableValue {
        /// The column.
        column: String,
        /// What is wrong with the value.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// There is no such table.
    #[error("there is no table {table:?}")]
    #[non_exhaustive]
    UnknownTable {
        /// The table asked for.
        table: String,
    },
    /// Migrations could not be read or applied.
    #[error("migration failed: {0}")]
    Migration(#[source] Box<dyn StdError + Send + Sync>),
    /// A fake database was asked for what only a real one has.
    #[error("a fake database has no {what}; use a real one, or ask for rows only")]
    #[non_exhaustive]
    Fake {
        /// What is missing.
        what: &'static str,
    },
}

impl From<DieselError> for DbError {
    fn from(source: DieselError) -> Self {
        match &source {
            DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, information) => {
                DbError::UniqueViolation {
                    constraint: information.constraint_name().map(str::to_owned),
                    table: information
                        .table_name()
                        .map(str::to_owned)
                        .or_else(|| Some(sqlite_columns(information.message()).first()?.0.clone())),
                    columns: match information.details() {
                        Some(details) => postgres_columns(details),
                        None => sqlite_columns(information.message())
                            .into_iter()
                            .map(|(_, column)| column)
                            .collect(),
                    },
                    source,
                }
            }
            _ => DbError::Query(source),
        }
    }
}

/// Reads `Key (a, b)=(1, 2) already exists.`
fn postgres_columns(details: &str) -> Vec<String> {
    let columns = details
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(")="))
        .map_or("", |(columns, _)| columns);
    columns
        .split(", ")
        .filter(|column| !column.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Reads `UNIQUE constraint failed: users.username, users.email`.
fn sqlite_columns(message: &str) -> Vec<(String, String)> {
    let columns = message
        .split_once("constraint failed: ")
        .map_or("", |(_, columns)| columns);
    columns
        .split(", ")
        .filter_map(|column| column.rsplit_once('.'))
        .map(|(table, column)| (table.to_owned(), column.to_owned()))
        .collect()
}
