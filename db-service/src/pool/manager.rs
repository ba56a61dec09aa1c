//! r2d2's manager: opens, checks and resets connections.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use r2d2::ManageConnection;

use super::metrics::{self, ConnectionGauge, GaugeState, Reason};
use super::outage::Outages;
use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::config::Target;
use crate::connection::{Closing, Connection, Connector};
use crate::error::{Chain, DbError, ServerError};
use crate::statistics::Statistics;
use crate::watchdog::{self, CallError, CallLimit};
use singleton_core::__private::Escaped;

/// A connection that was used this recently is not checked, because a check costs a round trip. HikariCP uses the same
/// time.
const ALIVE_WINDOW: Duration = Duration::from_millis(500);

/// The timeout for resetting a returned connection.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum timeout of a check. A check takes at most half of the caller's remaining time, so that the other half is
/// left for another connection.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// A check with a shorter timeout may have failed only because of it.
const SHORT_CHECK: Duration = Duration::from_millis(100);

thread_local! {
    /// The deadline of the checkout on this thread.
    static DEADLINE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `work`, which checks out a connection, with the deadline of the checkout.
pub(crate) fn by<R>(deadline: Instant, work: impl FnOnce() -> R) -> R {
    let outer = DEADLINE.replace(Some(deadline));
    let result = work();
    DEADLINE.set(outer);
    result
}

/// Opens, checks and resets connections for r2d2.
pub(crate) struct Manager {
    config: DatabaseConfig,
    connector: Connector,
    statistics: Arc<Statistics>,
    /// Whether the placeholder was made. It is the first value that r2d2 gets.
    has_placeholder: AtomicBool,
    /// The connection that the start has opened. It becomes the pool's first one.
    initial_connection: Mutex<Option<Connection>>,
    /// A connection that keeps a database in memory alive while no other one is open.
    _keep_alive: Mutex<Option<Connection>>,
    /// The number of idle connections.
    idle: Mutex<u32>,
    last_failure: LastFailure,
    outages: Outages,
    /// The number of losses of the server. Connections of an earlier generation are considered lost too.
    generation: AtomicU64,
}

/// The error of the last failed attempt to connect.
pub(crate) type LastFailure = Arc<Mutex<Option<String>>>;

pub(crate) struct ManagedConnection {
    /// `None` in the pool's placeholder, after a timeout in [`bounded`](ManagedConnection::bounded), and after a
    /// return to a pool that closes. Such a connection is not handed out.
    connection: Option<Connection>,
    /// The end of the connection's lifetime.
    expires: Option<Instant>,
    /// The manager's generation when the connection was opened.
    generation: u64,
    used: Instant,
    presence: Option<ConnectionGauge>,
    calls: CallLimit,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ManagerError {
    #[error(transparent)]
    Connect(#[from] DbError),
    #[error("a connection was lost: {0}")]
    Lost(ServerError),
    #[error("an idle connection could not be checked: {0}")]
    Unchecked(CallError),
    #[error("a connection was replaced, because of its age or because another one was lost")]
    Recycled,
    #[error("the driver panicked while connecting")]
    Panicked,
}

impl ManagedConnection {
    /// Returns whether this is the pool's placeholder, or a connection that a pool that closes has closed.
    pub(crate) fn is_placeholder(&self) -> bool {
        self.connection.is_none()
    }

    fn note_state(&mut self, state: GaugeState) {
        if let Some(presence) = &mut self.presence {
            presence.change(state);
        }
    }

    /// Returns the connection, which must be checked out.
    pub(crate) fn connection(&self) -> &Connection {
        self.connection.as_ref().expect(CHECKED_OUT)
    }

    /// Returns the connection mutably, which must be checked out.
    pub(crate) fn connection_mut(&mut self) -> &mut Connection {
        self.connection.as_mut().expect(CHECKED_OUT)
    }

    /// Runs `work` on the connection, with a timeout on PostgreSQL. After the timeout, the connection stays with the
    /// thread that waits for the answer, and is closed when the answer comes. If no thread can be started, the
    /// connection is kept.
    pub(crate) fn bounded<T: Send + 'static>(
        &mut self,
        limit: Duration,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, CallError> {
        let mut connection = self.connection.take().ok_or(CallError::Panicked)?;
        if connection.backend() == Backend::Sqlite {
            let result = work(&mut connection);
            self.connection = Some(connection);
            return Ok(result);
        }
        let slot = Arc::new(Mutex::new(Some(connection)));
        let taken = Arc::clone(&slot);
        let finished = watchdog::run_with_timeout(&self.calls, limit, move || {
            let mut connection = taken.lock().take();
            let result = connection.as_mut().map(work);
            (connection, result)
        });
        match finished {
            Ok((connection, result)) => {
                self.connection = connection;
                result.ok_or(CallError::Panicked)
            }
            Err(unfinished @ CallError::NoThread(_)) => {
                self.connection = slot.lock().take();
                Err(unfinished)
            }
            Err(unfinished) => Err(unfinished),
        }
    }
}

/// [`ManageConnection::is_valid`] refuses a value without a connection, and [`ManagedConnection::bounded`] removes the connection
/// only after its return.
const CHECKED_OUT: &str = "a checked-out value has a connection";

impl Manager {
    pub(crate) fn open(
        config: &DatabaseConfig,
        statistics: Arc<Statistics>,
    ) -> Result<Self, DbError> {
        let connector = Connector::new(config, Arc::clone(&statistics))?;
        let first = connector.open_first()?;
        let is_in_memory = matches!(config.url.target(), Target::SqliteMemory);
        let anchor = is_in_memory.then(|| connector.open()).transpose()?;
        Ok(Manager {
            config: config.clone(),
            connector,
            statistics,
            has_placeholder: AtomicBool::new(false),
            initial_connection: Mutex::new(Some(first)),
            _keep_alive: Mutex::new(anchor),
            idle: Mutex::new(0),
            last_failure: LastFailure::default(),
            outages: Outages::default(),
            generation: AtomicU64::new(0),
        })
    }

    pub(crate) fn closing(&self) -> Arc<Closing> {
        Arc::clone(self.connector.closing())
    }

    /// Returns the value that holds a place in r2d2's pool. Its return wakes a caller that waits there.
    fn placeholder(&self) -> ManagedConnection {
        ManagedConnection {
            connection: None,
            expires: None,
            generation: u64::MAX,
            used: Instant::now(),
            presence: None,
            calls: self.connector.calls().clone(),
        }
    }

    /// Returns the cell with the error of the last attempt to connect. It is empty after a success.
    pub(crate) fn last_failure(&self) -> LastFailure {
        Arc::clone(&self.last_failure)
    }

    fn open_another(&self) -> Result<ManagedConnection, ManagerError> {
        // Read before opening: if the server is lost meanwhile, the new connection counts as lost too, which is
        // harmless.
        let generation = self.generation.load(Ordering::Relaxed);
        let first = self.initial_connection.lock().take();
        let connection = match first {
            Some(connection) => connection,
            // If opening panicked, r2d2 would lose one of its slots forever.
            None => panic::catch_unwind(AssertUnwindSafe(|| self.connector.open()))
                .map_err(|_| ManagerError::Panicked)??,
        };
        *self.idle.lock() += 1;
        Ok(ManagedConnection {
            connection: Some(connection),
            expires: self.expiry(),
            generation,
            used: Instant::now(),
            presence: Some(ConnectionGauge::of_idle()),
            calls: self.connector.calls().clone(),
        })
    }

    /// Records a lost connection. Of several connections that were lost together, only the first one counts. Returns
    /// whether this is the first one.
    fn lost(&self, managed: &ManagedConnection) -> bool {
        let next = managed.generation + 1;
        self.generation.fetch_max(next, Ordering::Relaxed) < next
    }

    fn is_outdated(&self, managed: &ManagedConnection) -> bool {
        managed.generation < self.generation.load(Ordering::Relaxed)
            || managed
                .expires
                .is_some_and(|expires| Instant::now() >= expires)
    }

    /// Returns the end of a new connection's lifetime, up to a tenth earlier at random, so that connections that were
    /// opened together are not replaced together.
    fn expiry(&self) -> Option<Instant> {
        let recycle = self.config.pool_recycle?;
        Instant::now().checked_add(recycle.mul_f64(1.0 - 0.1 * fastrand::f64()))
    }
}

impl ManageConnection for Manager {
    type Connection = ManagedConnection;
    type Error = ManagerError;

    fn connect(&self) -> Result<ManagedConnection, ManagerError> {
        if !self.has_placeholder.swap(true, Ordering::Relaxed) {
            return Ok(self.placeholder());
        }
        let started_at = Instant::now();
        let opened = self.open_another();
        match &opened {
            Ok(_) => {
                metrics::opened(started_at);
                self.outages.succeeded(&self.config.url);
            }
            Err(error) => {
                metrics::not_opened();
                self.outages.failed(error);
            }
        }
        *self.last_failure.lock() = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    /// Checks a connection. r2d2 calls it at each checkout, so the connection is not idle afterwards, whatever the
    /// result.
    fn is_valid(&self, managed: &mut ManagedConnection) -> Result<(), ManagerError> {
        // The pool returns it at once.
        if managed.is_placeholder() {
            return Ok(());
        }
        let mut idle = self.idle.lock();
        *idle = idle.saturating_sub(1);
        drop(idle);
        managed.note_state(GaugeState::InUse);
        // The pool hands out no more connections.
        if self.connector.closing().has_begun() {
            return Ok(());
        }
        if self.is_outdated(managed) {
            metrics::closed(Reason::Outdated);
            log::debug!("{}", ManagerError::Recycled);
            return Err(ManagerError::Recycled);
        }
        if managed.used.elapsed() < ALIVE_WINDOW {
            return Ok(());
        }
        let left = DEADLINE.get().map_or(CHECK_TIMEOUT, |deadline| {
            deadline.saturating_duration_since(Instant::now()) / 2
        });
        let limit = left.min(CHECK_TIMEOUT);
        let answer = managed.bounded(limit, |connection| connection.run("SELECT 1"));
        let failure = match answer {
            Ok(Ok(())) => return Ok(()),
            // A missing thread says nothing about the server.
            Err(CallError::NoThread(error)) => {
                log::warn!(
                    "an idle connection is used without a check: no thread could be started: {}",
                    Chain(&error)
                );
                return Ok(());
            }
            Ok(Err(error)) => ManagerError::Lost(error.into()),
            Err(unfinished) => ManagerError::Unchecked(unfinished),
        };
        // A very short timeout says nothing about the other connections.
        if limit < SHORT_CHECK || self.lost(managed) {
            log::warn!("{}", Escaped(&failure));
        }
        self.statistics.invalid.increment();
        metrics::closed(Reason::Lost);
        Err(failure)
    }

    /// Resets a connection, and returns whether to close it. r2d2 calls it at each return.
    fn has_broken(&self, managed: &mut ManagedConnection) -> bool {
        let is_closing = self.connector.closing().has_begun();
        if is_closing && managed.is_placeholder() {
            return false;
        }
        managed.used = Instant::now();
        let Some(reason) = self.reason_to_close(managed) else {
            managed.note_state(GaugeState::Idle);
            return false;
        };
        metrics::closed(reason);
        // r2d2 wakes a waiting caller only if something is returned to it.
        if is_closing {
            managed.connection = None;
            managed.presence = None;
        }
        !is_closing
    }
}

impl Manager {
    /// Resets a connection. Returns the reason to close it, if there is one.
    fn reason_to_close(&self, managed: &mut ManagedConnection) -> Option<Reason> {
        // After a panic, a result may be partly read.
        let is_clean = !thread::panicking()
            && managed
                .connection
                .as_mut()
                .is_some_and(Connection::is_clean);
        if !is_clean && let Some(reason) = self.reset(managed) {
            return Some(reason);
        }
        if self.is_outdated(managed) {
            return Some(Reason::Outdated);
        }
        // As in SQLAlchemy, an overflow connection is closed if enough connections are idle. An overflow connection
        // whose caller got a returned connection instead is closed after its next use.
        let mut idle = self.idle.lock();
        if *idle >= self.config.pool_size {
            return Some(Reason::Surplus);
        }
        *idle += 1;
        None
    }

    /// Resets a connection that is not clean. Returns the reason to close it, if there is one.
    fn reset(&self, managed: &mut ManagedConnection) -> Option<Reason> {
        let is_lost = managed.connection.as_mut().is_none_or(Connection::is_lost);
        if is_lost {
            self.lost(managed);
        } else if managed
            .connection
            .as_mut()
            .is_some_and(Connection::is_only_dirty)
        {
            return Some(Reason::Changed);
        }
        if is_lost || thread::panicking() || !Self::restore(managed) {
            self.statistics.invalid.increment();
            return Some(Reason::Lost);
        }
        // A new session costs less than a reset of all session state.
        let is_dirty = managed.connection.as_mut().is_none_or(Connection::is_dirty);
        is_dirty.then_some(Reason::Changed)
    }

    /// Resets a connection for the next checkout. Returns `false` after a failure or a timeout.
    fn restore(managed: &mut ManagedConnection) -> bool {
        let restored = managed.bounded(RESET_TIMEOUT, |connection| {
            connection.restore() && (!connection.must_drop_prepared() || connection.drop_prepared())
        });
        restored.unwrap_or_else(|unfinished| {
            log::warn!("a returned connection could not be reset: {unfinished}");
            false
        })
    }
}
