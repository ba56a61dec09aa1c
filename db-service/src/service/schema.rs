//! `DatabaseService`: tables.

use singleton_core::guarded;

use super::DatabaseService;
use crate::error::DbError;
use crate::schema::{self, TableInfo};

impl DatabaseService {
    /// Returns the names of the tables, without views, in the form that [`get_table_info`](Self::get_table_info)
    /// accepts: quoted if necessary, and with the schema if the search path does not lead to the table.
    ///
    /// Temporary tables are left out, and tables that belong to something else: to a virtual table of SQLite, such as
    /// those of FTS5, or to an extension of PostgreSQL. `get_table_info` describes them.
    ///
    /// # Errors
    ///
    /// Returns the server's error.
    #[guarded]
    #[track_caller]
    pub fn list_tables(&self) -> Result<Vec<String>, DbError> {
        self.pool("tables")?.get()?.list_tables()
    }

    /// Returns a table's columns, keys and indexes, and counts its rows.
    ///
    /// `table` is written as in a statement: `name`, `schema.name` (on SQLite `main`, `temp` or an attached database),
    /// or `"Any Name"` in quotes. PostgreSQL folds an unquoted name to lower case. The text is only used as a name, so
    /// it cannot inject SQL.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::InvalidTableName`], [`DbError::UnknownTable`], or the server's error.
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
    #[track_caller]
    pub fn get_table_info(&self, table: &str) -> Result<TableInfo, DbError> {
        self.pool("tables")?.get()?.get_table_info(table)
    }

    /// Reclaims the space of deleted rows and refreshes the planner's statistics, for one table or for all.
    ///
    /// SQLite always vacuums the whole file.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get_table_info`](Self::get_table_info).
    #[guarded]
    #[track_caller]
    pub fn vacuum_analyze(&self, table: Option<&str>) -> Result<(), DbError> {
        let mut connection = self.pool("tables")?.get()?;
        connection.internally(|connection| schema::vacuum_analyze(connection, table))
    }
}
