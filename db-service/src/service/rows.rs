//! `DatabaseService`: many rows in, many rows out.

use super::{DatabaseService, Source, counted};
use crate::error::DbError;
use crate::rows::{Each, stop_on_error};
use crate::values::Params;
use crate::values::Row;
use crate::values::Value;
use singleton_core::guarded;
use std::ops::ControlFlow;

impl DatabaseService {
    /// Inserts rows into columns of a table, in one transaction, and returns how many there were.
    ///
    /// By `COPY` on PostgreSQL and with many rows in one statement on SQLite, which takes about half as long as
    /// [`execute_many`](Self::execute_many) (measured by `benchmarks/src/bin/bulk.rs`). Views, foreign tables and tables with a statement
    /// trigger `BEFORE INSERT` get an `INSERT` for each 512 rows instead, since a `COPY` that they refuse would leave the connection
    /// with an answer too many; such a trigger fires once for each of those. Rows are taken one after the other, and no more of them than a few are in memory.
    ///
    /// `table` is written as in a statement, as [`get_table_info`](Self::get_table_info) takes it, and `columns` are exact names;
    /// the others get their defaults. A row is an array, such as [`values!`](crate::values) makes, or anything else of values in the
    /// order of the columns. PostgreSQL reads them as it does literals in quotes: text goes into columns of any type, and a
    /// fraction into none of integers. It does not copy into tables with row security.
    ///
    /// # Errors
    ///
    /// [`DbError::RowLength`] and [`DbError::UnstorableValue`], which name the row; those of the table's name; and whatever
    /// the server says, such as what constraint was violated. Then nothing is changed.
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
    /// Executes one statement as [`execute_query`](Self::execute_query) does, and hands its rows to `work` one after the other,
    /// so that there may be more of them than memory holds.
    ///
    /// It goes on until `work` returns [`ControlFlow::Break`] or an error, and the rest of a query's rows is not even computed.
    /// PostgreSQL keeps the result of a query in a cursor in a transaction of its own, or in the one that is under way; the rows of
    /// other statements, such as `INSERT … RETURNING`, are all made before the first arrives. What the statement
    /// changes is committed however `work` ends, a panic apart. The connection is in use as long as `work` runs, so statements
    /// that `work` executes need another one.
    ///
    /// # Errors
    ///
    /// Those of [`execute_query`](Self::execute_query), also after some rows, and those of `work`.
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
        stop_on_error(work, |each| Self::stream(sql, &params, each))
    }

    #[guarded]
    #[track_caller]
    fn stream(&self, sql: &str, params: &Params, each: &mut Each<'_>) -> Result<(), DbError> {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.stream(sql, params, each)),
            Source::Fake(fake) => {
                let rows = fake.execute_query(sql, params)?;
                let _ = rows.into_iter().try_for_each(each);
                Ok(())
            }
        }
    }
}
