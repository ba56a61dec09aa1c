//! The rows of a query of diesel's DSL.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use diesel::connection::LoadConnection;
use diesel::result::QueryResult;

use super::known_statements::KnownQuery;
use super::session::Observed;
use crate::dsl::MultiRow;
use crate::error::remember_names_of_statement;
use crate::statistics::Call;

/// The rows of a query.
pub struct MultiCursor<'conn, 'query> {
    // Dropped before `reading`, so that the statement has ended when it is measured.
    rows: DriverRows<'conn, 'query>,
    /// A SQLite query runs until its rows are read.
    reading: Option<Reading>,
}

/// The rows of a driver.
pub(super) enum DriverRows<'conn, 'query> {
    #[cfg(feature = "postgres")]
    Postgres(<diesel::PgConnection as LoadConnection>::Cursor<'conn, 'query>),
    #[cfg(feature = "sqlite")]
    Sqlite(<diesel::SqliteConnection as LoadConnection>::Cursor<'conn, 'query>),
}

/// A query whose rows are being read. It is counted and measured when it is dropped.
pub(super) struct Reading {
    pub(super) observed: Arc<Observed>,
    pub(super) query: Arc<KnownQuery>,
    pub(super) started_at: Instant,
    pub(super) counts: bool,
    pub(super) rows: u64,
    pub(super) failed: bool,
}

impl<'conn, 'query> MultiCursor<'conn, 'query> {
    pub(super) fn new(rows: DriverRows<'conn, 'query>, reading: Option<Reading>) -> Self {
        MultiCursor { rows, reading }
    }
}

impl<'conn, 'query> Iterator for MultiCursor<'conn, 'query> {
    type Item = QueryResult<MultiRow<'conn, 'query>>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.rows {
            #[cfg(feature = "postgres")]
            DriverRows::Postgres(rows) => Some(rows.next()?.map(MultiRow::Postgres)),
            #[cfg(feature = "sqlite")]
            DriverRows::Sqlite(rows) => {
                let row = rows.next()?;
                if let Some(reading) = &mut self.reading {
                    match &row {
                        Ok(_) => reading.rows += 1,
                        Err(error) => reading.fail(error),
                    }
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

impl Reading {
    /// Notes a failure, which the session takes over with the next statement.
    pub(super) fn fail(&mut self, error: &diesel::result::Error) {
        self.failed = true;
        self.observed.fail_while_reading(error);
        remember_names_of_statement(error, &self.query.text);
    }
}

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
