//! What is known of how a service fares: of its checks, and of the thread of a background service.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};

use crate::service::{Health, Stop};

/// Who has run for so long is not taken to fail for the reason that it failed for before.
pub(crate) const RECOVERED: Duration = Duration::from_secs(60);

/// One background service's thread.
pub(crate) struct Supervision {
    pub(crate) stop: Stop,
    /// Requested when the thread has ended.
    pub(crate) ended: Stop,
    course: Mutex<Course>,
}

/// How the thread has fared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Course {
    pub(crate) restarts: u64,
    /// Why it is not running, between two runs.
    pub(crate) down: Option<String>,
    /// Why it ended last, and when.
    pub(crate) last_failure: Option<(Instant, String)>,
}

impl Course {
    /// What is wrong with it now, or was within the time that it takes to be taken for well again.
    pub(crate) fn trouble(&self) -> Option<(Health, String)> {
        let recent = self
            .last_failure
            .as_ref()
            .filter(|(at, _)| at.elapsed() < RECOVERED)
            .map(|(_, why)| (Health::Degraded, format!("restarted after: {why}")));
        let down = self.down.as_ref();
        down.map(|why| (Health::Unhealthy, format!("not running: {why}")))
            .or(recent)
    }
}

impl Supervision {
    pub(crate) fn new() -> Self {
        Supervision {
            stop: Stop::new(),
            ended: Stop::new(),
            course: Mutex::default(),
        }
    }

    /// Asks the thread to end and waits until it has.
    pub(crate) fn join(&self) {
        self.stop.request();
        self.ended.wait_for_request();
    }

    pub(crate) fn course(&self) -> Course {
        self.course_mut().clone()
    }

    pub(crate) fn course_mut(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The checks of one service: never two at once, whoever asks.
#[derive(Default)]
pub(crate) struct Check {
    state: Mutex<CheckState>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct CheckState {
    /// Whether a report has taken the check upon it.
    pub(crate) claimed: bool,
    /// Since when it runs.
    pub(crate) since: Option<Instant>,
    /// What carries an asynchronous check on, whoever polls it: a report that ends leaves it to the next.
    pub(crate) future: Option<Shared<BoxFuture<'static, Checked>>>,
    pub(crate) last: Option<Checked>,
}

#[derive(Clone)]
pub(crate) struct Checked {
    pub(crate) ended: Instant,
    pub(crate) latency: Duration,
    pub(crate) health: Health,
    pub(crate) error: Option<String>,
}

impl Check {
    pub(crate) fn lock(&self) -> MutexGuard<'_, CheckState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a check that another report has begun on a thread; none if it is overdue.
    pub(crate) fn await_other(&self, asked: Instant, limit: Duration) -> Option<Checked> {
        let mut state = self.lock();
        while state.claimed {
            let elapsed = state.since.unwrap_or(asked).max(asked).elapsed();
            let rest = limit.checked_sub(elapsed).filter(|rest| !rest.is_zero())?;
            let waited = self.changed.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.last.clone()
    }
}

/// The right to run the check, until the value is dropped.
pub(crate) struct Claim(pub(crate) Arc<Check>);

impl Drop for Claim {
    fn drop(&mut self) {
        let future = {
            let mut state = self.0.lock();
            (state.claimed, state.since) = (false, None);
            state.future.take()
        };
        self.0.changed.notify_all();
        // Somebody else polls it; this is not the last of it.
        drop(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_run_is_worse_than_what_runs_again() {
        let mut course = Course::default();
        assert_eq!(course.trouble(), None);
        course.last_failure = Some((Instant::now(), "fell".to_owned()));
        let again = (Health::Degraded, "restarted after: fell".to_owned());
        assert_eq!(course.trouble(), Some(again));
        course.down = Some("fell".to_owned());
        let down = (Health::Unhealthy, "not running: fell".to_owned());
        assert_eq!(course.trouble(), Some(down));
    }
}
