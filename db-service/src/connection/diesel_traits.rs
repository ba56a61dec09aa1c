//! [`Connection`] as a connection of diesel.

use std::sync::Arc;
#[cfg(feature = "sqlite")]
use std::sync::atomic::Ordering;
use std::time::Instant;

use diesel::associations::HasTable;
use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection as _, ConnectionSealed, DefaultLoadingMode,
    Instrumentation, LoadConnection, SimpleConnection,
};
use diesel::expression::QueryMetadata;
use diesel::migration::MigrationConnection;
use diesel::query_builder::{
    AsQuery, IntoUpdateTarget, Query, QueryBuilder, QueryFragment, QueryId,
};
use diesel::query_dsl::{LoadQuery, UpdateAndFetchResults};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::{AsChangeset, ConnectionError, ConnectionResult, Identifiable, RunQueryDsl, Table};

#[cfg(feature = "sqlite")]
use super::cursor::Reading;
use super::cursor::{DriverRows, MultiCursor};
use super::establish::Connector;
use super::known_statements::KnownQuery;
use super::session::Running;
use super::transaction::MultiTransactionManager;
use super::{Connection, on_each};
use crate::backend::Backend;
use crate::config::{DatabaseConfig, UrlError};
use crate::dsl::{ByReference, Delegated, MultiBackend, MultiQueryBuilder, MultiRow};
use crate::error::{DbError, remember_names_of_statement};
use crate::statistics::Call;

impl SimpleConnection for Connection {
    /// Executes one or several statements without parameters.
    ///
    /// # Errors
    ///
    /// Inside the closure of a transaction, refuses a text that ends the transaction, with a wrapped
    /// [`DbError::EndsTransaction`], and executes nothing of it.
    fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        let query = self.session().known_query(sql);
        let started = self.start_query(&query)?;
        if self.session().observed.echo {
            self.session().observed.echo(&sql);
        }
        let result = on_each!(self, inner => inner.batch_execute(sql));
        self.end_query(&started, &query, result, |()| 0, false)
    }
}

impl ConnectionSealed for Connection {}

impl diesel::Connection for Connection {
    type Backend = MultiBackend;
    type TransactionManager = MultiTransactionManager;

    /// Opens a connection outside any pool, with the default settings. `url` has the forms of `DATABASE_URL`.
    fn establish(url: &str) -> ConnectionResult<Self> {
        let invalid = |error: UrlError| ConnectionError::InvalidConnectionUrl(error.to_string());
        let failed = |error: DbError| ConnectionError::BadConnection(error.to_string());
        let config = DatabaseConfig::new(url.parse().map_err(invalid)?);
        let connector = Connector::new(&config, Arc::default()).map_err(failed)?;
        connector.open_first().map_err(failed)
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        let query = self.known_source(source)?;
        let result = self.execute_once(&query, source, true);
        if self.must_repeat(&result) {
            return self
                .without_prepared(|connection| connection.execute_once(&query, source, false));
        }
        result
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        on_each!(self, inner => inner.transaction_state())
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.session()
    }

    /// Sets an instrumentation that observes the connection until it returns to the pool.
    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.session().user_instrumentation = Some(Box::new(instrumentation));
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.set_cache(size);
    }
}

impl LoadConnection for Connection {
    type Cursor<'conn, 'query> = MultiCursor<'conn, 'query>;
    type Row<'conn, 'query> = MultiRow<'conn, 'query>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<MultiCursor<'conn, 'query>>
    where
        T: Query + QueryFragment<MultiBackend> + QueryId + 'query,
        MultiBackend: QueryMetadata<T::SqlType>,
    {
        let query = self.known_source(&source)?;
        match self.backend() {
            #[cfg(feature = "postgres")]
            Backend::Postgres => self.load_from_postgres(&query, &source),
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => self.load_from_sqlite(query, source),
            #[allow(unreachable_patterns, reason = "one backend may be compiled in")]
            _ => Err(DieselError::NotFound),
        }
    }
}

impl Connection {
    /// Returns what is known of a query. Its text is built only if its type does not determine it.
    fn known_source<T>(&mut self, source: &T) -> QueryResult<Arc<KnownQuery>>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        let backend = self.backend();
        let build = || {
            let mut sql = MultiQueryBuilder::new(backend);
            source.to_sql(&mut sql, MultiBackend::of(backend))?;
            Ok(sql.finish())
        };
        match T::query_id() {
            // diesel gives arrays of rows one type, although the text depends on which values are `None`. Such a query
            // is not safe to cache.
            Some(id) if source.is_safe_to_cache_prepared(MultiBackend::of(backend))? => {
                self.known_type(id, build)
            }
            _ => Ok(self.session().known_query(&build()?)),
        }
    }

    /// Starts a query, after a check that the session can execute it.
    fn start_query(&mut self, query: &KnownQuery) -> QueryResult<(Running, Instant)> {
        let side_effects = query.facts.side_effects;
        let session = self.session();
        let started_at = Instant::now();
        if session.is_idle() && !session.statements.must_be_dropped() {
            return Ok((session.start_idle(side_effects, None), started_at));
        }
        self.check_usable()?;
        if side_effects.end && self.session().transaction.levels > 0 {
            return Err(DbError::EndsTransaction.into());
        }
        if self.must_drop_prepared() && !self.is_in_transaction() {
            self.drop_prepared();
        }
        Ok((self.start(side_effects, None), started_at))
    }

    /// Notes the end of a query. `rows` counts its rows. If `may_repeat`, a stale plan outside a transaction does not
    /// count, because the query is repeated.
    fn end_query<R>(
        &mut self,
        (running, started_at): &(Running, Instant),
        query: &KnownQuery,
        result: QueryResult<R>,
        rows: impl FnOnce(&R) -> u64,
        may_repeat: bool,
    ) -> QueryResult<R> {
        let took = started_at.elapsed();
        let result = match result {
            Ok(value) => {
                self.session().finish(running, None);
                Ok(value)
            }
            Err(error) => {
                remember_names_of_statement(&error, &query.text);
                Err(self.failed(running, error))
            }
        };
        if may_repeat && is_stale(&result) && !self.is_in_transaction() {
            self.session().note_uncounted();
            return result;
        }
        let session = self.session();
        if session.counts() {
            session.count_query(result.is_ok());
        }
        let call = Call {
            took,
            rows: result.as_ref().map_or(0, rows),
            failed: result.is_err(),
        };
        session.record(&query.entry, &query.text, call);
        result
    }

    fn execute_once<T>(
        &mut self,
        query: &KnownQuery,
        source: &T,
        may_repeat: bool,
    ) -> QueryResult<usize>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        let started = self.start_query(query)?;
        let delegated = Delegated {
            query: ByReference(source),
            sql: Arc::clone(&query.text),
        };
        self.echo_query(&delegated);
        let result = on_each!(self, inner => inner.execute_returning_count(&delegated));
        // For a statement that changes no rows, SQLite returns the count of the last one that did.
        let result = result.map(|count| match self.backend() {
            Backend::Sqlite if !query.facts.changes_rows => 0,
            _ => count,
        });
        self.end_query(&started, query, result, |count| *count as u64, may_repeat)
    }

    /// Starts a SQLite query, which runs while its rows are read.
    #[cfg(feature = "sqlite")]
    fn load_from_sqlite<'conn, 'query, T>(
        &'conn mut self,
        query: Arc<KnownQuery>,
        source: T,
    ) -> QueryResult<MultiCursor<'conn, 'query>>
    where
        T: QueryFragment<MultiBackend> + QueryId + 'query,
    {
        let (running, started_at) = self.start_query(&query)?;
        self.echo_query(&Delegated {
            query: ByReference(&source),
            sql: Arc::clone(&query.text),
        });
        let session = self.session();
        let mut reading = Reading {
            observed: Arc::clone(&session.observed),
            query: Arc::clone(&query),
            started_at,
            counts: session.counts(),
            rows: 0,
            failed: false,
        };
        let has_raw = session.transaction.has_raw;
        session.finish(&running, None);
        // A `COMMIT` runs when its rows are read, and never if they are dropped before. The reset rolls back what is open.
        session.transaction.has_raw |= has_raw;
        session.observed.is_reading.store(true, Ordering::Relaxed);
        session.observed.is_loading.store(true, Ordering::Relaxed);
        match self {
            Connection::Sqlite(inner) => {
                let delegated = Delegated {
                    query: source,
                    sql: Arc::clone(&query.text),
                };
                let loaded = LoadConnection::<DefaultLoadingMode>::load(inner, delegated);
                reading.observed.is_loading.store(false, Ordering::Relaxed);
                match loaded {
                    Ok(rows) => Ok(MultiCursor(DriverRows::Sqlite(rows, reading))),
                    Err(error) => {
                        reading.fail(&error);
                        Err(error)
                    }
                }
            }
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => Err(DieselError::NotFound),
        }
    }

    #[cfg(feature = "postgres")]
    fn load_from_postgres<'conn, 'query, T>(
        &'conn mut self,
        query: &KnownQuery,
        source: &T,
    ) -> QueryResult<MultiCursor<'conn, 'query>>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        let result = self.load_once(query, source, true);
        let result = if self.must_repeat(&result) {
            self.without_prepared(|connection| connection.load_once(query, source, false))
        } else {
            result
        };
        Ok(MultiCursor(DriverRows::Postgres(result?)))
    }

    /// Loads all rows from PostgreSQL.
    #[cfg(feature = "postgres")]
    fn load_once<T>(
        &mut self,
        query: &KnownQuery,
        source: &T,
        may_repeat: bool,
    ) -> QueryResult<<diesel::PgConnection as LoadConnection>::Cursor<'static, 'static>>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        let started = self.start_query(query)?;
        let delegated = Delegated {
            query: ByReference(source),
            sql: Arc::clone(&query.text),
        };
        self.echo_query(&delegated);
        let rows = match self {
            Connection::Postgres(inner) => {
                LoadConnection::<DefaultLoadingMode>::load(inner, delegated)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => Err(DieselError::NotFound),
        };
        self.end_query(&started, query, rows, |rows| rows.len() as u64, may_repeat)
    }

    /// Logs a query if statements are logged.
    fn echo_query<T: QueryFragment<MultiBackend>>(&mut self, query: &Delegated<T>) {
        let observed = &self.session().observed;
        if observed.echo {
            match observed.backend {
                #[cfg(feature = "postgres")]
                Backend::Postgres => {
                    observed.echo(&diesel::debug_query::<diesel::pg::Pg, _>(query));
                }
                #[cfg(feature = "sqlite")]
                Backend::Sqlite => {
                    observed.echo(&diesel::debug_query::<diesel::sqlite::Sqlite, _>(query));
                }
                #[allow(unreachable_patterns, reason = "one backend may be compiled in")]
                _ => {}
            }
        }
    }

    /// Returns whether a query must run once more without its stale plan. A refused query outside a transaction has
    /// executed nothing.
    fn must_repeat<R>(&mut self, result: &QueryResult<R>) -> bool {
        if !is_stale(result) || self.is_in_transaction() {
            return false;
        }
        let is_repeated = self.drop_prepared();
        self.session().count_noted(is_repeated);
        is_repeated
    }
}

fn is_stale<R>(result: &QueryResult<R>) -> bool {
    matches!(result, Err(DieselError::QueryBuilderError(error))
        if matches!(error.downcast_ref(), Some(DbError::StalePlan(_))))
}

impl MigrationConnection for Connection {
    fn setup(&mut self) -> QueryResult<usize> {
        self.internally(|connection| on_each!(connection, inner => inner.setup()))
    }
}

/// [`save_changes`](diesel::SaveChangesDsl::save_changes).
impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for Connection
where
    Changes:
        Copy + Identifiable + AsChangeset<Target = <Changes as HasTable>::Table> + IntoUpdateTarget,
    diesel::dsl::Update<Changes, Changes>: AsQuery + LoadQuery<'b, Connection, Output>,
    <Changes as HasTable>::Table: Table,
{
    fn update_and_fetch(&mut self, changes: Changes) -> QueryResult<Output> {
        diesel::update(changes).set(changes).get_result(self)
    }
}
