//! The slow path for threads: finds an instance, waits for it, or creates it.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::provide::provided;
use super::steps::{
    Lookup, WaitEdge, closing, complete, drop_instance, find_or_begin, record_cycle, record_time,
    report_undeclared_use, timed_out,
};
use crate::engine::{self, Attempt, AttemptGuard, ContainerId, Outcome, current_attempt};
use crate::error::Error;
use crate::invoke::{
    Driver, Step, allow_degraded, ensure_setup, not_provided, shut_down_instance, step_failed,
    step_panicked, step_result,
};
use crate::panics::catch_panic;
use crate::service::{Descriptor, Initialize, Instance, Work};
use crate::telemetry;

/// Returns the service's instance in the caller's container. On first use, initializes it and its dependencies.
pub(crate) fn resolve(service: &'static Descriptor) -> Outcome {
    ensure_setup(service.name)?;
    let container = engine::current_container();
    let dependent = current_attempt();
    if let Some(dependent) = &dependent {
        report_undeclared_use(container, dependent.service, service);
    }
    let outcome = get_or_init(container, service, dependent.as_ref());
    if let Some(dependent) = &dependent {
        record_cycle(dependent, &outcome);
    }
    outcome
}

pub(crate) fn get_or_init(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<&Arc<Attempt>>,
) -> Outcome {
    loop {
        let lookup = find_or_begin(container, service, dependent, |engine| {
            if service.asynchronous {
                return Err(needs_async(service));
            }
            engine.begin_attempt(container, service)
        });
        let (attempt, is_owner) = match lookup? {
            Lookup::Ready(instance) => return Ok(instance),
            Lookup::Pending(attempt, is_owner) => (attempt, is_owner),
        };
        let _wait = dependent.map(|dependent| WaitEdge {
            dependent,
            attempt: &attempt,
        });
        // A task has begun this attempt and must poll it; a thread that waits could block that task.
        if !is_owner && attempt.future().is_some() {
            return Err(needs_async(service));
        }
        if is_owner {
            let _ = catch_panic(|| attempt.span.open(service));
            if attempt.deadline.is_some() {
                run_attempt_on_thread(&attempt);
            } else {
                run_attempt(&attempt);
            }
        }
        match attempt.wait() {
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(instance)) if is_owner && dependent.is_none() => return Ok(*instance),
            // Look it up again: it may have been shut down before this thread woke.
            Some(Ok(_)) => {}
            None => return Err(timed_out(&engine::lock(), &attempt)),
        }
    }
}

fn needs_async(service: &Descriptor) -> Error {
    Error::NeedsAsync {
        service: service.name,
        because_of: None,
    }
}

/// Runs an attempt to its end on the calling thread.
pub(crate) fn run_attempt(attempt: &Arc<Attempt>) {
    // The whole run is inside `catch_panic`: a logger or the destructor of an error may panic too.
    let result = catch_panic(|| run_steps(attempt))
        .unwrap_or_else(|message| Err(step_panicked(attempt.service, message)));
    finish(attempt, result);
}

/// Runs an attempt on its own thread, so that callers can stop waiting at the deadline.
pub(crate) fn run_attempt_on_thread(attempt: &Arc<Attempt>) {
    let thread_attempt = Arc::clone(attempt);
    let spawned = thread::Builder::new()
        .name(format!("init {}", attempt.service.name))
        .spawn(move || run_attempt(&thread_attempt));
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        let failure = step_failed(attempt, Step::Initialize, cause);
        finish(attempt, Err(failure));
    }
}

/// Ends an attempt. Shuts a late instance down.
pub(crate) fn finish(attempt: &Arc<Attempt>, result: Outcome) {
    let (_, late_instance) = complete(attempt, result);
    if let Some(instance) = late_instance {
        let _attempt = AttemptGuard::enter(attempt);
        // A failure was logged, and no caller waits for it.
        let _ = shut_down_instance(attempt.service, instance, &Driver::Here);
    }
}

fn run_steps(attempt: &Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    // First of all, so that a service that a logger uses counts as used by this attempt. Otherwise the logger could
    // wait for itself, or its use would be attributed to the outer attempt, which already waits for this one.
    let _attempt = AttemptGuard::enter(attempt);
    let _span = attempt.span.enter();
    for requirement in &attempt.missing {
        get_or_init(attempt.container, requirement, Some(attempt))
            .map_err(|error| error.for_dependent(service.name))?;
    }
    initialize(attempt)
}

/// Creates and checks an instance, with the retries of the policy.
pub(crate) fn initialize(attempt: &Attempt) -> Outcome {
    let started_at = Instant::now();
    telemetry::initializing(attempt.service);
    let mut pauses = attempt.service.policy.pauses();
    let outcome = loop {
        let failure = match make_instance(attempt) {
            Ok(instance) => break Ok(instance),
            Err(failure) => failure,
        };
        let pause = pauses.next().filter(|_| failure.is_own_failure());
        let Some(pause) = pause else {
            break Err(failure);
        };
        telemetry::retrying(attempt.service, &failure, pause);
        if closing(attempt).is_none_or(|closing| closing.wait(pause)) {
            break Err(failure);
        }
    };
    record_time(attempt, started_at);
    outcome
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
