//! Results that memory does not hold, as users of the service read them.

use std::ops::ControlFlow;

use singleton_core::guarded;

use super::{DatabaseService, Source, counted};
use crate::error::DbError;
use crate::params::Params;
use crate::row::Row;
use crate::streaming::{Each, until_failure};

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
        until_failure(work, |each| Self::stream(sql, &params, each))
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
