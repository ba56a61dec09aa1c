//! The connection pool: r2d2 behind a fair semaphore.

mod checkouts;
mod manager;
mod metrics;
mod outage;
mod semaphore;

pub(crate) use manager::CHECK_TIMEOUT;

use std::borrow::{Borrow, BorrowMut};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::{
    AnsiTransactionManager, CacheSize, ConnectionSealed, DefaultLoadingMode, Instrumentation,
    LoadConnection, SimpleConnection,
};
use diesel::expression::QueryMetadata;
use diesel::migration::MigrationConnection;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::query_dsl::UpdateAndFetchResults;
use diesel::result::{Error as DieselError, QueryResult};
use diesel::{ConnectionError, ConnectionResult, Identifiable};
use parking_lot::{Mutex, RwLock};

use crate::config::DatabaseConfig;
use crate::connection::{Closing, Connection, MultiCursor, MultiTransactionManager};
use crate::dsl::{MultiBackend, MultiRow};
use crate::error::DbError;
use crate::statistics::{PoolStatus, Statistics};
use crate::watchdog::CallError;
use checkouts::{Checkout, Checkouts};
use manager::{LastFailure, Manager};
use metrics::WaitingGauge;
use semaphore::{AcquireError, FairSemaphore, Permit};

/// A hundred years, as the maximum of a timeout, so that it can be added to an `Instant`.
const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The maximum pause between r2d2's attempts to connect, which is half of r2d2's connection timeout. That timeout has
/// no other effect here.
const RETRY: Duration = Duration::from_millis(500);

/// The maximum time in which r2d2's threads make the placeholder.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct ConnectionPool {
    /// `None` after the service was shut down.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    /// A checked-out value without a connection. When the pool closes, its return wakes a caller that waits in r2d2, whose
    /// return of the value wakes the next one.
    placeholder: Mutex<Option<r2d2::PooledConnection<Manager>>>,
    closing: Arc<Closing>,
    semaphore: Arc<FairSemaphore>,
    pub(crate) statistics: Arc<Statistics>,
    checkouts: Arc<Checkouts>,
    last_failure: LastFailure,
    timeout: Duration,
    drain_timeout: Duration,
    pool_size: u32,
    maximum: u32,
}

impl ConnectionPool {
    /// Opens a pool with one connection, so that an error appears at once, with the server's message.
    pub(crate) fn open(config: &DatabaseConfig) -> Result<Self, DbError> {
        let statistics = Arc::new(Statistics::default());
        let manager = Manager::open(config, Arc::clone(&statistics))?;
        let (last_failure, closing) = (manager.last_failure(), manager.closing());
        let maximum = config.pool_size + config.max_overflow;
        let builder = r2d2::Pool::builder()
            // One more, for the placeholder.
            .max_size(maximum + 1)
            .min_idle(Some(config.min_idle))
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(2 * RETRY)
            // The manager logs its errors itself.
            .error_handler(Box::new(r2d2::NopErrorHandler));
        // r2d2 panics if it cannot start its threads.
        let opened = panic::catch_unwind(AssertUnwindSafe(|| {
            let pool = builder.build_unchecked(manager);
            let placeholder = take_placeholder(&pool)?;
            Some((pool, placeholder))
        }));
        let (pool, placeholder) = opened.ok().flatten().ok_or_else(|| {
            let reason = "no thread could be started for the pool".to_owned();
            DbError::not_connected(config.url.to_string(), reason)
        })?;
        Ok(ConnectionPool {
            pool: RwLock::new(Some(pool)),
            placeholder: Mutex::new(Some(placeholder)),
            closing,
            semaphore: FairSemaphore::new(maximum as usize),
            statistics,
            checkouts: Arc::new(Checkouts::new(config.leak_threshold)),
            last_failure,
            timeout: config.pool_timeout,
            drain_timeout: config.drain_timeout,
            pool_size: config.pool_size,
            maximum,
        })
    }

    /// Checks out a connection within the pool's timeout.
    #[track_caller]
    pub(crate) fn get(&self) -> Result<PooledConnection, DbError> {
        self.get_at(Location::caller())
    }

    /// Checks out a connection for the call at `holder`.
    pub(crate) fn get_at(
        &self,
        holder: &'static Location<'static>,
    ) -> Result<PooledConnection, DbError> {
        self.checkouts.warn_of_leaks();
        let started_at = Instant::now();
        let deadline = started_at + self.timeout.min(MAX_WAIT);
        let waiting = WaitingGauge::begin(started_at);
        let permit = match self.semaphore.acquire(deadline) {
            Ok(permit) => permit,
            Err(AcquireError::Closed) => return Err(DbError::Closed),
            Err(AcquireError::TimedOut) => return Err(self.timed_out(None)),
        };
        let pool = self.pool.read().clone().ok_or(DbError::Closed)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = manager::by(deadline, || pool.get_timeout(left))
            .map_err(|source| self.timed_out(Some(source)))?;
        if self.closing.has_begun() || connection.is_placeholder() {
            return Err(DbError::Closed);
        }
        drop(waiting);
        self.statistics.total_connections.increment();
        self.statistics.active_connections.increment();
        Ok(PooledConnection {
            connection,
            statistics: Arc::clone(&self.statistics),
            checkout: Checkouts::begin(&self.checkouts, holder),
            _permit: permit,
        })
    }

    pub(crate) fn status(&self) -> PoolStatus {
        let (open, idle) = self.size();
        let statistics = &self.statistics;
        PoolStatus {
            pool_size: self.pool_size,
            checked_in: idle,
            checked_out: open.saturating_sub(idle),
            overflow: open.saturating_sub(self.pool_size),
            invalid: statistics.invalid.get(),
            total_connections: statistics.total_connections.get(),
            active_connections: statistics.active_connections.get(),
            successful_queries: statistics.successful_queries.get(),
            failed_queries: statistics.failed_queries.get(),
            transactions_committed: statistics.transactions_committed.get(),
            transactions_rolled_back: statistics.transactions_rolled_back.get(),
            retries: statistics.retries.get(),
        }
    }

    /// Refuses checkouts, and ends the waits of callers, which get [`DbError::Closed`].
    pub(crate) fn refuse(&self) {
        self.closing.begin();
        self.semaphore.close();
        drop(self.placeholder.lock().take());
    }

    /// Waits for `pause`, or until the pool closes. Returns whether it closes.
    pub(crate) fn waits_in_vain(&self, pause: Duration) -> bool {
        self.closing.wait(pause)
    }

    /// Closes the pool: refuses checkouts, waits up to the drain timeout for connections in use, and closes the idle
    /// ones. A connection that is still in use afterwards is closed when it is returned.
    pub(crate) fn close(&self) {
        self.refuse();
        let deadline = Instant::now() + self.drain_timeout.min(MAX_WAIT);
        let left = self.semaphore.drain(deadline);
        if left > 0 {
            let longest = self
                .checkouts
                .longest()
                .map(|longest| format!("; {longest}"));
            log::warn!(
                "{left} connections are still in use after {:?}{}",
                self.drain_timeout,
                longest.unwrap_or_default()
            );
        }
        drop(self.pool.write().take());
    }

    /// Returns the numbers of open and idle connections, without the placeholder.
    fn size(&self) -> (u32, u32) {
        let placeholder = self.placeholder.lock();
        let state = self.pool.read().as_ref().map(r2d2::Pool::state);
        let returned = u32::from(placeholder.is_none());
        state.map_or((0, 0), |state| {
            let idle = state.idle_connections.saturating_sub(returned);
            (state.connections.saturating_sub(1), idle)
        })
    }

    /// Returns the error of a caller that has waited in vain. `source` is r2d2's error, if the caller has a permit.
    fn timed_out(&self, source: Option<r2d2::Error>) -> DbError {
        metrics::timed_out();
        // A caller gets its permit before its checkout and returns it afterwards, so while the checkouts do not change,
        // there are at least as many permits. A connection can be idle again before its checkout ends.
        let (open, idle, in_use, (permits, waiting)) = self.checkouts.with_count(|checkouts| {
            let (open, idle) = self.size();
            let in_use = checkouts.min(open.saturating_sub(idle) as usize);
            (open, idle, in_use, self.semaphore.load())
        });
        let own_permit = usize::from(source.is_some());
        let connecting = permits.saturating_sub(in_use + own_permit);
        DbError::PoolTimeout {
            timeout: self.timeout,
            open,
            maximum: self.maximum,
            idle,
            in_use,
            connecting: u32::try_from(connecting).unwrap_or(u32::MAX),
            waiting,
            longest: self.checkouts.longest(),
            last_failure: self.last_failure.lock().clone(),
            source,
        }
    }
}

/// Checks out the placeholder. With `DB_MIN_IDLE`, connections may come first.
fn take_placeholder(pool: &r2d2::Pool<Manager>) -> Option<r2d2::PooledConnection<Manager>> {
    let mut others = Vec::new();
    loop {
        let next = pool.get_timeout(START_TIMEOUT).ok()?;
        if next.is_placeholder() {
            return Some(next);
        }
        others.push(next);
    }
}

/// A checked-out connection. Dropping it rolls back an open transaction and returns the connection to the pool.
///
/// It is a [`diesel::Connection`] itself, and dereferences to a [`Connection`].
///
/// # Examples
///
/// ```
/// # use db_service::{ConfigService, DatabaseConfig, DatabaseService};
/// # use singleton_core::testing::Scope;
/// use diesel::prelude::*;
///
/// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
/// # Scope::new().provide(memory).run(|| {
/// let three = diesel::select(diesel::dsl::sql::<diesel::sql_types::BigInt>("1 + 2"));
/// assert_eq!(three.get_result::<i64>(&mut DatabaseService::connection()?)?, 3);
/// # Ok::<(), anyhow::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct PooledConnection {
    connection: r2d2::PooledConnection<Manager>,
    statistics: Arc<Statistics>,
    checkout: Checkout,
    // The last field, so that the connection is in the pool before the next caller gets the permit.
    _permit: Permit,
}

impl PooledConnection {
    /// Runs `work` with a timeout. Without a result by then, the connection is discarded.
    pub(crate) fn bounded<T: Send + 'static>(
        mut self,
        limit: Duration,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<(Self, T), CallError> {
        let result = self.connection.bounded(limit, work)?;
        Ok((self, result))
    }

    /// Runs `work` in a transaction, like [`Connection::transaction`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Connection::transaction`].
    pub fn transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E>,
        E: From<DieselError>,
    {
        (**self).transaction(work)
    }
}

impl Borrow<Connection> for PooledConnection {
    fn borrow(&self) -> &Connection {
        self
    }
}

impl BorrowMut<Connection> for PooledConnection {
    fn borrow_mut(&mut self) -> &mut Connection {
        self
    }
}

impl SimpleConnection for PooledConnection {
    fn batch_execute(&mut self, sql: &str) -> QueryResult<()> {
        (**self).batch_execute(sql)
    }
}

impl ConnectionSealed for PooledConnection {}

impl diesel::Connection for PooledConnection {
    type Backend = MultiBackend;
    type TransactionManager = MultiTransactionManager;

    /// Returns an error: a pooled connection comes from a pool.
    fn establish(_: &str) -> ConnectionResult<Self> {
        Err(ConnectionError::BadConnection(
            "a pooled connection comes from DatabaseService::connection".to_owned(),
        ))
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<MultiBackend> + QueryId,
    {
        (**self).execute_returning_count(source)
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        (**self).transaction_state()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        (**self).instrumentation()
    }

    /// Sets an instrumentation that observes the connection until it returns to the pool.
    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        (**self).set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        (**self).set_prepared_statement_cache_size(size);
    }
}

impl LoadConnection for PooledConnection {
    type Cursor<'conn, 'query> = MultiCursor<'conn, 'query>;
    type Row<'conn, 'query> = MultiRow<'conn, 'query>;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> QueryResult<MultiCursor<'conn, 'query>>
    where
        T: Query + QueryFragment<MultiBackend> + QueryId + 'query,
        MultiBackend: QueryMetadata<T::SqlType>,
    {
        LoadConnection::<DefaultLoadingMode>::load(&mut **self, source)
    }
}

impl MigrationConnection for PooledConnection {
    fn setup(&mut self) -> QueryResult<usize> {
        (**self).setup()
    }
}

/// [`save_changes`](diesel::SaveChangesDsl::save_changes).
impl<Changes, Output> UpdateAndFetchResults<Changes, Output> for PooledConnection
where
    Changes: Copy + Identifiable,
    Connection: UpdateAndFetchResults<Changes, Output>,
{
    fn update_and_fetch(&mut self, changes: Changes) -> QueryResult<Output> {
        (**self).update_and_fetch(changes)
    }
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.connection()
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.connection_mut()
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.statistics.active_connections.decrement();
        metrics::used(self.checkout.since());
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pooled{:?}", **self)
    }
}
