//! Tables, as users of the service ask for them.

use singleton_core::guarded;

use super::{DatabaseService, uncounted};
use crate::error::DbError;
use crate::schema::{self, TableInfo};

impl DatabaseService {
    /// Lists the tables by name, views apart, as [`get_table_info`](Self::get_table_info) takes their names: on PostgreSQL with
    /// the schema where the search path does not lead to it.
    ///
    /// # Errors
    ///
    /// Whatever the server says.
    #[guarded]
    pub fn list_tables(&self) -> Result<Vec<String>, DbError> {
        uncounted(|| schema::list_tables(&mut *self.pool("tables")?.get()?))
    }

    /// Describes a table, its keys and indexes, and counts its rows.
    ///
    /// `table` is the exact name, in PostgreSQL also `schema.name`; it is never taken for anything but a name.
    ///
    /// # Errors
    ///
    /// [`DbError::UnknownTable`], and whatever the server says.
    #[guarded]
    pub fn get_table_info(&self, table: &str) -> Result<TableInfo, DbError> {
        uncounted(|| schema::table_info(&mut *self.pool("tables")?.get()?, table))
    }

    /// Collects what deleted rows have left and refreshes the planner's statistics, of one table or of all.
    ///
    /// SQLite always vacuums the whole file.
    ///
    /// # Errors
    ///
    /// [`DbError::UnknownTable`], and whatever the server says.
    #[guarded]
    pub fn vacuum_analyze(&self, table: Option<&str>) -> Result<(), DbError> {
        uncounted(|| schema::vacuum_analyze(&mut *self.pool("tables")?.get()?, table))
    }
}
