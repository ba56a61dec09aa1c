//! The statements that are prepared on a connection.

use diesel::connection::CacheSize;
use diesel::result::Error as DieselError;

use crate::backend::Backend;
use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::scanner::Parsed;
use crate::statement::Casts;

impl Connection {
    /// Runs a statement, and once more if it was refused for what was known of it from before a change of the schema: whoever
    /// refuses a statement outside of a transaction has executed nothing.
    pub(crate) fn healing<T>(
        &mut self,
        sql: &str,
        parsed: &Parsed<'_>,
        has_text: bool,
        mut run: impl FnMut(&mut Self, Option<Casts>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        let casts = self.casts_for(sql, parsed, has_text);
        let first = run(self, casts.clone());
        let Err(error @ DbError::Query(_)) = &first else {
            return first;
        };
        let is_stale = is_stale(error) && self.prepared() > 0;
        let is_nested = self.transaction_depth() > 0;
        let Some(observer) = self.observer() else {
            return first;
        };
        observer.casts.remove(sql);
        if is_nested || observer.raw_transaction {
            // The connection ends with the transaction, which has failed, or it would refuse the statement for ever.
            observer.is_marked |= is_stale;
            return first;
        }
        if is_stale {
            self.forget_prepared();
        }
        let now = self.casts_for(sql, parsed, casts.is_some());
        if is_stale || now != casts {
            return self.unprepared(|connection| run(connection, now));
        }
        first
    }

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
fn is_stale(error: &DbError) -> bool {
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
