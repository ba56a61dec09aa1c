//! One statement with many sets of parameters.

use std::panic::Location;

use super::Connection;
use super::known_statements::KnownStatement;
use super::session::{Caller, Purpose};
use crate::dialect::{Conversions, Needs, ParameterTypes};
use crate::error::DbError;
use crate::values::Params;

impl Connection {
    /// Executes one statement for each set of parameters, in one transaction, and returns the number of affected rows.
    ///
    /// On PostgreSQL, an `INSERT … VALUES (…)` is sent with many rows at once.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Connection::execute_query). After an error, nothing is changed, except
    /// after [`DbError::OutcomeUnknown`], when the connection was lost during `COMMIT`.
    #[track_caller]
    pub fn execute_many(&mut self, sql: &str, rows: &[Params]) -> Result<u64, DbError> {
        let at = Location::caller();
        let statement = self.known(sql);
        let entry = statement.as_ref().ok().map(|known| known.entry.clone());
        self.measured(
            sql,
            entry.as_ref(),
            |affected| *affected,
            |connection| connection.execute_rows(&*statement?, rows, at),
        )
    }

    fn execute_rows(
        &mut self,
        statement: &KnownStatement,
        rows: &[Params],
        at: Caller,
    ) -> Result<u64, DbError> {
        let needs = Needs::of(&statement.parsed, rows);
        self.with_stale_plan_retry(statement, &needs, |connection, types| {
            connection.on_behalf_of(Some(at), Purpose::PartOfCall, |connection| {
                connection
                    .transaction(|connection| connection.execute_each(statement, rows, &types))
            })
        })
    }

    fn execute_each(
        &mut self,
        statement: &KnownStatement,
        rows: &[Params],
        types: &ParameterTypes,
    ) -> Result<u64, DbError> {
        #[cfg(feature = "postgres")]
        if matches!(self, Connection::Postgres(_))
            && statement.parsed.row.is_some()
            && !statement.parsed.names.is_empty()
        {
            return multi_row_insert::execute(self, statement, rows, types);
        }
        let mut affected = 0;
        let mut conversions = Conversions::default();
        for (row, number) in rows.iter().zip(1..) {
            let count = self.count(statement, row, types.clone(), None, &mut conversions);
            affected += count.map_err(|error| error.in_row(number))?;
        }
        Ok(affected)
    }
}

/// `INSERT … VALUES (…), (…), …`: one round trip for many rows.
#[cfg(feature = "postgres")]
mod multi_row_insert {
    use diesel::connection::Connection as _;
    use diesel::pg::Pg;

    use super::*;
    use crate::dialect::postgres::{self, Bind};
    use crate::dialect::{self, Dialect, LoadError, Statement};

    /// The maximum number of parameters of a statement, which the protocol counts in 16 bits.
    const MAX_PARAMETERS: usize = 65_535;
    /// The maximum number of rows per statement. More rows are not faster, and make the text longer.
    const MAX_ROWS: usize = 512;

    pub(super) fn execute(
        connection: &mut Connection,
        statement: &KnownStatement,
        rows: &[Params],
        types: &ParameterTypes,
    ) -> Result<u64, DbError> {
        let parsed = &statement.parsed;
        let width = parsed.names.len();
        let mut binds = Vec::with_capacity(width * rows.len());
        for (row, number) in rows.iter().zip(1..) {
            for (value, name) in dialect::values(parsed, row)?.into_iter().zip(&parsed.names) {
                if let Some(problem) = Pg::problem(value) {
                    return Err(DbError::UnstorableValue {
                        name: String::from(&**name),
                        row: Some(number),
                        problem,
                    });
                }
                binds.push(Pg::bind(value));
            }
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
            let built = Statement::<Pg>::of_rows(parsed, count, batch, types.clone())?;
            let running = connection.start_statement(statement, None)?;
            connection.echo().statement(&built);
            let inserted = match connection {
                Connection::Postgres(inner) => inner.execute_returning_count(&built),
                #[cfg(feature = "sqlite")]
                Connection::Sqlite(_) => Ok(0),
            };
            let inserted = built.located(inserted.map_err(LoadError::from));
            affected += connection.end_statement(&running, inserted, true)? as u64;
            left -= count;
        }
        Ok(affected)
    }

    /// Returns the largest power of two that fits, so that there are few different statements to prepare.
    fn batch_size(left: usize, width: usize) -> usize {
        let most = left.min(MAX_ROWS).min(MAX_PARAMETERS / width).max(1);
        1 << most.ilog2()
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
