//! The steps of the slow path that threads and tasks share: looks a service up or begins an attempt, and completes it.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::{self, Attempt, ContainerId, Engine, Outcome, Slot, Timing, is_shutting_down};
use crate::error::Error;
use crate::escaped::Escaped;
use crate::invoke::start_background;
use crate::panics::catch_panic;
use crate::service::{Descriptor, Instance, Stop};
use crate::telemetry;

/// What there is of a service when someone asks for it.
pub(crate) enum Lookup {
    Ready(&'static dyn Instance),
    /// An attempt, and whether it is the asker's to carry on.
    Pending(Arc<Attempt>, bool),
}

/// Asks for a service on behalf of `dependent`, which holds on to it if it is ready, and else needs the attempt.
pub(crate) fn find_or_begin(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
    begin: impl FnOnce(&mut Engine) -> Result<Arc<Attempt>, Error>,
) -> Result<Lookup, Error> {
    let mut engine = engine::lock();
    let (attempt, is_owner) = match state_of(&mut engine, container, service, dependent)? {
        Found::Ready(instance) => return Ok(Lookup::Ready(instance)),
        Found::Busy(attempt) => (attempt, false),
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
    let shut_down = Error::ShutDown {
        service: service.name,
    };
    let Some(container_state) = engine.container(container) else {
        return Err(shut_down);
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
            // Whoever gave it up, from now on somebody waits for it.
            attempt.abandon(false);
            Ok(Found::Busy(Arc::clone(attempt)))
        }
        // A start that failed takes its services back, and then they can start anew; but what stops must not
        // wait for what stops.
        Some(Slot::Stopping { attempt, .. })
            if !container_state.closing.is_requested() && !is_shutting_down() =>
        {
            Ok(Found::Busy(Arc::clone(attempt)))
        }
        Some(Slot::Stopping { .. } | Slot::ShutDown) => Err(shut_down),
        Some(Slot::Idle) | None => Ok(Found::Idle),
    }
}

/// That one attempt cannot go on before another ends, until the value is dropped: a task may be cancelled.
pub(crate) struct WaitEdge<'a> {
    pub(crate) dependent: &'a Attempt,
    pub(crate) attempt: &'a Attempt,
}

impl Drop for WaitEdge<'_> {
    fn drop(&mut self) {
        engine::lock().stop_waiting(self.dependent, self.attempt);
    }
}

/// If the service fails of a cycle, this is what its users are told.
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
    // Where the other depends on the user, no declaration would help: it is a cycle, and becomes an error.
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

/// The error for an attempt that has not ended in time.
pub(crate) fn timed_out(engine: &Engine, attempt: &Attempt) -> Error {
    let blocking = engine.end_of_wait_chain(attempt);
    Error::TimedOut {
        service: attempt.service.name,
        because_of: (blocking != attempt.service).then_some(blocking.name),
        limit: attempt.service.policy.init_timeout.unwrap_or_default(),
    }
}

/// Ends an attempt; gives its outcome, and an instance that came too late and is to be shut down.
pub(crate) fn complete(
    attempt: &Arc<Attempt>,
    result: Outcome,
) -> (Outcome, Option<&'static dyn Instance>) {
    let instance = result.as_ref().ok().copied();
    let (outcome, previous_error) = engine::lock().finish_attempt(attempt, result);
    attempt.wake_tasks();
    // What is foreign here may panic, an error's destructor, a logger, a thread's start; the attempt has ended all the same.
    let _ = catch_panic(|| drop(previous_error));
    match &outcome {
        Ok(instance) => {
            let _ = catch_panic(|| telemetry::ready(attempt.service, attempt.own_time()));
            let _ = catch_panic(|| start_background(attempt.container, attempt.service, *instance));
            (outcome, None)
        }
        Err(error) => {
            let _ = catch_panic(|| telemetry::failed(attempt.service, attempt.own_time(), error));
            // What `main` has provided waits for the next start, if there is one.
            let is_kept = attempt.is_provided && !is_closing(attempt);
            (outcome, instance.filter(|_| !is_kept))
        }
    }
}

pub(crate) fn record_time(attempt: &Attempt, started_at: Instant) {
    let own_time = started_at.elapsed();
    // Set once for each attempt.
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

/// Tells whether nothing starts any more where the attempt is made.
pub(crate) fn is_closing(attempt: &Attempt) -> bool {
    closing(attempt).is_none_or(|closing| closing.is_requested())
}

/// Drops an instance that does not work; its destructor may panic as well.
pub(crate) fn drop_instance(service: &Descriptor, instance: Box<dyn Instance>) {
    if let Err(message) = catch_panic(|| drop(instance)) {
        log::warn!(
            "{} panicked while it was dropped: {}",
            service.name,
            Escaped(message)
        );
    }
}
