//! One statement with parameters, repeated once after a stale plan.

use std::panic::Location;

use diesel::result::Error as DieselError;

use super::Connection;
use super::known_statements::KnownStatement;
use crate::dialect::ParameterCasts;
use crate::error::DbError;
use crate::values::{Params, Row};

impl Connection {
    /// Executes one statement with `:name` parameters and returns its rows.
    ///
    /// Outside a transaction, its changes are committed when it returns.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::MissingParameter`] or [`DbError::UnusedParameter`] if `params` does not match the statement,
    /// [`DbError::MultipleStatements`] if the text contains more than one statement, [`DbError::TransactionAborted`] if
    /// an earlier statement of the transaction has failed, and the server's error otherwise.
    #[track_caller]
    pub fn execute_query(&mut self, sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
        let at = Location::caller();
        let rows = |rows: &Vec<Row>| rows.len() as u64;
        self.execute_as(sql, &params, rows, |connection, statement, casts| {
            connection.load(statement, &params, casts, Some(at))
        })
    }

    /// Executes one statement with `:name` parameters and returns the number of affected rows, like
    /// [`DatabaseService::execute`](crate::DatabaseService::execute).
    ///
    /// Outside a transaction, its changes are committed when it returns.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Connection::execute_query).
    #[track_caller]
    pub fn execute(&mut self, sql: &str, params: Params) -> Result<u64, DbError> {
        let at = Location::caller();
        let rows = |affected: &u64| *affected;
        self.execute_as(sql, &params, rows, |connection, statement, casts| {
            connection.count(statement, &params, casts, Some(at))
        })
    }

    /// Runs and measures one statement by `run`. `rows` returns the number of rows in its result.
    fn execute_as<T>(
        &mut self,
        sql: &str,
        params: &Params,
        rows: impl FnOnce(&T) -> u64,
        mut run: impl FnMut(&mut Self, &KnownStatement, Option<ParameterCasts>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let statement = self.known(sql);
        let entry = statement.as_ref().ok().map(|known| known.entry.clone());
        self.measured(sql, entry.as_ref(), rows, |connection| {
            let statement = &*statement?;
            connection.with_stale_plan_retry(statement, params.has_text(), |connection, casts| {
                connection.with_transaction_timeouts(&statement.parsed, |connection| {
                    run(connection, statement, casts)
                })
            })
        })
    }

    /// Runs a statement, and once more after a stale plan. A refused statement outside a transaction has executed
    /// nothing.
    pub(crate) fn with_stale_plan_retry<T>(
        &mut self,
        statement: &KnownStatement,
        has_text: bool,
        mut run: impl FnMut(&mut Self, Option<ParameterCasts>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let session = self.session();
        if !session.is_idle() || session.statements.must_be_dropped() {
            self.check_usable()?;
            if self.must_drop_prepared() {
                self.drop_prepared();
            }
        }
        let casts = self.known_casts(statement, has_text);
        let first = run(self, casts.clone());
        let Err(error @ (DbError::Query(_) | DbError::StalePlan(_))) = &first else {
            return first;
        };
        let is_stale = is_stale(error) && self.has_prepared();
        if self.is_in_transaction() {
            // The transaction has failed. The statement is prepared again after it.
            self.session().statements.has_stale_plan |= is_stale;
            return first;
        }
        if is_stale {
            self.drop_prepared();
        }
        let now = casts.as_ref().map(|_| self.asked_casts(statement));
        if is_stale || now != casts {
            return self.without_prepared(|connection| run(connection, now));
        }
        first
    }

    #[cfg(feature = "postgres")]
    fn known_casts(
        &mut self,
        statement: &KnownStatement,
        has_text: bool,
    ) -> Option<ParameterCasts> {
        self.casts_for(statement, has_text)
    }

    #[cfg(not(feature = "postgres"))]
    fn known_casts(&mut self, _: &KnownStatement, _: bool) -> Option<ParameterCasts> {
        None
    }

    #[cfg(feature = "postgres")]
    fn asked_casts(&mut self, statement: &KnownStatement) -> ParameterCasts {
        self.ask_for_casts(&statement.parsed)
    }

    #[cfg(not(feature = "postgres"))]
    fn asked_casts(&mut self, _: &KnownStatement) -> ParameterCasts {
        ParameterCasts::from([])
    }
}

/// Returns whether PostgreSQL may have refused a statement because its plan is stale: the columns of its result, or the
/// type of a column for which the server inferred a parameter's type, have changed since.
fn is_stale(error: &DbError) -> bool {
    match error {
        DbError::StalePlan(_) => true,
        DbError::Query(error) => {
            let DieselError::DatabaseError(_, information) = error.driver_error() else {
                return false;
            };
            information.message().contains("but expression is of type")
        }
        _ => false,
    }
}
