//! Row-by-row reading of results that are larger than memory.

use std::ops::ControlFlow;
use std::panic::Location;
use std::time::{Duration, Instant};

#[cfg(feature = "sqlite")]
use crate::connection;
use crate::connection::{Connection, KnownStatement};
#[cfg(feature = "sqlite")]
use crate::dialect::{LoadError, ParameterTypes, Statement, sqlite};
use crate::error::DbError;
use crate::statistics::Call;
use crate::values::Params;
use crate::values::Row;

/// A closure that receives rows until it breaks.
pub(crate) type Each<'a> = dyn FnMut(Row) -> ControlFlow<()> + 'a;

impl Connection {
    /// Executes one statement and passes its rows to `work` one by one, like
    /// [`DatabaseService::for_each_row`](crate::DatabaseService::for_each_row).
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(ControlFlow::Continue(()))`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Connection::execute_query), and those of `work`.
    #[track_caller]
    pub fn for_each_row<E, F>(&mut self, sql: &str, params: Params, work: F) -> Result<(), E>
    where
        F: FnMut(Row) -> Result<ControlFlow<()>, E>,
        E: From<DbError>,
    {
        let at = Location::caller();
        stop_on_error(work, |each| self.stream(sql, &params, at, each))
    }

    /// Runs the statement as one measured query, without the time that the caller's code takes.
    pub(crate) fn stream(
        &mut self,
        sql: &str,
        params: &Params,
        at: &'static Location<'static>,
        each: &mut Each<'_>,
    ) -> Result<(), DbError> {
        let statement = self.known(sql);
        let entry = statement.as_ref().ok().map(|known| known.entry.clone());
        let started_at = Instant::now();
        let (mut rows, mut elsewhere) = (0, Duration::ZERO);
        let mut each = |row| {
            rows += 1;
            let started_at = Instant::now();
            let flow = each(row);
            elsewhere += started_at.elapsed();
            flow
        };
        let result =
            statement.and_then(|statement| self.stream_rows(&statement, params, at, &mut each));
        let result = result.map_err(|error| self.classify_timeout(error));
        let call = Call {
            took: started_at.elapsed().saturating_sub(elsewhere),
            rows,
            failed: result.is_err(),
        };
        self.record_call(sql, entry.as_ref(), call);
        result
    }

    fn stream_rows(
        &mut self,
        statement: &KnownStatement,
        params: &Params,
        at: &'static Location<'static>,
        each: &mut Each<'_>,
    ) -> Result<(), DbError> {
        self.check_usable()?;
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => {
                super::cursor::stream_rows(self, statement, params, at, each)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => {
                let running = self.start_statement(statement, Some(at))?;
                let echo = self.echo();
                let result = match self {
                    Connection::Sqlite(inner) => {
                        sqlite::check_exact(inner, &statement.parsed, params, &mut None)
                            .and_then(|()| {
                                Statement::new(&statement.parsed, params, ParameterTypes::NotNeeded)
                                    .map_err(LoadError::NotSent)
                            })
                            .and_then(|built| {
                                echo.statement(&built);
                                sqlite::for_each(inner, built, &statement.columns, each)
                            })
                    }
                    #[cfg(feature = "postgres")]
                    Connection::Postgres(_) => Ok(()),
                };
                connection::note_names(&result, statement.parsed.text());
                self.end_statement(&running, result, false)
            }
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
