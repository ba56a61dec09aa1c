//! Bulk inserts into one table.

use std::panic::Location;

#[cfg(feature = "postgres")]
use super::copy;
use crate::backend::Backend;
use crate::connection::{Connection, Purpose};
use crate::error::DbError;
use crate::schema;
#[cfg(feature = "postgres")]
use crate::sql::SideEffects;
use crate::sql::quote;
use crate::values::Value;

impl Connection {
    /// Inserts rows into a table, like [`DatabaseService::bulk_insert`](crate::DatabaseService::bulk_insert). Inside a
    /// transaction, a failure rolls back only these rows.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`DatabaseService::bulk_insert`](crate::DatabaseService::bulk_insert).
    #[track_caller]
    pub fn bulk_insert<R>(
        &mut self,
        table: &str,
        columns: &[&str],
        rows: impl IntoIterator<Item = R>,
    ) -> Result<u64, DbError>
    where
        R: IntoIterator<Item = Value>,
    {
        let mut rows = rows.into_iter();
        let mut next =
            |row: &mut Vec<Value>| rows.next().map(|values| row.extend(values)).is_some();
        check(columns, self.backend())?;
        let mut rows = Rows {
            columns,
            next: &mut next,
            number: 0,
            held_back: None,
        };
        self.on_behalf_of(Some(Location::caller()), Purpose::User, |connection| {
            connection.insert(table, &mut rows)
        })
    }

    fn insert(&mut self, table: &str, rows: &mut Rows<'_>) -> Result<u64, DbError> {
        self.check_usable()?;
        let table = self.internally(|connection| schema::find(connection, table))?;
        let columns: Vec<_> = rows.columns.iter().map(|column| quote(column)).collect();
        let target = format!("{} ({})", table.quoted(), columns.join(", "));
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => {
                if self.internally(|connection| copy::supports_copy(connection, &table))? {
                    let text = format!("COPY {target} FROM STDIN");
                    self.insert_as(&text, |connection| {
                        let copied = connection.copy(&target, rows)?;
                        if rows.held_back.is_none() {
                            return Ok(copied);
                        }
                        let rest = connection
                            .internally(|connection| copy::insert(connection, &target, rows))?;
                        Ok(copied + rest)
                    })
                } else {
                    let text = format!("INSERT INTO {target} VALUES");
                    self.insert_as(&text, |connection| {
                        connection.internally(|connection| copy::insert(connection, &target, rows))
                    })
                }
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => {
                let head = format!("INSERT INTO {target} VALUES ");
                self.insert_as(head.trim_end(), |connection| {
                    super::sqlite_insert::insert(connection, &head, rows)
                })
            }
        }
    }

    /// Runs `insert` in a transaction, measured as one call of `text`.
    fn insert_as(
        &mut self,
        text: &str,
        insert: impl FnOnce(&mut Self) -> Result<u64, DbError>,
    ) -> Result<u64, DbError> {
        self.measured(
            text,
            None,
            |inserted| *inserted,
            |connection| {
                connection.with_purpose(Purpose::PartOfCall, |connection| {
                    connection.transaction(insert)
                })
            },
        )
    }

    #[cfg(feature = "postgres")]
    fn copy(&mut self, target: &str, rows: &mut Rows<'_>) -> Result<u64, DbError> {
        let answer = self.session().answer_timeout();
        let running = self.start(SideEffects::default(), None);
        let (copied, stopped) = match self {
            Connection::Postgres(inner) => copy::copy(inner, target, &answer, rows),
            // The caller has checked the backend.
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => (Ok(0), None),
        };
        let copied = self.end_text(&running, copied);
        if copied.is_err() {
            self.check_in_sync();
        }
        match stopped {
            Some(error) => Err(error),
            None => copied.map(|rows| rows as u64),
        }
    }
}

/// Checks the columns. For a column that is named twice, SQLite would store one of the values without an error.
fn check(columns: &[&str], backend: Backend) -> Result<(), DbError> {
    let same = |left: &str, right: &str| match backend {
        Backend::Postgres => left == right,
        Backend::Sqlite => left.eq_ignore_ascii_case(right),
    };
    let is_repeated = |(position, column): &(usize, &&str)| {
        columns[..*position]
            .iter()
            .any(|before| same(before, column))
    };
    let problem = match columns.iter().enumerate().find(is_repeated) {
        Some((_, column)) => format!("{column:?} stands there twice"),
        None if columns.is_empty() => "there are none".to_owned(),
        None => return Ok(()),
    };
    Err(DbError::InvalidColumns { problem })
}

/// The rows to insert, read one by one, each with a value for each column.
pub(crate) struct Rows<'a> {
    pub(crate) columns: &'a [&'a str],
    /// Adds the values of the next row, if there is one.
    next: &'a mut dyn FnMut(&mut Vec<Value>) -> bool,
    /// The number of rows read so far.
    number: u64,
    /// A row that was read, and that the next call returns once more.
    held_back: Option<Vec<Value>>,
}

impl Rows<'_> {
    /// Adds the values of the next row to `values`. Returns `false` after the last row.
    pub(crate) fn read(&mut self, values: &mut Vec<Value>) -> Result<bool, DbError> {
        if let Some(row) = self.held_back.take() {
            values.extend(row);
            return Ok(true);
        }
        let before = values.len();
        if !(self.next)(values) {
            return Ok(false);
        }
        self.number += 1;
        match (values.len() - before, self.columns.len()) {
            (found, expected) if found != expected => Err(DbError::RowLength {
                row: self.number,
                expected,
                found,
            }),
            _ => Ok(true),
        }
    }

    /// Holds the last row back for the next call of [`read`](Self::read).
    #[cfg(feature = "postgres")]
    pub(crate) fn hold_back(&mut self, row: Vec<Value>) {
        self.held_back = Some(row);
    }

    /// Returns an error with the column's name in place of its parameter's.
    #[cfg(feature = "postgres")]
    pub(crate) fn named(&self, error: DbError, parameters: &[String]) -> DbError {
        match error {
            DbError::UnstorableValue { name, row, problem } => {
                let column = parameters.iter().position(|parameter| *parameter == name);
                DbError::UnstorableValue {
                    name: column.map_or(name, |column| self.columns[column].to_owned()),
                    row,
                    problem,
                }
            }
            other => other,
        }
    }

    /// Returns the error for a value of the last row.
    pub(crate) fn unstorable(&self, column: usize, problem: &'static str) -> DbError {
        DbError::UnstorableValue {
            name: self.columns[column].to_owned(),
            row: Some(self.number),
            problem,
        }
    }
}
