//! Errors of the driver by what they mean, and what a violated constraint is about.

use diesel::result::{DatabaseErrorInformation, Error as DieselError};

use crate::error::DbError;
use crate::server_error::{Meaning, ServerError, meaning};

impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        let meaning = meaning(&error);
        let violation = match &error {
            DieselError::DatabaseError(_, information) => Violation::of(&**information),
            _ => Violation::default(),
        };
        let Violation {
            constraint,
            table,
            columns,
        } = violation;
        let source = ServerError::from(error);
        match meaning {
            Meaning::Unique => DbError::UniqueViolation {
                constraint,
                table,
                columns,
                source,
            },
            Meaning::ForeignKey => DbError::ForeignKeyViolation {
                constraint,
                table,
                source,
            },
            Meaning::NotNull => DbError::NotNullViolation {
                table,
                column: columns.into_iter().next(),
                source,
            },
            Meaning::Check => DbError::CheckViolation {
                constraint,
                table,
                source,
            },
            Meaning::Conflict => DbError::SerializationFailure(source),
            Meaning::Deadlock => DbError::Deadlock(source),
            Meaning::StatementTimeout => DbError::StatementTimeout(source),
            Meaning::LockTimeout => DbError::LockTimeout(source),
            Meaning::Lost => DbError::ConnectionLost(source),
            Meaning::DiskFull => DbError::DiskFull(source),
            Meaning::ReadOnly => DbError::ReadOnly(source),
            Meaning::Syntax => DbError::Syntax(source),
            Meaning::Other => DbError::Query(source),
        }
    }
}

/// What a violation is about, as far as the server tells.
#[derive(Default)]
pub(crate) struct Violation {
    pub(crate) constraint: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) columns: Vec<String>,
}

impl Violation {
    pub(crate) fn of(information: &(dyn DatabaseErrorInformation + Send + Sync)) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let message = information.message();
        let of_sqlite = sqlite_columns(message);
        let columns = match (information.column_name(), information.details()) {
            (Some(column), _) => vec![column.to_owned()],
            (None, Some(details)) => postgres_columns(details),
            (None, None) => of_sqlite.iter().map(|(_, column)| column.clone()).collect(),
        };
        let check = message.strip_prefix("CHECK constraint failed: ");
        Violation {
            constraint: owned(information.constraint_name().or(check)),
            table: owned(information.table_name())
                .or_else(|| of_sqlite.into_iter().next().map(|(table, _)| table)),
            columns,
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
