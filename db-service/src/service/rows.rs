//! `DatabaseService`: many rows in, many rows out.

use super::{DatabaseService, Source, counted, counted_at};
use crate::error::DbError;
use crate::rows::{Each, stop_on_error};
use crate::values::Params;
use crate::values::Row;
use crate::values::Value;
use singleton_core::guarded;
use std::ops::ControlFlow;
use std::panic::Location;

impl DatabaseService {
    /// Inserts the rows of an iterator into a table, in one transaction, and returns their number.
    ///
    /// PostgreSQL gets a `COPY`, and SQLite several rows per statement. Both take about half as long as
    /// [`execute_many`](Self::execute_many) (measured by `tests/benchmarks/src/bin/bulk.rs`). Only a few rows are in
    /// memory at once.
    ///
    /// Views, foreign tables and tables with a `BEFORE INSERT` statement trigger get an `INSERT` for each 512 rows,
    /// because a failed `COPY` into them would leave a surplus answer on the connection. Such a trigger fires once per
    /// `INSERT`.
    ///
    /// `table` is written as in a statement; see [`get_table_info`](Self::get_table_info). `columns` are exact names;
    /// other columns get their defaults. A row is an array, such as [`values!`](crate::values) creates, or another
    /// iterable of values in the order of the columns. PostgreSQL reads the values like quoted literals: text is
    /// accepted for each type, and a fraction is an error for integers. PostgreSQL does not copy into tables with row
    /// security.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::RowLength`] or [`DbError::UnstorableValue`] with the position of the row, the errors of an
    /// invalid table name, and the server's error, such as a violated constraint. After an error, nothing is changed.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use db_service::values;
    ///
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute_query("CREATE TABLE squares (n INTEGER, square INTEGER, note TEXT)", params! {})?;
    /// let rows = (1..=10_000).map(|n| values![n, n * n, None::<&str>]);
    /// assert_eq!(DatabaseService::bulk_insert("squares", &["n", "square", "note"], rows)?, 10_000);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    #[track_caller]
    pub fn bulk_insert<R>(
        &self,
        table: &str,
        columns: &[&str],
        rows: impl IntoIterator<Item = R>,
    ) -> Result<u64, DbError>
    where
        R: IntoIterator<Item = Value>,
    {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| {
                connection.bulk_insert(table, columns, rows)
            }),
            Source::Fake(fake) => fake.bulk_insert(table, columns, rows.into_iter()),
        }
    }
}

impl DatabaseService {
    /// Executes one statement, like [`execute_query`](Self::execute_query), and passes its rows to `work` one by one,
    /// in bounded memory.
    ///
    /// It stops when `work` returns [`ControlFlow::Break`] or an error. The remaining rows of a query are not computed.
    /// PostgreSQL keeps a query's result in a cursor, in its own transaction or in the present one. Other statements,
    /// such as `INSERT … RETURNING`, compute all rows before the first one arrives. The statement's changes are
    /// committed unless `work` panics. The connection is in use while `work` runs, so statements inside `work` need
    /// another connection.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(ControlFlow::Continue(()))`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Self::execute_query), possibly after some rows, and those of `work`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use std::ops::ControlFlow;
    ///
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let endless = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) SELECT n FROM numbers";
    /// let mut sum = 0;
    /// DatabaseService::for_each_row(endless, params! {}, |row| {
    ///     sum += row.get::<i64>("n")?;
    ///     Ok::<_, DbError>(if sum > 1_000 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    /// })?;
    /// assert_eq!(sum, 1_035);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn for_each_row<E, F>(sql: &str, params: Params, work: F) -> Result<(), E>
    where
        F: FnMut(Row) -> Result<ControlFlow<()>, E>,
        E: From<DbError>,
    {
        let at = Location::caller();
        stop_on_error(work, |each| Self::stream(sql, &params, at, each))
    }

    #[guarded]
    fn stream(
        &self,
        sql: &str,
        params: &Params,
        at: &'static Location<'static>,
        each: &mut Each<'_>,
    ) -> Result<(), DbError> {
        match &self.source {
            Source::Pool(pool) => counted_at(at, pool, |connection| {
                connection.stream(sql, params, at, each)
            }),
            Source::Fake(fake) => {
                let rows = fake.execute_query(sql, params)?;
                let _ = rows.into_iter().try_for_each(each);
                Ok(())
            }
        }
    }
}
