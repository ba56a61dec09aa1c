//! The statements that are prepared on a connection.

use diesel::connection::CacheSize;
use diesel::result::Error as DieselError;

use crate::backend::Backend;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;

impl Connection {
    /// How many statements were prepared since they were last forgotten.
    pub(crate) fn prepared(&mut self) -> u32 {
        self.observer().map_or(0, |observer| observer.prepared)
    }

    /// Forgets all prepared statements, here and at the server; `false` if the server could not be told.
    pub(crate) fn forget_prepared(&mut self) -> bool {
        self.unprepared(|_| ());
        if let Some(observer) = self.observer() {
            observer.prepared = 0;
            observer.casts.clear();
        }
        self.backend() != Backend::Postgres || self.run("DEALLOCATE ALL").is_ok()
    }

    /// Does `work`, whose statements the server plans and executes at once: a table cannot change in between.
    pub(crate) fn unprepared<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        diesel::Connection::set_prepared_statement_cache_size(self, CacheSize::Disabled);
        let result = work(self);
        if self.observer().is_none_or(|observer| observer.prepares) {
            diesel::Connection::set_prepared_statement_cache_size(self, CacheSize::Unbounded);
        }
        result
    }
}

/// Tells whether PostgreSQL may refuse a statement only because it was prepared before a change of the schema: its columns were
/// others then, or what was left to the server to find out has the type of a column as it was.
pub(crate) fn is_stale(error: &DbError) -> bool {
    let DbError::Query(error) = error else {
        return false;
    };
    let DieselError::DatabaseError(_, information) = error.driver_error() else {
        return false;
    };
    let message = information.message();
    message.contains("cached plan must not change result type")
        || message.contains("but expression is of type")
}
