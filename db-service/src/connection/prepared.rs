//! The statements that are prepared on a connection.

use std::collections::HashMap;

use diesel::connection::CacheSize;
use diesel::result::Error as DieselError;

use super::Connection;
use crate::backend::Backend;
use crate::dialect::ParameterCasts;
use crate::error::DbError;
#[cfg(feature = "postgres")]
use crate::sql::MAX_TEXT;
use crate::sql::ParsedStatement;

/// How much text may stay prepared on a connection, in bytes. A server and a driver together take several times as much for it.
const MAX_CACHED: usize = 4 * 1024 * 1024;

/// The statements that are prepared on a connection, as far as diesel tells.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// How many may stay; 0 for none.
    limit: u32,
    count: u32,
    bytes: usize,
}

impl Prepared {
    pub(crate) fn new(limit: u32) -> Self {
        Prepared {
            limit,
            ..Prepared::default()
        }
    }

    pub(crate) fn add(&mut self, sql: &str) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(sql.len());
    }

    /// Whether they take more space than they may. Then all of them are forgotten.
    fn is_full(&self) -> bool {
        self.limit > 0 && (self.count > self.limit || self.bytes > MAX_CACHED)
    }
}

/// The types that text is cast to, by statement.
#[derive(Debug, Default)]
pub(crate) struct CastCache {
    by_text: HashMap<String, ParameterCasts>,
    bytes: usize,
}

impl CastCache {
    #[cfg(feature = "postgres")]
    pub(crate) fn get(&self, sql: &str) -> Option<ParameterCasts> {
        self.by_text.get(sql).cloned()
    }

    /// Keeps what was found out, within bounds: a program that writes values into statements must not fill the memory.
    #[cfg(feature = "postgres")]
    pub(crate) fn insert(&mut self, sql: &str, casts: ParameterCasts) {
        const MAX_COUNT: usize = 1024;
        if sql.len() > MAX_TEXT {
            return;
        }
        if self.by_text.len() >= MAX_COUNT || self.bytes + sql.len() > MAX_CACHED {
            self.clear();
        }
        self.bytes += sql.len();
        self.by_text.insert(sql.to_owned(), casts);
    }

    fn remove(&mut self, sql: &str) {
        if self.by_text.remove(sql).is_some() {
            self.bytes -= sql.len();
        }
    }

    fn clear(&mut self) {
        self.by_text.clear();
        self.bytes = 0;
    }
}

impl Connection {
    /// Runs a statement, and once more if it was refused for what was known of it from before a change of the schema: whoever
    /// refuses a statement outside of a transaction has executed nothing.
    pub(crate) fn with_stale_plan_retry<T>(
        &mut self,
        sql: &str,
        parsed: &ParsedStatement<'_>,
        has_text: bool,
        mut run: impl FnMut(&mut Self, Option<ParameterCasts>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        if self.is_cache_full() {
            self.forget_prepared();
        }
        let casts = self.casts_for(sql, parsed, has_text);
        let first = run(self, casts.clone());
        let Err(error @ DbError::Query(_)) = &first else {
            return first;
        };
        let is_stale = is_stale(error) && self.has_prepared();
        let is_nested = self.transaction_depth() > 0;
        let Some(observer) = self.observer() else {
            return first;
        };
        observer.casts.remove(sql);
        if is_nested || observer.raw_transaction {
            // The connection ends with the transaction, which has failed, or it would refuse the statement for ever.
            observer.is_dirty |= is_stale;
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

    fn has_prepared(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| observer.prepared.count > 0)
    }

    /// Whether the prepared statements take more than they may.
    pub(crate) fn is_cache_full(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| observer.prepared.is_full())
    }

    /// Forgets all prepared statements, here and at the server; `false` if the server could not be told.
    pub(crate) fn forget_prepared(&mut self) -> bool {
        // First at the server: a transaction that has failed refuses it, and then all stays as it is.
        if self.backend() == Backend::Postgres && self.run("DEALLOCATE ALL").is_err() {
            return false;
        }
        self.unprepared(|_| ());
        if let Some(observer) = self.observer() {
            let limit = observer.prepared.limit;
            observer.prepared = Prepared::new(limit);
            observer.casts.clear();
        }
        true
    }

    /// Does `work`, whose statements the server plans and executes at once: a table cannot change in between.
    pub(crate) fn unprepared<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        diesel::Connection::set_prepared_statement_cache_size(self, CacheSize::Disabled);
        let result = work(self);
        if self
            .observer()
            .is_none_or(|observer| observer.prepared.limit > 0)
        {
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
