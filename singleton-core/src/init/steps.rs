//! The steps of the slow path that threads and tasks share: looking a service up, beginning an attempt, completing it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{
    self, Attempt, ContainerId, Engine, FinishedAttempt, Origin, Outcome, Slot, StartRun, Timing,
    is_shutting_down,
};
use crate::error::{Error, Reason};
use crate::escaped::Escaped;
use crate::invoke::start_background;
use crate::panics::catch_panic;
use crate::service::{Descriptor, Instance, Stop};
use crate::telemetry;
use crate::threads;

/// The result of looking a service up.
pub(crate) enum Lookup {
    Ready(&'static dyn Instance),
    /// A running attempt, and whether the caller began it and must run it.
    Pending(Arc<Attempt>, bool),
}

/// Looks a service up on behalf of `dependent`, and begins an attempt if there is none.
///
/// A ready service becomes a dependency of `dependent`, unless only a dependency of `dependent` uses it. If it is not
/// ready, `dependent` waits for the attempt from now on.
///
/// # Errors
///
/// Returns an error if waiting for the attempt would be a cycle, if the service was shut down, if calls outside scopes
/// are refused, or the error of `begin`.
pub(crate) fn find_or_begin(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
    origin: &Origin,
    begin: impl FnOnce(&mut Engine) -> Result<Arc<Attempt>, Error>,
) -> Result<Lookup, Error> {
    let mut engine = engine::lock();
    let user = dependent.filter(|_| !origin.is_indirect);
    let (attempt, is_owner) = match state_of(&mut engine, container, service, user)? {
        Found::Ready(instance) => return Ok(Lookup::Ready(instance)),
        Found::Busy(attempt) => {
            engine.add_retry(&attempt, origin.retry);
            (attempt, false)
        }
        Found::Idle => (begin(&mut engine)?, true),
    };
    if let Some(dependent) = dependent {
        if let Some(cycle) = engine.find_cycle(dependent, &attempt) {
            return Err(cycle);
        }
        engine.wait_for(dependent, &attempt);
    }
    Ok(Lookup::Pending(attempt, is_owner))
}

enum Found {
    Ready(&'static dyn Instance),
    Busy(Arc<Attempt>),
    Idle,
}

fn state_of(
    engine: &mut Engine,
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
) -> Result<Found, Error> {
    let shut_down = || Err(Error::new(service.name(), Reason::ShutDown));
    engine.check_scope(container, service)?;
    let Some(container_state) = engine.container(container) else {
        return shut_down();
    };
    match container_state.get(service).map(|entry| &entry.slot) {
        Some(Slot::Ready(instance)) => {
            let instance = *instance;
            if let Some(dependent) = dependent {
                engine.add_dependency(dependent, service);
            }
            Ok(Found::Ready(instance))
        }
        Some(Slot::Initializing(attempt)) => {
            // If the attempt was given up, this caller waits for it again.
            attempt.adopt();
            Ok(Found::Busy(Arc::clone(attempt)))
        }
        // After a failed start its services shut down and can start again, so a caller may wait for that. A service
        // that is itself shutting down must not.
        Some(Slot::Stopping { attempt, .. })
            if !container_state.closing.is_requested() && !is_shutting_down() =>
        {
            Ok(Found::Busy(Arc::clone(attempt)))
        }
        Some(Slot::Stopping { .. } | Slot::ShutDown) => shut_down(),
        Some(Slot::Idle) | None => Ok(Found::Idle),
    }
}

/// Removes a wait edge from the engine when it is dropped, also if a task is cancelled.
pub(crate) struct WaitEdge {
    dependent: Arc<Attempt>,
    attempt: Arc<Attempt>,
}

impl WaitEdge {
    /// Keeps the edge that [`find_or_begin`] has added.
    pub(crate) fn new(dependent: &Arc<Attempt>, attempt: &Arc<Attempt>) -> Self {
        WaitEdge {
            dependent: Arc::clone(dependent),
            attempt: Arc::clone(attempt),
        }
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        engine::lock().stop_waiting(&self.dependent, &self.attempt);
    }
}

/// Records a cycle as the reason why `dependent` fails.
pub(crate) fn record_cycle(dependent: &Attempt, outcome: &Outcome) {
    if let Err(error) = outcome
        && error.is_cycle()
    {
        let _ = dependent.cycle.set(Box::new(error.clone()));
    }
}

pub(crate) fn report_undeclared_use(
    container: ContainerId,
    dependent: &'static Descriptor,
    dependency: &'static Descriptor,
) {
    // If the dependency depends on the dependent, a declaration would not help: the use is a cycle and returns an
    // error.
    if dependent == dependency
        || dependent.depends_on(dependency)
        || dependency.depends_on(dependent)
    {
        return;
    }
    let mut engine = engine::lock();
    let is_first = engine
        .container_mut(container)
        .is_some_and(|container| container.is_first_undeclared_use(dependent, dependency));
    drop(engine);
    if is_first {
        telemetry::undeclared(dependent, dependency);
    }
}

/// Returns the error of an attempt whose deadline has passed.
pub(crate) fn timed_out(engine: &Engine, attempt: &Attempt) -> Error {
    let blocking = engine.end_of_wait_chain(attempt);
    let limit = attempt.init_timeout.unwrap_or_default();
    let error = Error::new(blocking.name(), Reason::TimedOut(limit));
    if blocking == attempt.service {
        error
    } else {
        error.for_dependent(attempt.service.name())
    }
}

/// Ends an attempt. Returns its outcome, and what the caller must clean up.
pub(crate) fn complete(attempt: &Arc<Attempt>, result: Outcome) -> (Outcome, Leftovers) {
    let instance = result.as_ref().ok().copied();
    let FinishedAttempt {
        outcome,
        previous_error,
        failed_start,
    } = engine::lock().finish_attempt(attempt, result);
    attempt.wake_tasks();
    // An error's destructor, a logger or the start of a thread may panic. The attempt has ended in each case.
    let _ = catch_panic(|| drop(previous_error));
    match &outcome {
        Ok(instance) => {
            let _ = catch_panic(|| telemetry::ready(attempt.service, attempt.own_time()));
            let _ = catch_panic(|| start_background(&attempt.context, attempt.service, *instance));
            let leftovers = Leftovers {
                late_instance: None,
                failed_start,
            };
            (outcome, leftovers)
        }
        Err(error) => {
            let _ = catch_panic(|| telemetry::failed(attempt.service, attempt.own_time(), error));
            // An instance that `main` provided is kept for the next start, if there can be one.
            let is_kept = attempt.is_provided && !is_closing(attempt);
            let leftovers = Leftovers {
                late_instance: instance.filter(|_| !is_kept),
                failed_start,
            };
            (outcome, leftovers)
        }
    }
}

/// The leftovers of an attempt, in the order in which they must be cleaned up.
pub(crate) struct Leftovers {
    /// An instance that no caller gets.
    pub(crate) late_instance: Option<&'static dyn Instance>,
    /// The failed start whose last attempt this was.
    pub(crate) failed_start: Option<Arc<StartRun>>,
}

/// Shuts down the services that a failed start has left: its last attempt has ended. On a thread, because the caller may be a task.
pub(crate) fn take_back(start: Arc<StartRun>) {
    let spawned = threads::spawn("take back", move || (start.take_back)(&start));
    if let Err(error) = spawned {
        let _ = catch_panic(|| {
            log::warn!(
                "services of a failed start stay ready: no thread to shut them down on: {error}"
            );
        });
    }
}

/// Returns the pause before the next call of `initialize`, or `None` if `failure` is final.
///
/// If `initialize` called another service, that one is not retried by itself, except with retries of its own.
pub(crate) fn pause_before_retry(
    attempt: &Attempt,
    failures: u32,
    failure: &Error,
) -> Option<Duration> {
    if !failure.is_retryable() || failure.was_retried() {
        return None;
    }
    attempt.retry()?.pause_after(failures)
}

pub(crate) fn record_time(attempt: &Attempt, started_at: Instant) {
    let own_time = started_at.elapsed();
    // Each attempt sets it once.
    let _ = attempt.timing.set(Timing {
        started_at,
        own_time,
    });
}

pub(crate) fn closing(attempt: &Attempt) -> Option<Arc<Stop>> {
    let engine = engine::lock();
    let container = engine.container(attempt.container)?;
    Some(Arc::clone(&container.closing))
}

/// Returns whether the attempt's container starts no more services.
pub(crate) fn is_closing(attempt: &Attempt) -> bool {
    closing(attempt).is_none_or(|closing| closing.is_requested())
}

/// Drops an instance whose check failed. Its destructor may panic too.
pub(crate) fn drop_instance(service: &Descriptor, instance: Box<dyn Instance>) {
    if let Err(message) = catch_panic(|| drop(instance)) {
        log::warn!(
            "{} panicked while it was dropped: {}",
            service.name(),
            Escaped(message)
        );
    }
}
