//! Statements on a connection: executed, retried after a stale plan, and with many sets of parameters.

use super::Connection;
use super::instrumentation::{self, ConnectionInstrumentation, StatementContext};
use super::transaction::Failure;
use crate::backend::Backend;
use crate::dialect::{ParameterCasts, Statement};
use crate::error::DbError;
use crate::error::ServerError;
#[cfg(feature = "postgres")]
use crate::error::{Meaning, meaning};
use crate::sql::{self, ParsedStatement};
use crate::statistics::Call;
use crate::values::Params;
use crate::values::Row;
use diesel::connection::Connection as _;
use diesel::connection::{
    AnsiTransactionManager, SimpleConnection, TransactionManager, TransactionManagerStatus,
};
use diesel::result::Error as DieselError;
use std::time::Instant;

/// Evaluates an expression on the connection of either backend.
macro_rules! on_each {
    ($connection:expr, $inner:ident => $work:expr) => {
        match $connection {
            #[cfg(feature = "postgres")]
            Connection::Postgres($inner) => $work,
            #[cfg(feature = "sqlite")]
            Connection::Sqlite($inner) => $work,
        }
    };
}
pub(crate) use on_each;

impl Connection {
    /// Returns the connection's backend.
    pub fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => Backend::Postgres,
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => Backend::Sqlite,
        }
    }

    /// Executes one statement with `:name` parameters and returns its rows.
    ///
    /// Outside a transaction, its changes are committed when it returns.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::MissingParameter`] or [`DbError::UnusedParameter`] if `params` does not match the statement,
    /// [`DbError::MultipleStatements`] if the text contains more than one statement, and the server's error otherwise.
    pub fn execute_query(&mut self, sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
        self.measured(
            sql,
            |rows: &Vec<Row>| rows.len() as u64,
            |connection| connection.query(sql, &params),
        )
    }

    /// Runs and measures a user's statement.
    pub(crate) fn measured<R>(
        &mut self,
        sql: &str,
        rows: impl FnOnce(&R) -> u64,
        work: impl FnOnce(&mut Self) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        if !instrumentation::is_measured() {
            return work(self);
        }
        let started_at = Instant::now();
        let result = work(self).map_err(|error| self.classify_timeout(error));
        let call = Call {
            took: started_at.elapsed(),
            rows: result.as_ref().map_or(0, rows),
            failed: result.is_err(),
        };
        if let Some(observer) = self.observer() {
            observer.measured(sql, call);
        }
        result
    }

    /// Returns [`DbError::NoAnswer`] in place of [`DbError::ConnectionLost`] if the connection was closed after a
    /// timeout.
    pub(crate) fn classify_timeout(&mut self, error: DbError) -> DbError {
        let limit = self
            .observer()
            .and_then(|observer| observer.timed_out_after);
        match (error, limit) {
            (DbError::ConnectionLost(source), Some(limit)) => DbError::NoAnswer { limit, source },
            (error, _) => error,
        }
    }

    fn query(&mut self, sql: &str, params: &Params) -> Result<Vec<Row>, DbError> {
        self.check_usable()?;
        let parsed = sql::parse(sql, self.backend())?;
        if parsed.side_effects.end && self.transaction_depth() > 0 {
            return Err(DbError::EndsTransaction);
        }
        self.with_stale_plan_retry(sql, &parsed, params.has_text(), |connection, casts| {
            connection.with_transaction_timeouts(&parsed, |connection| {
                connection.load(&parsed, params, casts)
            })
        })
    }

    /// Returns the parameter casts, if a parameter is text and the backend is PostgreSQL.
    pub(crate) fn casts_for(
        &mut self,
        sql: &str,
        parsed: &ParsedStatement<'_>,
        has_text: bool,
    ) -> Option<ParameterCasts> {
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) if has_text && parsed.is_preparable => self.casts(sql, parsed),
            _ => {
                let _ = (sql, parsed, has_text);
                None
            }
        }
    }

    fn load(
        &mut self,
        parsed: &ParsedStatement<'_>,
        params: &Params,
        casts: Option<ParameterCasts>,
    ) -> Result<Vec<Row>, DbError> {
        let known = StatementContext {
            side_effects: parsed.side_effects,
            counts: true,
            is_measured: true,
        };
        let rows = instrumentation::with_context(known, || match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => {
                crate::dialect::postgres::load(connection, Statement::new(parsed, params, casts)?)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(connection) => {
                crate::dialect::sqlite::load(connection, Statement::new(parsed, params, casts)?)
            }
        });
        self.end_statement();
        rows
    }

    /// Ends the timeout of the server's answer. diesel does not report the end of a statement whose values it could not
    /// send.
    pub(crate) fn end_statement(&mut self) {
        if let Some(observer) = self.observer() {
            observer.end_wait();
        }
    }

    /// Executes one statement for each set of parameters, in one transaction, and returns the number of affected rows.
    ///
    /// On PostgreSQL, an `INSERT … VALUES (…)` is sent with many rows at once.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Connection::execute_query). After an error, nothing is changed.
    pub fn execute_many(&mut self, sql: &str, rows: &[Params]) -> Result<u64, DbError> {
        self.measured(
            sql,
            |affected| *affected,
            |connection| execute_many(connection, sql, rows),
        )
    }

    /// Runs `work` in a transaction. Commits on `Ok`, and rolls back on `Err` and on panic.
    ///
    /// Inside another transaction, it creates a savepoint. On SQLite, the outermost transaction takes the write lock
    /// when it begins (`BEGIN IMMEDIATE`), because a later attempt to lock can fail in a way that a retry cannot fix.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the transaction's begin and end.
    pub fn transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<DieselError>,
    {
        self.transact(Self::begin, work)
            .map_err(|failure| match failure {
                Failure::Work(error) => error,
                Failure::Begin(error) | Failure::Commit(error) => error.into(),
            })
    }

    /// Runs statements of this crate, which change no session state and are not counted.
    pub(crate) fn run(&mut self, sql: &str) -> Result<(), DieselError> {
        instrumentation::with_context(
            StatementContext::INTERNAL,
            || on_each!(self, connection => connection.batch_execute(sql)),
        )
    }

    /// Returns whether the connection is lost.
    pub(crate) fn is_lost(&mut self) -> bool {
        self.observer().is_some_and(|observer| observer.is_lost)
    }

    /// Returns whether session state was changed that only the end of the session resets.
    pub(crate) fn is_dirty(&mut self) -> bool {
        self.observer().is_some_and(|observer| observer.is_dirty)
    }

    /// Returns whether the session is unchanged, so that a reset need not send anything.
    pub(crate) fn is_clean(&mut self) -> bool {
        let is_in_order = !on_each!(self, connection => AnsiTransactionManager::is_broken_transaction_manager(connection));
        is_in_order
            && self.transaction_depth() == 0
            && self.observer().is_some_and(|observer| {
                !observer.is_lost && !observer.has_raw_transaction && !observer.is_waiting()
            })
    }

    /// Resets the connection for the next checkout. Returns `false` if the connection must be closed.
    pub(crate) fn restore(&mut self) -> bool {
        self.roll_back_to(0);
        // If the caller replaced the instrumentation, the session's state is unknown.
        let Some(observer) = self.observer() else {
            return false;
        };
        // If an answer is still pending, it was not read to its end.
        observer.end_wait();
        let is_lost = observer.is_lost;
        let has_raw_transaction = std::mem::take(&mut observer.has_raw_transaction);
        if is_lost || has_raw_transaction && !self.roll_back_raw() {
            return false;
        }
        !on_each!(self, connection => AnsiTransactionManager::is_broken_transaction_manager(connection))
    }

    pub(crate) fn observer(&mut self) -> Option<&mut ConnectionInstrumentation> {
        diesel::Connection::instrumentation(self).downcast_mut()
    }

    /// Returns whether the last transaction was rolled back because of a conflict.
    pub(crate) fn has_conflicted(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| observer.has_conflicted)
    }

    pub(crate) fn begin(&mut self) -> Result<(), DieselError> {
        if self.transaction_depth() == 0 && self.has_limits() {
            return self.begin_with("BEGIN");
        }
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(connection) => {
                AnsiTransactionManager::begin_transaction(connection)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(connection) => {
                if status_depth(AnsiTransactionManager::transaction_manager_status_mut(
                    connection,
                )) == 0
                {
                    AnsiTransactionManager::begin_transaction_sql(connection, "BEGIN IMMEDIATE")
                } else {
                    AnsiTransactionManager::begin_transaction(connection)
                }
            }
        }
    }

    pub(crate) fn commit<E>(&mut self) -> Result<(), Failure<E>> {
        // COMMIT was not sent, so the outcome is known.
        if self.is_lost() {
            return Err(Failure::Begin(DieselError::BrokenTransactionManager));
        }
        // After a failed statement, PostgreSQL turns COMMIT into a rollback without an error. It refuses any other
        // statement.
        if self.backend() == Backend::Postgres
            && self.transaction_depth() == 1
            && self.observer().is_none_or(|observer| observer.has_failed)
        {
            self.run("SELECT 1").map_err(Failure::Begin)?;
        }
        on_each!(self, connection => AnsiTransactionManager::commit_transaction(connection))
            .map_err(Failure::Commit)
    }

    /// Rolls back all transactions above `depth`. If a rollback fails, gives the connection up.
    pub(crate) fn roll_back_to(&mut self, depth: u32) {
        while self.transaction_depth() > depth {
            let result = on_each!(self, connection => AnsiTransactionManager::rollback_transaction(connection));
            if let Err(error) = result {
                if !self.is_lost() {
                    let error = ServerError::from(error);
                    log::warn!(
                        "a transaction could not be rolled back, so its connection is closed: {error}"
                    );
                }
                return self.terminate();
            }
        }
    }

    /// Ends a session whose state or next answer is unknown. Nothing of the transaction is committed, and each later
    /// statement fails, on PostgreSQL also those of diesel's DSL.
    pub(crate) fn terminate(&mut self) {
        if let Some(observer) = self.observer() {
            observer.terminate();
        }
        #[cfg(feature = "postgres")]
        if self.backend() == Backend::Postgres {
            // The first answers may belong to earlier statements. After the end of the session, the driver refuses to
            // send.
            for _ in 0..GIVE_UP_ATTEMPTS {
                let ended = self.run(
                    "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
                );
                if ended.is_err_and(|error| is_closed(&error)) {
                    return;
                }
            }
            // Not every role may end its session. A failed transaction also refuses each statement.
            let _ = self.run("BEGIN; SELECT 1 / 0");
        }
    }

    /// Returns an error if the connection is lost or given up.
    pub(crate) fn check_usable(&mut self) -> Result<(), DbError> {
        if self.is_lost() {
            let error = DieselError::BrokenTransactionManager;
            return Err(self.classify_timeout(DbError::ConnectionLost(error.into())));
        }
        Ok(())
    }

    /// Checks after a failure that answers belong to their statements. If not, gives the connection up.
    #[cfg(feature = "postgres")]
    pub(crate) fn check_in_sync(&mut self) {
        if let Err(error) = self.run("SELECT 1")
            && meaning(&error) == Meaning::Lost
        {
            if !is_closed(&error) {
                log::warn!(
                    "a connection was closed because its answers belonged to earlier statements"
                );
            }
            self.terminate();
        }
    }

    pub(crate) fn transaction_depth(&mut self) -> u32 {
        on_each!(self, connection => status_depth(AnsiTransactionManager::transaction_manager_status_mut(connection)))
    }

    fn roll_back_raw(&mut self) -> bool {
        match (self.run("ROLLBACK"), self.backend()) {
            (Ok(()), _) => true,
            (Err(DieselError::DatabaseError(_, information)), Backend::Sqlite) => {
                information.message().contains("no transaction is active")
            }
            (Err(_), _) => false,
        }
    }
}

/// The number of attempts to end a session that is out of step. Each attempt reads at least one answer, and one or two
/// are surplus.
#[cfg(feature = "postgres")]
const GIVE_UP_ATTEMPTS: usize = 5;

/// Returns whether the driver reports a closed connection. An error without a text means that an answer lacks its
/// result.
#[cfg(feature = "postgres")]
fn is_closed(error: &DieselError) -> bool {
    let has_text = match error {
        DieselError::DatabaseError(_, information) => !information.message().trim().is_empty(),
        _ => true,
    };
    has_text && meaning(error) == Meaning::Lost
}

fn status_depth(status: &TransactionManagerStatus) -> u32 {
    match status {
        TransactionManagerStatus::Valid(status) => {
            status.transaction_depth().map_or(0, |depth| depth.get())
        }
        TransactionManagerStatus::InError => 0,
    }
}

/// Executes `sql` for each set of parameters, in one transaction, and returns the number of affected rows.
pub(crate) fn execute_many(
    connection: &mut Connection,
    sql: &str,
    rows: &[Params],
) -> Result<u64, DbError> {
    connection.check_usable()?;
    let parsed = sql::parse(sql, connection.backend())?;
    let known = StatementContext {
        side_effects: parsed.side_effects,
        counts: false,
        is_measured: true,
    };
    let has_text = rows.iter().any(Params::has_text);
    connection.with_stale_plan_retry(sql, &parsed, has_text, |connection, casts| {
        let affected = instrumentation::with_context(known, || {
            connection.transaction(|connection| match connection {
                #[cfg(feature = "postgres")]
                Connection::Postgres(inner) if parsed.row.is_some() && !parsed.names.is_empty() => {
                    multi_row_insert::execute(inner, &parsed, rows, casts)
                }
                _ => run_statements(connection, &parsed, rows, casts),
            })
        });
        connection.end_statement();
        affected
    })
}

fn run_statements(
    connection: &mut Connection,
    parsed: &ParsedStatement<'_>,
    rows: &[Params],
    casts: Option<ParameterCasts>,
) -> Result<u64, DbError> {
    let mut affected = 0;
    for row in rows {
        let count = on_each!(connection, inner => inner.execute_returning_count(&Statement::new(parsed, row, casts.clone())?))?
            as u64;
        // For a statement that changes no rows, SQLite returns the count of the last one that did.
        affected += if parsed.changes_rows { count } else { 0 };
    }
    Ok(affected)
}

/// `INSERT … VALUES (…), (…), …`: one round trip for many rows.
#[cfg(feature = "postgres")]
mod multi_row_insert {
    use diesel::connection::Connection as _;
    use diesel::pg::{Pg, PgConnection};

    use crate::dialect::postgres::{self, Bind};
    use crate::dialect::{self, Dialect, ParameterCasts, Statement};
    use crate::error::DbError;
    use crate::sql::{ParsedStatement, Piece};
    use crate::values::Params;

    /// The maximum number of parameters of a statement, which the protocol counts in 16 bits.
    const MAX_PARAMETERS: usize = 65_535;
    /// The maximum number of rows per statement. More rows are not faster, and make the text longer.
    const MAX_ROWS: usize = 512;

    pub(super) fn execute(
        connection: &mut PgConnection,
        parsed: &ParsedStatement<'_>,
        rows: &[Params],
        casts: Option<ParameterCasts>,
    ) -> Result<u64, DbError> {
        let width = parsed.names.len();
        let mut binds = Vec::with_capacity(width * rows.len());
        for row in rows {
            binds.extend(dialect::values(parsed, row)?.into_iter().map(Pg::bind));
        }
        for parameter in 0..width {
            let mut column: Vec<_> = binds.iter_mut().skip(parameter).step_by(width).collect();
            postgres::unify(&mut column);
        }
        let mut affected = 0;
        let mut binds = binds.into_iter();
        let mut left = rows.len();
        while left > 0 {
            let count = batch_size(left, width);
            let batch: Vec<Bind<'_>> = binds.by_ref().take(count * width).collect();
            let statement =
                Statement::<Pg>::from_parts(repeat_row(parsed, count), batch, casts.clone());
            affected += connection.execute_returning_count(&statement)? as u64;
            left -= count;
        }
        Ok(affected)
    }

    /// Returns the largest power of two that fits, so that there are few different statements to prepare.
    fn batch_size(left: usize, width: usize) -> usize {
        let most = left.min(MAX_ROWS).min(MAX_PARAMETERS / width).max(1);
        1 << most.ilog2()
    }

    /// Returns the statement with its row of values repeated `count` times, each with its own parameters.
    fn repeat_row<'a>(parsed: &ParsedStatement<'a>, count: usize) -> Vec<Piece<'a>> {
        let Some((open, close)) = parsed.row else {
            return parsed.pieces.clone();
        };
        let (width, row) = (parsed.names.len(), &parsed.pieces[open..=close]);
        let mut pieces = parsed.pieces[..open].to_vec();
        for number in 0..count {
            if number > 0 {
                pieces.push(Piece::Text(","));
            }
            pieces.extend(row.iter().map(|piece| match piece {
                Piece::Parameter(index) => Piece::Parameter(number * width + index),
                text => *text,
            }));
        }
        pieces
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn batches_are_few_and_within_the_parameter_limit() {
            let sizes = |mut left: usize, width| {
                let mut sizes = Vec::new();
                while left > 0 {
                    sizes.push(batch_size(left, width));
                    left -= sizes[sizes.len() - 1];
                }
                sizes
            };
            assert_eq!(sizes(1_300, 2), [512, 512, 256, 16, 4]);
            assert!(
                sizes(10_000, 1_000)
                    .iter()
                    .all(|size| size * 1_000 <= MAX_PARAMETERS)
            );
            assert_eq!(sizes(2, 70_000), [1, 1]);
        }
    }
}
