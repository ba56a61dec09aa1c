//! The rows of a query of diesel's DSL.

use std::fmt;
#[cfg(feature = "sqlite")]
use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::sync::atomic::Ordering;
#[cfg(feature = "sqlite")]
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;

#[cfg(feature = "sqlite")]
use super::known_statements::KnownQuery;
#[cfg(feature = "sqlite")]
use super::session::Observed;
use crate::dsl::MultiRow;
#[cfg(feature = "sqlite")]
use crate::error::remember_names_of_statement;
#[cfg(feature = "sqlite")]
use crate::statistics::Call;

/// The rows of a query.
pub struct MultiCursor<'conn, 'query>(pub(super) DriverRows<'conn, 'query>);

/// The rows of a driver.
pub(super) enum DriverRows<'conn, 'query> {
    #[cfg(feature = "postgres")]
    Postgres(<diesel::PgConnection as LoadConnection>::Cursor<'conn, 'query>),
    /// A SQLite query runs until its rows are read. They are dropped first, so that the statement has ended when it is
    /// measured.
    #[cfg(feature = "sqlite")]
    Sqlite(
        <diesel::SqliteConnection as LoadConnection>::Cursor<'conn, 'query>,
        Reading,
    ),
}

/// A query whose rows are being read. It is counted and measured when it is dropped.
#[cfg(feature = "sqlite")]
pub(super) struct Reading {
    pub(super) observed: Arc<Observed>,
    pub(super) query: Arc<KnownQuery>,
    pub(super) started_at: Instant,
    pub(super) counts: bool,
    pub(super) rows: u64,
    pub(super) failed: bool,
}

impl<'conn, 'query> Iterator for MultiCursor<'conn, 'query> {
    type Item = QueryResult<MultiRow<'conn, 'query>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            #[cfg(feature = "postgres")]
            DriverRows::Postgres(rows) => Some(rows.next()?.map(MultiRow::Postgres)),
            #[cfg(feature = "sqlite")]
            DriverRows::Sqlite(rows, reading) => {
                let row = rows.next()?;
                match &row {
                    Ok(_) => reading.rows += 1,
                    Err(error) => reading.fail(error),
                }
                Some(row.map(MultiRow::Sqlite))
            }
        }
    }
}

impl fmt::Debug for MultiCursor<'_, '_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MultiCursor")
    }
}

#[cfg(feature = "sqlite")]
impl Reading {
    /// Notes a failure, which the session takes over with the next statement.
    pub(super) fn fail(&mut self, error: &diesel::result::Error) {
        self.failed = true;
        self.observed.fail_while_reading(error);
        remember_names_of_statement(error, &self.query.text);
    }
}

#[cfg(feature = "sqlite")]
impl Drop for Reading {
    fn drop(&mut self) {
        self.observed.is_reading.store(false, Ordering::Relaxed);
        if self.counts {
            self.observed.count(!self.failed);
        }
        let call = Call {
            took: self.started_at.elapsed(),
            rows: self.rows,
            failed: self.failed,
        };
        self.observed
            .measured(&self.query.entry, &self.query.text, call);
    }
}
