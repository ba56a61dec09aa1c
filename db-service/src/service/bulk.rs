//! Many rows, as users of the service insert them.

use singleton_core::guarded;

use super::{DatabaseService, Source, counted};
use crate::error::DbError;
use crate::value::Value;

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
