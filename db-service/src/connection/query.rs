//! One statement with parameters, repeated once after a stale plan.

use std::panic::Location;

use diesel::result::Error as DieselError;
use serde::de::DeserializeOwned;

use super::Connection;
use super::known_statements::KnownStatement;
use crate::dialect::{Conversions, Needs, ParameterTypes};
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
        let rows = |rows: &Vec<Row>| rows.len() as u64;
        self.execute_as(sql, &params, rows, |connection, statement, types| {
            connection.load(statement, &params, types, Some(at))
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
        self.execute_as(sql, &params, rows, |connection, statement, types| {
            connection.count(
                statement,
                &params,
                types,
                Some(at),
                &mut Conversions::default(),
            )
        })
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

    /// Runs and measures one statement by `run`. `rows` returns the number of rows in its result.
    fn execute_as<T>(
        &mut self,
        sql: &str,
        params: &Params,
        rows: impl FnOnce(&T) -> u64,
        mut run: impl FnMut(&mut Self, &KnownStatement, ParameterTypes) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let statement = self.known(sql);
        let entry = statement.as_ref().ok().map(|known| known.entry.clone());
        self.measured(sql, entry.as_ref(), rows, |connection| {
            let statement = &*statement?;
            let needs = Needs::of(&statement.parsed, [params]);
            connection.with_stale_plan_retry(statement, &needs, |connection, types| {
                connection.with_transaction_timeouts(&statement.parsed, |connection| {
                    run(connection, statement, types)
                })
            })
        })
    }

    /// Runs a statement, and once more after a stale plan. A refused statement outside a transaction has executed
    /// nothing.
    pub(crate) fn with_stale_plan_retry<T>(
        &mut self,
        statement: &KnownStatement,
        needs: &Needs,
        mut run: impl FnMut(&mut Self, ParameterTypes) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let session = self.session();
        if !session.is_idle() || session.statements.must_be_dropped() {
            self.check_usable()?;
            if self.must_drop_prepared() {
                self.drop_prepared();
            }
        }
        let types = self.types_for(statement, needs);
        let first = run(self, types.clone());
        let Err(error @ (DbError::Query(_) | DbError::StalePlan(_))) = &first else {
            return first;
        };
        // A procedure may have committed a part of its work.
        let is_stale = statement.parsed.is_preparable && is_stale(error) && self.has_prepared();
        if self.is_in_transaction() {
            // The transaction has failed. The statement is prepared again after it.
            let session = self.session();
            session.statements.has_stale_plan |= is_stale;
            session.count_noted(false);
            self.forget_types(statement);
            return first;
        }
        if is_stale {
            self.drop_prepared();
        }
        let now = match types {
            ParameterTypes::Known(_) => self.types_now(statement, needs),
            _ => types.clone(),
        };
        let is_repeated = is_stale || now != types;
        self.session().count_noted(is_repeated);
        if is_repeated {
            let second = self.without_prepared(|connection| run(connection, now));
            self.session().count_noted(false);
            return second;
        }
        first
    }

    #[cfg(feature = "postgres")]
    fn types_for(&mut self, statement: &KnownStatement, needs: &Needs) -> ParameterTypes {
        self.parameter_types(statement, needs)
    }

    #[cfg(not(feature = "postgres"))]
    fn types_for(&mut self, _: &KnownStatement, _: &Needs) -> ParameterTypes {
        ParameterTypes::NotNeeded
    }

    /// Makes the next execution ask for the types of the parameters again.
    fn forget_types(&self, statement: &KnownStatement) {
        #[cfg(feature = "postgres")]
        statement.types.lock().take();
        #[cfg(not(feature = "postgres"))]
        let _ = statement;
    }

    #[cfg(feature = "postgres")]
    fn types_now(&mut self, statement: &KnownStatement, needs: &Needs) -> ParameterTypes {
        self.ask_for_types(statement, needs)
    }

    #[cfg(not(feature = "postgres"))]
    fn types_now(&mut self, _: &KnownStatement, _: &Needs) -> ParameterTypes {
        ParameterTypes::NotNeeded
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
