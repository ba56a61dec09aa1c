//! The checks of one service, of which there are never two at once.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::context::{Inside, contain, message};
use crate::degraded::Degraded;
use crate::descriptor::{Descriptor, Instance, Work};
use crate::driver::Driver;
use crate::engine::RealmId;
use crate::health_report::Health;
use crate::watch;

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

/// Checks on the calling thread; if the check is a future, that is left for the next report if this one ends first.
pub(crate) fn run(
    claim: Claim,
    realm: RealmId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    driver: &Driver,
) -> Checked {
    let began = Instant::now();
    claim.0.lock().since = Some(began);
    let answer = match contain(|| instance.ping()) {
        Ok(Work::Later(future)) => {
            let check = Arc::clone(&claim.0);
            let answered = async move {
                let answer = AssertUnwindSafe(future).catch_unwind().await;
                conclude(&claim, service, began, answer.map_err(message))
            };
            let future: BoxFuture<'static, Checked> = Box::pin(Inside::new(realm, answered));
            let future = future.shared();
            check.lock().future = Some(future.clone());
            return driver.block_on(future).unwrap_or_else(cancelled);
        }
        Ok(Work::Done(answer)) => Ok(answer),
        Err(message) => Err(message),
    };
    conclude(&claim, service, began, answer)
}

/// What the report says whose task is gone, if anyone reads it.
pub(crate) fn cancelled() -> Checked {
    let why = "the task that drove it was cancelled";
    unhealthy(Duration::ZERO, why.to_owned())
}

/// Keeps the result of a check for those who are content with it.
fn conclude(
    claim: &Claim,
    service: &'static Descriptor,
    began: Instant,
    answer: Result<anyhow::Result<()>, String>,
) -> Checked {
    let latency = began.elapsed();
    let checked = match answer {
        Ok(Ok(())) => Checked {
            ended: Instant::now(),
            latency,
            health: Health::Healthy,
            error: None,
        },
        Ok(Err(error)) => match error.downcast_ref::<Degraded>() {
            Some(degraded) => Checked {
                ended: Instant::now(),
                latency,
                health: Health::Degraded,
                error: Some(degraded.to_string()),
            },
            None => unhealthy(latency, format!("{error:#}")),
        },
        Err(message) => unhealthy(latency, format!("panicked: {message}")),
    };
    let _ = contain(|| watch::pinged(service, latency, checked.health == Health::Healthy));
    claim.0.lock().last = Some(checked.clone());
    checked
}

pub(crate) fn unhealthy(latency: Duration, error: String) -> Checked {
    Checked {
        ended: Instant::now(),
        latency,
        health: Health::Unhealthy,
        error: Some(error),
    }
}

pub(crate) fn overdue(latency: Duration, limit: Duration) -> Checked {
    unhealthy(latency, format!("no answer within {limit:?}"))
}
