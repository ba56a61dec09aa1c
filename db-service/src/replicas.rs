//! Read replicas: which of them are usable, and which one serves the next read.

mod probe;
mod write_position;

pub(crate) use probe::position;
pub use write_position::{WritePosition, WritePositionError};

use std::cmp::Reverse;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use std::{io, thread};

use parking_lot::{Condvar, Mutex};

use crate::config::DatabaseConfig;
use crate::connection::Connection;
use crate::error::DbError;
use crate::pool::{ConnectionPool, PooledConnection};
use crate::statistics::Counter;
use crate::statistics::ReplicaStatistics;
use probe::{ProbeResult, ReplicaProbe};
use singleton_core::__private::Escaped;

/// The time between two probes of a replica.
const INTERVAL: Duration = Duration::from_millis(500);
/// The time for which a failed replica is not used.
const RETRY: Duration = Duration::from_secs(2);
/// The maximum age of a probe result.
const PROBE_VALIDITY: Duration = Duration::from_secs(3);
/// The maximum time that a start waits for the first probes.
const FIRST_PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The maximum time that a read waits for a connection to a replica.
const CHECKOUT_TIMEOUT: Duration = Duration::from_secs(1);

/// All configured replicas.
#[derive(Default)]
pub(crate) struct Replicas {
    all: Vec<Arc<Replica>>,
    /// The position of the next replica in round-robin order.
    next: AtomicUsize,
    pub(crate) reads_on_primary: Counter,
}

impl Replicas {
    /// Starts the probes of all replicas, and waits for the first results.
    pub(crate) fn open(config: &DatabaseConfig) -> io::Result<Self> {
        let mut replicas = Replicas::default();
        for url in &config.replicas.urls {
            let mut config = config.clone();
            config.url = url.clone();
            config.pool_timeout = config.pool_timeout.min(CHECKOUT_TIMEOUT);
            let replica = Arc::new(Replica::new(config));
            // Added before its thread starts, so that an error ends the threads that already run.
            replicas.all.push(Arc::clone(&replica));
            thread::Builder::new()
                .name("db-service-replica".to_owned())
                .spawn(move || replica.probe_until_closed())?;
        }
        let deadline = Instant::now() + FIRST_PROBE_TIMEOUT;
        for replica in &replicas.all {
            replica.wait_for_first_probe(deadline);
        }
        Ok(replicas)
    }

    /// Returns the usable replicas in round-robin order. Those that have replayed up to `after` come first, then the
    /// others by their position, the most recent first.
    pub(crate) fn usable(&self, after: WritePosition) -> Vec<&Replica> {
        let count = self.all.len().max(1);
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % count;
        let (before, first) = self.all.split_at(turn.min(self.all.len()));
        let in_turn = first.iter().chain(before).map(|replica| &**replica);
        let mut usable: Vec<_> = in_turn
            .filter_map(|replica| Some((replica.replayed_if_usable()?.min(after), replica)))
            .collect();
        usable.sort_by_key(|(replayed, _)| Reverse(*replayed));
        usable.into_iter().map(|(_, replica)| replica).collect()
    }

    /// Ends the probes and the waits of callers.
    pub(crate) fn refuse(&self) {
        self.end();
        for pool in self.all.iter().filter_map(|replica| replica.pool.get()) {
            pool.refuse();
        }
    }

    /// Closes all pools, and waits for connections in use as each pool does.
    pub(crate) fn close(&self) {
        self.refuse();
        for pool in self.all.iter().filter_map(|replica| replica.pool.get()) {
            pool.close();
        }
    }

    pub(crate) fn statistics(&self) -> Vec<ReplicaStatistics> {
        self.all
            .iter()
            .map(|replica| replica.statistics())
            .collect()
    }

    fn end(&self) {
        for replica in &self.all {
            replica.state.lock().is_closed = true;
            replica.changed.notify_all();
        }
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.end();
    }
}

pub(crate) struct Replica {
    /// The service's settings, with the replica's URL.
    config: DatabaseConfig,
    /// The pool, which is opened when the replica is first reached.
    pool: OnceLock<ConnectionPool>,
    state: Mutex<State>,
    changed: Condvar,
    reads: Counter,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    is_probed: bool,
    /// The last probe's result, or `None` if it failed.
    last_probe: Option<ProbeResult>,
    /// The time until which the replica is not used, after a failed read.
    suspended_until: Option<Instant>,
    last_failure: Option<String>,
}

impl Replica {
    fn new(config: DatabaseConfig) -> Self {
        Replica {
            config,
            pool: OnceLock::new(),
            state: Mutex::default(),
            changed: Condvar::new(),
            reads: Counter::default(),
        }
    }

    /// Checks out a connection to a replica that has replayed up to the requested position. Returns `None` if the
    /// replica is unavailable or does not get there in time.
    #[track_caller]
    pub(crate) fn connection(
        &self,
        after: WritePosition,
        deadline: Instant,
    ) -> Option<PooledConnection> {
        let connection = match self.pool.get()?.get() {
            Ok(connection) => connection,
            Err(error) => {
                // A busy pool says nothing about the replica.
                if !is_busy(&error) {
                    self.suspend(&error.to_string());
                }
                return None;
            }
        };
        let has_replayed = self
            .state
            .lock()
            .last_probe
            .map(|probe| probe.replayed >= after);
        if has_replayed == Some(true) {
            return Some(connection);
        }
        self.wait_for(connection, after, deadline)
    }

    /// Polls the replica's position, because the server cannot notify a client of it.
    fn wait_for(
        &self,
        mut connection: PooledConnection,
        after: WritePosition,
        deadline: Instant,
    ) -> Option<PooledConnection> {
        let mut pause = Duration::from_millis(1);
        loop {
            let (asked, replayed) = connection
                .bounded(CHECKOUT_TIMEOUT, probe::query_replayed)
                .map_err(|unfinished| self.suspend(&unfinished.to_string()))
                .ok()?;
            connection = asked;
            match replayed {
                Ok(replayed) if replayed >= after => return Some(connection),
                Ok(_) if Instant::now() + pause < deadline => {
                    if self.pool.get()?.waits_in_vain(pause) {
                        return None;
                    }
                }
                _ => {
                    self.suspend_if_lost(&mut connection);
                    return None;
                }
            }
            pause = (2 * pause).min(Duration::from_millis(20));
        }
    }

    /// Returns whether a failed read can succeed on another server.
    pub(crate) fn failed(&self, connection: &mut Connection) -> bool {
        // A standby cancels reads that conflict with the replay.
        self.suspend_if_lost(connection) || connection.has_conflicted()
    }

    pub(crate) fn succeeded(&self) {
        self.reads.increment();
    }

    fn suspend_if_lost(&self, connection: &mut Connection) -> bool {
        let is_lost = connection.is_lost();
        if is_lost {
            self.suspend("a connection was lost");
        }
        is_lost
    }

    fn suspend(&self, why: &str) {
        let mut state = self.state.lock();
        if state.suspended_until.is_none() && !state.is_closed {
            log::warn!(
                "{} is set aside for {RETRY:?}: {}",
                self.config.url,
                Escaped(why)
            );
        }
        state.suspended_until = Some(Instant::now() + RETRY);
        state.last_failure = Some(why.to_owned());
    }

    /// Returns the replica's replayed position, or `None` if it is not usable.
    fn replayed_if_usable(&self) -> Option<WritePosition> {
        let state = self.state.lock();
        let last_probe = state.last_probe?;
        let limit = self.config.replicas.max_lag;
        let lags = limit.is_some_and(|limit| last_probe.lag.is_none_or(|lag| lag > limit));
        // A server that is not a standby may be the primary, which is the fallback anyway, or a stale former primary.
        let is_fit = !state.is_closed
            && last_probe.is_standby
            && !lags
            && last_probe.at.elapsed() < PROBE_VALIDITY
            && state
                .suspended_until
                .is_none_or(|until| Instant::now() >= until);
        is_fit.then_some(last_probe.replayed)
    }

    /// Probes the replica periodically until the service shuts down.
    fn probe_until_closed(&self) {
        let mut probe = ReplicaProbe::default();
        loop {
            let outcome = self.run(&mut probe);
            let mut state = self.state.lock();
            let pause = if outcome.is_ok() { INTERVAL } else { RETRY };
            match outcome {
                Ok(result) => {
                    if state.last_probe.is_none() {
                        log::info!("{} can be read from", self.config.url);
                        state.last_failure = None;
                    }
                    state.last_probe = Some(result);
                    if state
                        .suspended_until
                        .is_some_and(|until| Instant::now() >= until)
                    {
                        state.suspended_until = None;
                        state.last_failure = None;
                    }
                }
                Err(error) => {
                    let reason = error.to_string();
                    let is_news = state.last_failure.as_ref() != Some(&reason);
                    if state.last_probe.is_some() || !state.is_probed || is_news {
                        log::warn!(
                            "{} cannot be read from: {}",
                            self.config.url,
                            Escaped(&reason)
                        );
                    }
                    state.last_probe = None;
                    state.last_failure = Some(reason);
                }
            }
            state.is_probed = true;
            self.changed.notify_all();
            let end = Instant::now() + pause;
            while !state.is_closed && !self.changed.wait_until(&mut state, end).timed_out() {}
            if state.is_closed {
                return;
            }
        }
    }

    fn run(&self, probe: &mut ReplicaProbe) -> Result<ProbeResult, DbError> {
        let result = probe.run(&self.config)?;
        if self.pool.get().is_none() {
            let pool = ConnectionPool::open(&self.config)?;
            let pool = self.pool.get_or_init(|| pool);
            // The service may have been shut down meanwhile.
            if self.state.lock().is_closed {
                pool.close();
            }
        }
        Ok(result)
    }

    fn wait_for_first_probe(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while !state.is_probed && !self.changed.wait_until(&mut state, deadline).timed_out() {}
    }

    fn statistics(&self) -> ReplicaStatistics {
        let pool = self.pool.get();
        let is_fit = self.replayed_if_usable().is_some();
        let state = self.state.lock();
        ReplicaStatistics {
            url: self.config.url.to_string(),
            is_fit,
            lag: state.last_probe.and_then(|probe| probe.lag),
            reads: self.reads.get(),
            last_failure: state.last_failure.clone(),
            pool: pool.map(ConnectionPool::status).unwrap_or_default(),
            statements: pool
                .map(|pool| pool.statistics.statements.snapshot())
                .unwrap_or_default(),
        }
    }
}

/// Returns whether callers that hold connections are the reason for a timeout.
fn is_busy(error: &DbError) -> bool {
    matches!(error, DbError::PoolTimeout { in_use, connecting, maximum, .. }
        if *in_use > 0 && *in_use + *connecting as usize >= *maximum as usize)
}
