//! The health checks of a service, and the state of a background service's thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};

use crate::service::{Health, Stop};

/// After running for this long, a background service counts as recovered from its last failure.
pub(crate) const RECOVERY_TIME: Duration = Duration::from_secs(60);

/// The thread of one background service.
pub(crate) struct Supervision {
    pub(crate) stop: Stop,
    /// Requested when the thread has ended.
    pub(crate) thread_ended: Stop,
    history: Mutex<RunHistory>,
}

/// The restarts and failures of the thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunHistory {
    pub(crate) restarts: u64,
    /// The reason why `run` is not running, between two runs.
    pub(crate) not_running: Option<String>,
    /// The time and reason of the last failure.
    pub(crate) last_failure: Option<(Instant, String)>,
}

impl RunHistory {
    /// Returns the present failure, or one within [`RECOVERY_TIME`].
    pub(crate) fn problem(&self) -> Option<(Health, String)> {
        let recent = self
            .last_failure
            .as_ref()
            .filter(|(at, _)| at.elapsed() < RECOVERY_TIME)
            .map(|(_, why)| (Health::Degraded, format!("restarted after: {why}")));
        let not_running = self.not_running.as_ref();
        not_running
            .map(|why| (Health::Unhealthy, format!("not running: {why}")))
            .or(recent)
    }
}

impl Supervision {
    pub(crate) fn new() -> Self {
        Supervision {
            stop: Stop::new(),
            thread_ended: Stop::new(),
            history: Mutex::default(),
        }
    }

    /// Asks the thread to end, and waits for its end.
    pub(crate) fn join(&self) {
        self.stop.request();
        self.thread_ended.wait_for_request();
    }

    pub(crate) fn history(&self) -> RunHistory {
        self.lock_history().clone()
    }

    pub(crate) fn lock_history(&self) -> MutexGuard<'_, RunHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The health checks of one service, of which at most one runs at a time.
#[derive(Default)]
pub(crate) struct HealthCheck {
    state: Mutex<CheckState>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct CheckState {
    /// Whether a report is running the check.
    pub(crate) claimed: bool,
    /// The start of the running check.
    pub(crate) started_at: Option<Instant>,
    /// The future of an asynchronous check. A report that ends early leaves it to the next report.
    pub(crate) future: Option<Shared<BoxFuture<'static, CheckResult>>>,
    pub(crate) last: Option<CheckResult>,
}

#[derive(Clone)]
pub(crate) struct CheckResult {
    pub(crate) ended_at: Instant,
    pub(crate) latency: Duration,
    pub(crate) health: Health,
    pub(crate) error: Option<String>,
}

impl HealthCheck {
    pub(crate) fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a check that another report runs on a thread. Returns `None` after `timeout`.
    pub(crate) fn wait_for_result(
        &self,
        requested_at: Instant,
        timeout: Duration,
    ) -> Option<CheckResult> {
        let mut state = self.lock();
        while state.claimed {
            let elapsed = state
                .started_at
                .unwrap_or(requested_at)
                .max(requested_at)
                .elapsed();
            let remaining = timeout
                .checked_sub(elapsed)
                .filter(|remaining| !remaining.is_zero())?;
            let waited = self.changed.wait_timeout(state, remaining);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.last.clone()
    }
}

/// The exclusive right to run the check, until the value is dropped.
pub(crate) struct CheckClaim(pub(crate) Arc<HealthCheck>);

impl Drop for CheckClaim {
    fn drop(&mut self) {
        let future = {
            let mut state = self.0.lock();
            (state.claimed, state.started_at) = (false, None);
            state.future.take()
        };
        self.0.changed.notify_all();
        // Another thread or task polls the future, so this is not its last clone.
        drop(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stopped_thread_is_unhealthy_and_restarted_thread_is_degraded() {
        let mut history = RunHistory::default();
        assert_eq!(history.problem(), None);
        history.last_failure = Some((Instant::now(), "fell".to_owned()));
        let degraded = (Health::Degraded, "restarted after: fell".to_owned());
        assert_eq!(history.problem(), Some(degraded));
        history.not_running = Some("fell".to_owned());
        let unhealthy = (Health::Unhealthy, "not running: fell".to_owned());
        assert_eq!(history.problem(), Some(unhealthy));
    }
}
