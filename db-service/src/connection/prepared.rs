//! The prepared statements and the parameter casts of a connection.

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

/// The maximum text of a connection's prepared statements in bytes. Server and driver together use several times as
/// much memory.
const MAX_CACHED: usize = 4 * 1024 * 1024;

/// The number and size of a connection's prepared statements, as diesel reports them.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The maximum number; 0 for no cache.
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

    /// Returns whether a maximum is exceeded. Then all prepared statements are dropped.
    fn is_full(&self) -> bool {
        self.limit > 0 && (self.count > self.limit || self.bytes > MAX_CACHED)
    }
}

/// The parameter casts of known statements.
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

    /// Stores the casts of a statement. The size is bounded, because a program that writes values into its texts
    /// produces ever more statements.
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
    /// Runs a statement, and once more after a stale plan. A refused statement outside a transaction has executed
    /// nothing.
    pub(crate) fn with_stale_plan_retry<T>(
        &mut self,
        sql: &str,
        parsed: &ParsedStatement<'_>,
        has_text: bool,
        mut run: impl FnMut(&mut Self, Option<ParameterCasts>) -> Result<T, DbError>,
    ) -> Result<T, DbError> {
        if self.is_cache_full() {
            self.deallocate_prepared();
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
        if is_nested || observer.has_raw_transaction {
            // The transaction has failed. The connection is closed after it, because the stale plan stays.
            observer.is_dirty |= is_stale;
            return first;
        }
        if is_stale {
            self.deallocate_prepared();
        }
        let now = self.casts_for(sql, parsed, casts.is_some());
        if is_stale || now != casts {
            return self.without_prepared_statements(|connection| run(connection, now));
        }
        first
    }

    fn has_prepared(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| observer.prepared.count > 0)
    }

    /// Returns whether the statement cache exceeds a maximum.
    pub(crate) fn is_cache_full(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| observer.prepared.is_full())
    }

    /// Drops all prepared statements, in the driver and in the server. Returns `false` if the server refuses.
    pub(crate) fn deallocate_prepared(&mut self) -> bool {
        // The server comes first: in a failed transaction it refuses, and then nothing changes.
        if self.backend() == Backend::Postgres && self.run("DEALLOCATE ALL").is_err() {
            return false;
        }
        self.without_prepared_statements(|_| ());
        if let Some(observer) = self.observer() {
            let limit = observer.prepared.limit;
            observer.prepared = Prepared::new(limit);
            observer.casts.clear();
        }
        true
    }

    /// Runs `work` without the statement cache, so that the server plans and executes each statement in one step, and
    /// no table can change between the two.
    pub(crate) fn without_prepared_statements<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
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

/// Returns whether PostgreSQL may have refused a statement because its plan is stale: the columns of its result, or the
/// type of a column for which the server inferred a parameter's type, have changed since.
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
