//! Tables, as users of the service ask for them.

use singleton_core::guarded;

use super::{DatabaseService, uncounted};
use crate::error::DbError;
use crate::schema::{self, TableInfo};

impl DatabaseService {
    /// Lists the tables by name, views apart, as [`get_table_info`](Self::get_table_info) takes their names: quoted where they
    /// have to be, and with the schema where the name alone does not lead to the table.
    ///
    /// # Errors
    ///
    /// Whatever the server says.
    #[guarded]
    pub fn list_tables(&self) -> Result<Vec<String>, DbError> {
        self.pool("tables")?.get()?.list_tables()
    }

    /// Describes a table, its keys and indexes, and counts its rows.
    ///
    /// `table` is written as in a statement: `name`, `schema.name` (on SQLite `main`, `temp` or what was attached), and
    /// `"Any Name"` in quotes; without them PostgreSQL knows it in lower case. It is never taken for anything but a name.
    ///
    /// # Errors
    ///
    /// [`DbError::InvalidTableName`], [`DbError::UnknownTable`], and whatever the server says.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute_query("CREATE TABLE \"Odd Pets\" (id INTEGER)", params! {})?;
    /// for table in DatabaseService::list_tables()? {
    ///     assert_eq!(table, "\"Odd Pets\"");
    ///     assert_eq!(DatabaseService::get_table_info(&table)?.columns[0].column_name, "id");
    /// }
    /// assert!(DatabaseService::get_table_info("main.\"odd pets\"").is_ok());
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    pub fn get_table_info(&self, table: &str) -> Result<TableInfo, DbError> {
        self.pool("tables")?.get()?.get_table_info(table)
    }

    /// Collects what deleted rows have left and refreshes the planner's statistics, of one table or of all.
    ///
    /// SQLite always vacuums a whole file.
    ///
    /// # Errors
    ///
    /// As [`get_table_info`](Self::get_table_info).
    #[guarded]
    pub fn vacuum_analyze(&self, table: Option<&str>) -> Result<(), DbError> {
        uncounted(|| schema::vacuum_analyze(&mut *self.pool("tables")?.get()?, table))
    }
}
