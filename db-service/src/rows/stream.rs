//! Row-by-row reading of results that are larger than memory.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::connection::{self, StatementContext};
#[cfg(feature = "sqlite")]
use crate::dialect::Statement;
use crate::error::DbError;
use crate::sql;
use crate::statistics::Call;
use crate::values::Params;
use crate::values::Row;

/// A closure that receives rows until it breaks.
pub(crate) type Each<'a> = dyn FnMut(Row) -> ControlFlow<()> + 'a;

impl Connection {
    /// Executes one statement and passes its rows to `work` one by one, like
    /// [`DatabaseService::for_each_row`](crate::DatabaseService::for_each_row).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Connection::execute_query), and those of `work`.
    pub fn for_each_row<E, F>(&mut self, sql: &str, params: Params, work: F) -> Result<(), E>
    where
        F: FnMut(Row) -> Result<ControlFlow<()>, E>,
        E: From<DbError>,
    {
        stop_on_error(work, |each| self.stream(sql, &params, each))
    }

    /// Runs the statement as one measured query, without the time that the caller's code takes.
    pub(crate) fn stream(
        &mut self,
        sql: &str,
        params: &Params,
        each: &mut Each<'_>,
    ) -> Result<(), DbError> {
        let started_at = Instant::now();
        let (mut rows, mut elsewhere) = (0, Duration::ZERO);
        let mut each = |row| {
            rows += 1;
            let started_at = Instant::now();
            let flow = connection::without_context(|| each(row));
            elsewhere += started_at.elapsed();
            flow
        };
        let result = self.stream_rows(sql, params, &mut each);
        let result = result.map_err(|error| self.classify_timeout(error));
        let call = Call {
            took: started_at.elapsed().saturating_sub(elsewhere),
            rows,
            failed: result.is_err(),
        };
        if let Some(observer) = self.observer() {
            observer.count(result.is_ok());
            if connection::is_measured() {
                observer.measured(sql, call);
            }
        }
        result
    }

    fn stream_rows(
        &mut self,
        sql: &str,
        params: &Params,
        each: &mut Each<'_>,
    ) -> Result<(), DbError> {
        self.check_usable()?;
        let parsed = sql::parse(sql, self.backend())?;
        if parsed.side_effects.end && self.transaction_depth() > 0 {
            return Err(DbError::EndsTransaction);
        }
        let known = StatementContext {
            side_effects: parsed.side_effects,
            counts: false,
            is_measured: true,
        };
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => {
                super::cursor::stream_rows(self, sql, &parsed, params, known, each)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(inner) => connection::with_context(known, || {
                crate::dialect::sqlite::for_each(
                    inner,
                    Statement::new(&parsed, params, None)?,
                    each,
                )
            }),
        }
    }
}

/// Runs `stream` with `work`. An error of `work` stops the stream and is returned.
pub(crate) fn stop_on_error<E: From<DbError>>(
    mut work: impl FnMut(Row) -> Result<ControlFlow<()>, E>,
    stream: impl FnOnce(&mut Each<'_>) -> Result<(), DbError>,
) -> Result<(), E> {
    let mut failure = None;
    let result = stream(&mut |row| {
        work(row).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(result?),
    }
}
