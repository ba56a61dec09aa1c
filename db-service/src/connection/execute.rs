//! Statements, run once: those of this crate, and parsed ones with their values.

use std::sync::Arc;
use std::time::Instant;

use diesel::connection::{CacheSize, SimpleConnection};
use diesel::result::Error as DieselError;

use super::known_statements::KnownStatement;
use super::session::{Caller, Observed, Running};
use super::{Connection, on_each};
use crate::backend::Backend;
use crate::dialect::{Conversions, Dialect, LoadError, ParameterTypes, Statement};
#[cfg(feature = "sqlite")]
use crate::error::remember_place_in_statement;
use crate::error::{DbError, remember_names_of_statement};
use crate::sql::SideEffects;
use crate::statistics::{Call, StatementEntry};
use crate::values::{Params, Row};

/// The log of statements, if they are logged.
pub(crate) struct Echo(Option<Arc<Observed>>);

impl Echo {
    /// Logs a statement that is about to run.
    pub(crate) fn statement<D: Dialect + Default>(&self, statement: &Statement<'_, D>)
    where
        D::QueryBuilder: Default,
    {
        if let Some(observed) = &self.0 {
            if observed.echo_parameters {
                observed.echo(&diesel::debug_query::<D, _>(statement));
            } else {
                observed.echo(&statement.shown());
            }
        }
    }
}

impl Connection {
    /// Runs statements of this crate, which change no session state and are not counted.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), DieselError> {
        self.run_text(sql, SideEffects::default())
    }

    /// Runs a text with these side effects, which is not counted.
    pub(crate) fn run_text(
        &mut self,
        sql: &str,
        side_effects: SideEffects,
    ) -> Result<(), DieselError> {
        if self.session().observed.echo {
            self.session().observed.echo(&sql);
        }
        let started_at = Instant::now();
        let running = self.start(side_effects, None);
        let result = on_each!(self, inner => inner.batch_execute(sql));
        if let Err(error) = &result {
            remember_names_of_statement(error, &sql);
        }
        let session = self.session();
        session.observed.log_if_slow(sql, started_at.elapsed());
        session.finish(&running, result.as_ref().err());
        result
    }

    /// Drops all prepared statements, in the driver and in the server. Returns `false` if the server refuses.
    pub(crate) fn drop_prepared(&mut self) -> bool {
        // The server comes first: in a failed transaction it refuses, and then nothing changes.
        if self.backend() == Backend::Postgres && self.run("DEALLOCATE ALL").is_err() {
            return false;
        }
        self.without_prepared(|_| ());
        self.session().statements.forget();
        true
    }

    /// Runs `work` without the statement cache, so that the server plans and executes each statement in one step, and
    /// no table can change between the two.
    pub(super) fn without_prepared<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        self.set_cache(CacheSize::Disabled);
        let result = work(self);
        if self.session().statements.prepared.is_on() {
            self.set_cache(CacheSize::Unbounded);
        }
        result
    }

    /// Turns the driver's cache of prepared statements on or off.
    pub(super) fn set_cache(&mut self, size: CacheSize) {
        on_each!(self, inner => diesel::Connection::set_prepared_statement_cache_size(inner, size));
    }

    /// Returns the log of statements.
    pub(crate) fn echo(&mut self) -> Echo {
        let observed = &self.session().observed;
        Echo(observed.echo.then(|| Arc::clone(observed)))
    }

    /// Runs and measures a user's statement. `entry` is known if the text is valid.
    pub(crate) fn measured<R>(
        &mut self,
        sql: &str,
        entry: Option<&StatementEntry>,
        rows: impl FnOnce(&R) -> u64,
        work: impl FnOnce(&mut Self) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        if self.session().is_internal() {
            return work(self);
        }
        let started_at = Instant::now();
        let result = work(self).map_err(|error| self.classify_timeout(error));
        let call = Call {
            took: started_at.elapsed(),
            rows: result.as_ref().map_or(0, rows),
            failed: result.is_err(),
        };
        self.record(sql, entry, call);
        result
    }

    /// Counts and measures a call that was measured by the caller.
    pub(crate) fn record_call(&mut self, sql: &str, entry: Option<&StatementEntry>, call: Call) {
        let session = self.session();
        if session.counts() {
            session.count_query(!call.failed);
        }
        if !session.is_internal() {
            self.record(sql, entry, call);
        }
    }

    fn record(&mut self, sql: &str, entry: Option<&StatementEntry>, call: Call) {
        let session = self.session();
        match entry {
            Some(entry) => session.record(entry, sql, call),
            None => {
                let observed = &session.observed;
                let statements = &observed.statistics.statements;
                let entry = statements.entry(sql, observed.backend);
                session.record(&entry, sql, call);
            }
        }
    }

    /// Starts a statement of the user, after a check that the session can execute it.
    pub(crate) fn start_statement(
        &mut self,
        statement: &KnownStatement,
        at: Option<Caller>,
    ) -> Result<Running, DbError> {
        let side_effects = statement.parsed.side_effects;
        let session = self.session();
        if session.is_idle() {
            return Ok(session.start_idle(side_effects, at));
        }
        self.check_usable()?;
        if side_effects.end && self.session().transaction.levels > 0 {
            return Err(DbError::EndsTransaction);
        }
        Ok(self.start(side_effects, at))
    }

    /// Notes the end of a statement of the user. `counts` decides whether it can count as a query.
    pub(crate) fn end_statement<T>(
        &mut self,
        running: &Running,
        result: Result<T, LoadError>,
        counts: bool,
    ) -> Result<T, DbError> {
        let succeeded = matches!(result, Ok(_) | Err(LoadError::Value(_)));
        let session = self.session();
        let counts = counts && session.counts();
        if counts && succeeded {
            session.count_query(true);
        }
        match result {
            Err(LoadError::Driver(error, position)) => {
                // The caller does not know the texts of this crate.
                let position = position.filter(|_| !session.is_internal());
                let error = self.failed(&running.failed_at(position), error);
                let error = self.classify_timeout(DbError::at(position, error));
                if counts {
                    match error {
                        // `with_stale_plan_retry` decides.
                        DbError::Query(_) | DbError::StalePlan(_) => {
                            self.session().note_uncounted()
                        }
                        _ => self.session().count_query(false),
                    }
                }
                Err(error)
            }
            Err(LoadError::Value(error)) => {
                session.finish(running, None);
                Err(error)
            }
            Err(LoadError::NotSent(error)) => {
                session.finish(running, None);
                session.not_sent(running);
                Err(error)
            }
            Ok(value) => {
                session.finish(running, None);
                Ok(value)
            }
        }
    }

    /// Notes the end of a statement of this crate.
    pub(crate) fn end_text<T>(
        &mut self,
        running: &Running,
        result: Result<T, DieselError>,
    ) -> Result<T, DbError> {
        match result {
            Ok(value) => {
                self.session().finish(running, None);
                Ok(value)
            }
            Err(error) => Err(self.failed(running, error).into()),
        }
    }

    /// Runs a statement and returns its rows.
    pub(super) fn load(
        &mut self,
        statement: &KnownStatement,
        params: &Params,
        types: ParameterTypes,
        at: Option<Caller>,
    ) -> Result<Vec<Row>, DbError> {
        let running = self.start_statement(statement, at)?;
        let echo = self.echo();
        let (parsed, columns) = (&statement.parsed, &statement.columns);
        let rows = match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(inner) => Statement::new(parsed, params, types)
                .map_err(LoadError::NotSent)
                .and_then(|built| {
                    echo.statement(&built);
                    built.located(crate::dialect::postgres::load(inner, &built, columns))
                }),
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(inner) => {
                let rows = crate::dialect::sqlite::check_exact(inner, parsed, params, &mut None)
                    .and_then(|()| {
                        Statement::new(parsed, params, types).map_err(LoadError::NotSent)
                    })
                    .and_then(|built| {
                        echo.statement(&built);
                        crate::dialect::sqlite::load(inner, built, columns)
                    });
                note_names(&rows, parsed.text());
                rows
            }
        };
        self.end_statement(&running, rows, true)
    }

    /// Runs a statement and returns the number of rows that it has changed. 0 if its words change none.
    pub(super) fn count(
        &mut self,
        statement: &KnownStatement,
        params: &Params,
        types: ParameterTypes,
        at: Option<Caller>,
        conversions: &mut Conversions,
    ) -> Result<u64, DbError> {
        let running = self.start_statement(statement, at)?;
        let echo = self.echo();
        let parsed = &statement.parsed;
        let count = match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(inner) => Statement::new(parsed, params, types)
                .map_err(LoadError::NotSent)
                .and_then(|built| {
                    echo.statement(&built);
                    let count = diesel::Connection::execute_returning_count(inner, &built);
                    built.located(count.map_err(LoadError::from))
                }),
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(inner) => {
                let count = crate::dialect::sqlite::check_exact(inner, parsed, params, conversions)
                    .and_then(|()| {
                        Statement::new(parsed, params, types).map_err(LoadError::NotSent)
                    })
                    .and_then(|built| {
                        echo.statement(&built);
                        Ok(crate::dialect::sqlite::count(inner, &built)?)
                    });
                note_names(&count, parsed.text());
                count
            }
        };
        #[cfg(not(feature = "sqlite"))]
        let _ = conversions;
        let count = self.end_statement(&running, count, true)? as u64;
        // PostgreSQL also counts the rows of a SELECT, and SQLite returns the count of the last statement that changed
        // rows.
        Ok(if parsed.changes_rows { count } else { 0 })
    }
}

/// Notes which names of a statement the message of its failure may show.
#[cfg(feature = "sqlite")]
pub(crate) fn note_names<T>(result: &Result<T, LoadError>, sql: &str) {
    if let Err(LoadError::Driver(error, _)) = result {
        remember_place_in_statement(error, sql);
    }
}
