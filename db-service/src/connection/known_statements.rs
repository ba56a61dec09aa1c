//! The statements that a connection knows: parsed once per text, prepared once, and measured in one place.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

#[cfg(feature = "postgres")]
use parking_lot::Mutex;

use super::Connection;
#[cfg(feature = "postgres")]
use super::parameter_types::AskedTypes;
use super::session::Session;
use crate::backend::Backend;
use crate::dialect::ColumnNames;
use crate::error::DbError;
use crate::sql::{self, MAX_TEXT, ParsedStatement, TextFacts};
use crate::statistics::{StatementEntry, Statements};

/// The maximum text of a connection's prepared statements in bytes. Server and driver together use several times as
/// much memory.
const MAX_CACHED: usize = 4 * 1024 * 1024;

/// The maximum number of statements of one kind that a connection knows. A program that writes values into its texts
/// produces ever more of them.
const MAX_COUNT: usize = 1024;

/// A statement with `:name` parameters.
#[derive(Debug)]
pub(crate) struct KnownStatement {
    pub(crate) parsed: ParsedStatement,
    pub(crate) entry: StatementEntry,
    /// The types of its parameters, once PostgreSQL was asked for them.
    #[cfg(feature = "postgres")]
    pub(super) types: Mutex<Option<AskedTypes>>,
    pub(crate) columns: ColumnNames,
}

/// A query of diesel's DSL, or a batch.
#[derive(Debug)]
pub(crate) struct KnownQuery {
    pub(crate) text: Arc<str>,
    pub(crate) facts: TextFacts,
    pub(crate) entry: StatementEntry,
}

/// The statements of one connection, by their texts, and those of diesel's DSL by their types if a type has one text.
#[derive(Debug)]
pub(crate) struct KnownStatements {
    /// The last statement, which often is also the next one.
    last: Option<Arc<KnownStatement>>,
    by_text: Bounded<Box<str>, KnownStatement>,
    queries: Bounded<Box<str>, KnownQuery>,
    queries_by_type: Bounded<TypeId, KnownQuery>,
    pub(super) prepared: Prepared,
    /// Whether a prepared statement was refused because a table has changed.
    pub(super) has_stale_plan: bool,
}

impl KnownStatements {
    pub(super) fn new(limit: u32) -> Self {
        KnownStatements {
            last: None,
            by_text: Bounded::default(),
            queries: Bounded::default(),
            queries_by_type: Bounded::default(),
            prepared: Prepared {
                limit,
                ..Prepared::default()
            },
            has_stale_plan: false,
        }
    }

    /// Forgets all statements, after the prepared ones were dropped.
    pub(super) fn forget(&mut self) {
        *self = KnownStatements::new(self.prepared.limit);
    }

    /// Returns whether all prepared statements must be dropped: a maximum is exceeded, or one of them is stale.
    pub(super) fn must_be_dropped(&self) -> bool {
        self.has_stale_plan || self.prepared.is_full()
    }
}

/// A map with a maximum number of entries and bytes. A full map forgets all of them.
#[derive(Debug)]
struct Bounded<K, V> {
    entries: HashMap<K, Arc<V>>,
    bytes: usize,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Bounded {
            entries: HashMap::new(),
            bytes: 0,
        }
    }
}

impl<K: Hash + Eq, V> Bounded<K, V> {
    fn insert(&mut self, key: K, value: V, bytes: usize) -> Arc<V> {
        let value = Arc::new(value);
        if bytes <= MAX_TEXT {
            if self.entries.len() >= MAX_COUNT || self.bytes + bytes > MAX_CACHED {
                self.clear();
            }
            self.bytes += bytes;
            self.entries.insert(key, Arc::clone(&value));
        }
        value
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

/// The number and size of a connection's prepared statements, as diesel reports them.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// The maximum number; 0 for no cache.
    limit: u32,
    count: u32,
    bytes: usize,
}

impl Prepared {
    pub(super) fn add(&mut self, sql: &str) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(sql.len());
    }

    /// Returns whether statements are kept prepared.
    pub(super) fn is_on(&self) -> bool {
        self.limit > 0
    }

    fn is_full(&self) -> bool {
        self.limit > 0 && (self.count > self.limit || self.bytes > MAX_CACHED)
    }
}

impl Session {
    /// Returns a query of diesel's DSL, or a batch, by its text.
    pub(super) fn known_query(&mut self, sql: &str) -> Arc<KnownQuery> {
        if let Some(known) = self.statements.queries.entries.get(sql) {
            return Arc::clone(known);
        }
        let query = self.scan(sql);
        self.statements.queries.insert(sql.into(), query, sql.len())
    }

    fn scan(&self, sql: &str) -> KnownQuery {
        KnownQuery {
            text: sql.into(),
            facts: sql::facts(sql, self.observed.backend),
            entry: entry(
                &self.observed.statistics.statements,
                sql,
                self.observed.backend,
                self.is_internal(),
            ),
        }
    }
}

impl Connection {
    /// Returns a statement, parsed the first time.
    pub(crate) fn known(&mut self, sql: &str) -> Result<Arc<KnownStatement>, DbError> {
        let backend = self.backend();
        let session = self.session();
        let statements = &mut session.statements;
        if let Some(last) = &statements.last
            && last.parsed.text() == sql
        {
            return Ok(Arc::clone(last));
        }
        if let Some(known) = statements.by_text.entries.get(sql) {
            statements.last = Some(Arc::clone(known));
            return Ok(Arc::clone(known));
        }
        let parsed = sql::parse(sql, backend)?;
        let statement = KnownStatement {
            parsed,
            entry: entry(
                &session.observed.statistics.statements,
                sql,
                backend,
                session.is_internal(),
            ),
            #[cfg(feature = "postgres")]
            types: Mutex::new(None),
            columns: ColumnNames::default(),
        };
        Ok(session
            .statements
            .by_text
            .insert(sql.into(), statement, sql.len()))
    }

    /// Returns a query whose type has one text. `sql` returns that text.
    pub(super) fn known_type<E>(
        &mut self,
        id: TypeId,
        sql: impl FnOnce() -> Result<String, E>,
    ) -> Result<Arc<KnownQuery>, E> {
        let session = self.session();
        if let Some(known) = session.statements.queries_by_type.entries.get(&id) {
            return Ok(Arc::clone(known));
        }
        let query = session.scan(&sql()?);
        let bytes = query.text.len();
        let queries = &mut session.statements.queries_by_type;
        Ok(queries.insert(id, query, bytes))
    }

    /// Returns whether prepared statements exist.
    pub(super) fn has_prepared(&mut self) -> bool {
        self.session().statements.prepared.count > 0
    }

    /// Returns whether all prepared statements must be dropped before the next statement.
    pub(crate) fn must_drop_prepared(&mut self) -> bool {
        self.session().statements.must_be_dropped()
    }
}

/// Returns the measurements of a statement. Those of this crate's own statements are not reported.
fn entry(
    statements: &Statements,
    sql: &str,
    backend: Backend,
    is_internal: bool,
) -> StatementEntry {
    if is_internal {
        StatementEntry::default()
    } else {
        statements.entry(sql, backend)
    }
}
