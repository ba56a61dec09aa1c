//! One statement with parameters, repeated once after a stale plan.

use std::panic::Location;

use diesel::result::Error as DieselError;
use serde::de::DeserializeOwned;

use super::Connection;
use super::known_statements::KnownStatement;
use super::session::Caller;
use crate::dialect::ParameterCasts;
use crate::error::DbError;
use crate::values::{Params, Row, deserialize_rows};

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
        let statement = self.known(sql);
        let entry = statement.as_ref().ok().map(|known| known.entry.clone());
        self.measured(
            sql,
            entry.as_ref(),
            |rows: &Vec<Row>| rows.len() as u64,
            |connection| connection.query(&*statement?, &params, at),
        )
    }

    /// Executes one statement, like [`execute_query`](Self::execute_query), and deserializes its rows.
    /// [`DatabaseService::query_as`](crate::DatabaseService::query_as) describes how.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Self::execute_query), and [`DbError::Deserialize`] for a row that is no `T`.
    /// The statement was executed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let rows = DatabaseService::read(|connection| {
    ///     connection.query_as::<(i64, String)>("SELECT 1, 'one'", params! {})
    /// })?;
    /// assert_eq!(rows, [(1, "one".to_owned())]);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn query_as<T: DeserializeOwned>(
        &mut self,
        sql: &str,
        params: Params,
    ) -> Result<Vec<T>, DbError> {
        deserialize_rows(&self.execute_query(sql, params)?)
    }

    fn query(
        &mut self,
        statement: &KnownStatement,
        params: &Params,
        at: Caller,
    ) -> Result<Vec<Row>, DbError> {
        self.with_stale_plan_retry(statement, params.has_text(), |connection, casts| {
            connection.with_transaction_timeouts(&statement.parsed, |connection| {
                connection.load(statement, params, casts, Some(at))
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
