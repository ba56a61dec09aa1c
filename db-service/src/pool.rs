//! The pool: r2d2 behind a gate.

mod checkouts;
mod manager;
mod metrics;
mod semaphore;

pub(crate) use manager::CHECK;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::config::DatabaseConfig;
use crate::connection::Connection;
use crate::error::DbError;
use crate::statistics::{PoolStatus, Statistics};
use crate::watchdog::CallError;
use checkouts::{Checkout, Checkouts};
use manager::{LastFailure, LogErrors, Manager};
use metrics::WaitingGauge;
use semaphore::{AcquireError, FairSemaphore, Permit};

/// Longer than any wait, and short enough to be added to any moment.
const MAX_WAIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long r2d2 pauses at most before it tries again to connect: half of its own limit, which has no other use here.
const RETRY: Duration = Duration::from_millis(500);

pub(crate) struct ConnectionPool {
    /// `None` once the service was shut down.
    pool: RwLock<Option<r2d2::Pool<Manager>>>,
    gate: Arc<FairSemaphore>,
    pub(crate) statistics: Arc<Statistics>,
    loans: Arc<Checkouts>,
    last_failure: LastFailure,
    timeout: Duration,
    drain_timeout: Duration,
    pool_size: u32,
    maximum: u32,
}

impl ConnectionPool {
    /// Opens one connection, so that what is wrong shows at once and in the server's own words, and leaves it in the pool.
    pub(crate) fn open(config: &DatabaseConfig) -> Result<Self, DbError> {
        let statistics = Arc::new(Statistics::default());
        let manager = Manager::open(config, Arc::clone(&statistics))?;
        let last_failure = manager.last_failure();
        let maximum = config.pool_size + config.max_overflow;
        let builder = r2d2::Pool::builder()
            .max_size(maximum)
            .min_idle(Some(config.min_idle))
            .max_lifetime(None)
            .idle_timeout(None)
            .connection_timeout(2 * RETRY)
            .error_handler(Box::new(LogErrors));
        // It panics if it cannot start its threads.
        let pool = panic::catch_unwind(AssertUnwindSafe(|| builder.build_unchecked(manager)))
            .map_err(|_| {
                let reason = "no thread could be started for the pool".to_owned();
                DbError::not_connected(config.url.to_string(), reason)
            })?;
        Ok(ConnectionPool {
            pool: RwLock::new(Some(pool)),
            gate: FairSemaphore::new(maximum as usize),
            statistics,
            loans: Arc::new(Checkouts::new(config.leak_threshold)),
            last_failure,
            timeout: config.pool_timeout,
            drain_timeout: config.drain_timeout,
            pool_size: config.pool_size,
            maximum,
        })
    }

    /// Hands out a connection within the time limit; it is held by the caller.
    #[track_caller]
    pub(crate) fn get(&self) -> Result<PooledConnection, DbError> {
        let holder = Location::caller();
        self.loans.warn_of_leak();
        let began = Instant::now();
        let deadline = began + self.timeout.min(MAX_WAIT);
        let waiting = WaitingGauge::begin(began);
        let permit = match self.gate.acquire(deadline) {
            Ok(permit) => permit,
            Err(AcquireError::Closed) => return Err(DbError::Closed),
            Err(AcquireError::TimedOut) => return Err(self.timed_out(None)),
        };
        let pool = self.pool.read().clone().ok_or(DbError::Closed)?;
        let left = deadline.saturating_duration_since(Instant::now());
        let connection = manager::by(deadline, || pool.get_timeout(left))
            .map_err(|source| self.timed_out(Some(source)))?;
        drop(waiting);
        self.statistics.total_connections.increment();
        self.statistics.active_connections.increment();
        Ok(PooledConnection {
            connection,
            statistics: Arc::clone(&self.statistics),
            loan: Checkouts::begin(&self.loans, holder),
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
        }
    }

    /// Hands out nothing any more, waits for what is in use, and closes the idle connections; what is still in
    /// use when the time is over is closed when it comes back.
    pub(crate) fn close(&self) {
        self.gate.close();
        let deadline = Instant::now() + self.drain_timeout.min(MAX_WAIT);
        let left = self.gate.drain(deadline);
        if left > 0 {
            let longest = self.loans.longest().map(|longest| format!("; {longest}"));
            log::warn!(
                "{left} connections are still in use after {:?}{}",
                self.drain_timeout,
                longest.unwrap_or_default()
            );
        }
        drop(self.pool.write().take());
    }

    fn size(&self) -> (u32, u32) {
        let state = self.pool.read().as_ref().map(r2d2::Pool::state);
        state.map_or((0, 0), |state| (state.connections, state.idle_connections))
    }

    fn timed_out(&self, source: Option<r2d2::Error>) -> DbError {
        metrics::timed_out();
        let ((open, idle), (in_use, waiting)) = (self.size(), self.gate.load());
        DbError::PoolTimeout {
            timeout: self.timeout,
            open,
            maximum: self.maximum,
            idle,
            in_use,
            waiting,
            longest: self.loans.longest(),
            last_failure: self.last_failure.lock().clone(),
            source,
        }
    }
}

/// A connection on loan; it goes back to the pool on drop, rolled back if need be.
///
/// It dereferences to [`Connection`], so diesel's DSL works on `&mut *connection`.
pub struct PooledConnection {
    connection: r2d2::PooledConnection<Manager>,
    statistics: Arc<Statistics>,
    loan: Checkout,
    // Last, so that the connection is back before the next caller is let through.
    _permit: Permit,
}

impl PooledConnection {
    /// Runs `work` for as long as the limit says at most. If there is no result by then, the connection is discarded.
    pub(crate) fn bounded<T: Send + 'static>(
        mut self,
        limit: Duration,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<(Self, T), CallError> {
        let result = self.connection.bounded(limit, work)?;
        Ok((self, result))
    }
}

impl Deref for PooledConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection.lent()
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        self.connection.lent_mut()
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        self.statistics.active_connections.decrement();
        metrics::used(self.loan.since());
    }
}

impl fmt::Debug for PooledConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pooled{:?}", **self)
    }
}
