//! The slow path for threads: finds an instance, waits for it, or creates it.

use std::sync::Arc;
use std::time::Instant;

use super::provide::provided;
use super::steps::{
    Lookup, WaitEdge, closing, complete, drop_instance, find_or_begin, pause_before_retry,
    record_cycle, record_time, report_undeclared_use, take_back, timed_out,
};
use crate::engine::{
    self, Attempt, AttemptGuard, ContainerId, Origin, Outcome, current_attempt, own_instance,
};
use crate::error::{Error, Reason};
use crate::invoke::{
    Driver, Step, allow_degraded, ensure_setup, not_provided, shut_down_late, step_failed,
    step_panicked, step_result,
};
use crate::panics::catch_panic;
use crate::service::{Descriptor, Initialize, Instance, Work};
use crate::telemetry;
use crate::threads;

/// Returns the service's instance in the caller's container. On first use, initializes it and its dependencies.
pub(crate) fn resolve(service: &'static Descriptor) -> Outcome {
    ensure_setup(Some(service))?;
    let container = engine::current_container();
    if let Some(instance) = own_instance(container, service) {
        return Ok(instance);
    }
    let dependent = current_attempt();
    let mut origin = Origin::default();
    if let Some(dependent) = &dependent {
        report_undeclared_use(container, dependent.service, service);
        origin = dependent.origin_for(service);
    }
    let outcome = get_or_init(container, service, dependent.as_ref(), &origin);
    if let Some(dependent) = &dependent {
        record_cycle(dependent, &outcome);
    }
    outcome
}

/// Returns the service's instance in the given container, on behalf of `dependent`.
pub(crate) fn get_or_init(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
    origin: &Origin,
) -> Outcome {
    loop {
        let (attempt, is_owner) = match look_up(container, service, dependent, origin)? {
            Lookup::Ready(instance) => return Ok(instance),
            Lookup::Pending(attempt, is_owner) => (attempt, is_owner),
        };
        let _wait = dependent.map(|dependent| WaitEdge::new(dependent, &attempt));
        if is_owner {
            let _ = catch_panic(|| attempt.span.open(service));
            if attempt.deadline.is_some() {
                run_attempt_on_thread(&attempt);
            } else {
                run_attempt(&attempt);
            }
        }
        match wait(&attempt, is_owner)? {
            instance if is_owner && dependent.is_none() => return Ok(instance),
            // Look it up again: it may have been shut down before this thread woke.
            _ => {}
        }
    }
}

fn look_up(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
    origin: &Origin,
) -> Result<Lookup, Error> {
    find_or_begin(container, service, dependent, origin, |engine| {
        if service.asynchronous {
            return Err(Error::new(service.name(), Reason::NeedsAsync));
        }
        engine.begin_attempt(container, service, origin.clone())
    })
}

fn wait(attempt: &Attempt, is_owner: bool) -> Outcome {
    // A task has begun this attempt and must poll it; a thread that waits could block that task.
    if !is_owner && attempt.future().is_some() {
        return Err(Error::new(attempt.service.name(), Reason::NeedsAsync));
    }
    match attempt.wait() {
        Some(outcome) => outcome.clone(),
        None => Err(timed_out(&engine::lock(), attempt)),
    }
}

/// An attempt that runs on the calling thread, or waits for one above it in the list.
struct Frame {
    // Dropped in this order.
    guard: AttemptGuard,
    _wait: Option<WaitEdge>,
    attempt: Arc<Attempt>,
    /// The number of missing dependencies that are ready.
    ready: usize,
}

impl Frame {
    fn new(attempt: Arc<Attempt>, wait: Option<WaitEdge>) -> Self {
        Frame {
            // A service that a logger uses counts as used by this attempt. Otherwise the logger could wait for itself,
            // or its use would be attributed to the outer attempt, which already waits for this one.
            guard: AttemptGuard::enter(&attempt),
            _wait: wait,
            attempt,
            ready: 0,
        }
    }

    /// Takes the next step of the attempt. Returns the attempt of a dependency that must run before the next one.
    fn advance(&mut self) -> Advance {
        let attempt = &self.attempt;
        let Some(requirement) = attempt.missing.get(self.ready) else {
            // A logger or the destructor of an error may panic too.
            let result = catch_panic(|| {
                let _span = attempt.span.enter();
                initialize(attempt)
            });
            return Advance::Ended(
                result.unwrap_or_else(|message| Err(step_panicked(attempt.service, message))),
            );
        };
        let failed =
            |error: Error| Advance::Ended(Err(error.for_dependent(attempt.service.name())));
        let origin = attempt.origin_for(requirement);
        let lookup = look_up(attempt.container, requirement, Some(attempt), &origin);
        let (dependency, is_owner) = match lookup {
            Ok(Lookup::Ready(_)) => {
                self.ready += 1;
                return Advance::Continue;
            }
            Ok(Lookup::Pending(dependency, is_owner)) => (dependency, is_owner),
            Err(error) => return failed(error),
        };
        let edge = WaitEdge::new(attempt, &dependency);
        if is_owner {
            let _ = catch_panic(|| {
                let _span = attempt.span.enter();
                dependency.span.open(requirement);
            });
            if dependency.deadline.is_none() {
                return Advance::Descend(Frame::new(dependency, Some(edge)));
            }
            run_attempt_on_thread(&dependency);
        }
        match wait(&dependency, is_owner) {
            Ok(_) => Advance::Continue,
            Err(error) => failed(error),
        }
    }
}

enum Advance {
    Continue,
    Descend(Frame),
    Ended(Outcome),
}

/// Runs an attempt to its end on the calling thread, each missing dependency before its dependent.
///
/// The list of unfinished attempts is on the heap, so the depth of the graph is not limited by the thread's stack.
pub(crate) fn run_attempt(attempt: &Arc<Attempt>) {
    let mut frames = vec![Frame::new(Arc::clone(attempt), None)];
    while let Some(frame) = frames.last_mut() {
        let mut result = match frame.advance() {
            Advance::Continue => continue,
            Advance::Descend(dependency) => {
                frames.push(dependency);
                continue;
            }
            Advance::Ended(result) => result,
        };
        // A failure ends the dependents too.
        while let Some(frame) = frames.pop() {
            drop(frame.guard);
            finish(&frame.attempt, result);
            match (frame.attempt.outcome.get(), frames.last()) {
                (Some(Err(error)), Some(dependent)) => {
                    let dependent = dependent.attempt.service;
                    result = Err(error.clone().for_dependent(dependent.name()));
                }
                _ => break,
            }
        }
    }
}

/// Runs an attempt on its own thread, so that callers can stop waiting at the deadline.
pub(crate) fn run_attempt_on_thread(attempt: &Arc<Attempt>) {
    let thread_attempt = Arc::clone(attempt);
    let spawned = threads::spawn(format!("init {}", attempt.service.name()), move || {
        run_attempt(&thread_attempt);
    });
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        let failure = step_failed(attempt, Step::Initialize, cause);
        finish(attempt, Err(failure));
    }
}

/// Ends an attempt. Shuts a late instance down.
pub(crate) fn finish(attempt: &Arc<Attempt>, result: Outcome) {
    let (_, leftovers) = complete(attempt, result);
    if let Some(instance) = leftovers.late_instance {
        shut_down_late(attempt, instance, &Driver::Here);
    }
    if let Some(start) = leftovers.failed_start {
        take_back(start);
    }
}

/// Creates and checks an instance, with the retries of the policy.
pub(crate) fn initialize(attempt: &Attempt) -> Outcome {
    let started_at = Instant::now();
    telemetry::initializing(attempt.service);
    let mut failures = 0;
    let outcome = loop {
        let failure = match make_instance(attempt) {
            Ok(instance) => break Ok(instance),
            Err(failure) => failure,
        };
        failures += 1;
        let Some(pause) = pause_before_retry(attempt, failures, &failure) else {
            break Err(failure);
        };
        telemetry::retrying(attempt.service, &failure, pause);
        if closing(attempt).is_none_or(|closing| closing.wait(pause)) {
            break Err(failure);
        }
    };
    record_time(attempt, started_at);
    outcome.map_err(|error| {
        if attempt.has_own_retry {
            error.after_retries()
        } else {
            error
        }
    })
}

fn make_instance(attempt: &Attempt) -> Outcome {
    if let Some(provided) = provided(attempt) {
        let instance = provided?;
        check_instance(attempt, instance)?;
        return Ok(instance);
    }
    let initialized = match attempt.service.initialize {
        Initialize::Blocking(initialize) => catch_panic(initialize),
        Initialize::Async(_) | Initialize::Provided => Ok(Err(not_provided())),
    };
    let instance = step_result(attempt, Step::Initialize, initialized)?;
    match check_instance(attempt, instance.as_ref()) {
        // The instance lives until the process ends: guarded methods return `&'static` borrows of it.
        Ok(()) => Ok(Box::leak(instance)),
        Err(error) => {
            drop_instance(attempt.service, instance);
            Err(error)
        }
    }
}

fn check_instance(attempt: &Attempt, instance: &dyn Instance) -> Result<(), Error> {
    let stopwatch = telemetry::Stopwatch::start();
    let checked = catch_panic(|| match instance.ping() {
        Work::Done(result) => result,
        Work::Later(future) => pollster::block_on(future),
    });
    let checked = allow_degraded(attempt.service, checked);
    telemetry::pinged(
        attempt.service,
        stopwatch.elapsed(),
        matches!(checked, Ok(Ok(()))),
    );
    step_result(attempt, Step::Ping, checked)
}
