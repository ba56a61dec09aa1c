//! The long way round: finding an instance that cannot be had with one load, and making it if need be.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::provide::provided;
use super::steps::{
    Asked, Need, ask, closing, discard, end, note_time, remember_cycle, report_undeclared,
    timed_out,
};
use crate::engine::{self, Attempt, Outcome, RealmId, Running, innermost};
use crate::error::Error;
use crate::invoke::{
    Driver, Step, allow_degraded, ensure_setup, not_provided, shut_down_instance, step_failed,
    step_panicked, step_result,
};
use crate::panics::contain;
use crate::service::{Descriptor, Initialize, Instance, Work};
use crate::telemetry;

/// Returns the service's instance in the caller's realm, initialising it and all it requires on first use.
pub(crate) fn resolve(service: &'static Descriptor) -> Outcome {
    ensure_setup(service.name)?;
    let realm = engine::current_realm();
    let user = innermost();
    if let Some(user) = &user {
        report_undeclared(realm, user.service, service);
    }
    let outcome = obtain(realm, service, user.as_ref());
    if let Some(user) = &user {
        remember_cycle(user, &outcome);
    }
    outcome
}

pub(crate) fn obtain(
    realm: RealmId,
    service: &'static Descriptor,
    user: Option<&Arc<Attempt>>,
) -> Outcome {
    loop {
        let asked = ask(realm, service, user, |engine| {
            if service.asynchronous {
                return Err(needs_async(service));
            }
            engine.begin(realm, service)
        });
        let (attempt, mine) = match asked? {
            Asked::Ready(instance) => return Ok(instance),
            Asked::Wait(attempt, mine) => (attempt, mine),
        };
        let _need = user.map(|dependent| Need {
            dependent,
            attempt: &attempt,
        });
        // One that a task has begun may need it to go on.
        if !mine && attempt.future().is_some() {
            return Err(needs_async(service));
        }
        if mine {
            let _ = contain(|| attempt.span.open(service));
            if attempt.deadline.is_some() {
                conduct_elsewhere(&attempt);
            } else {
                conduct(&attempt);
            }
        }
        match attempt.wait() {
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(instance)) if mine && user.is_none() => return Ok(*instance),
            // Looked up again: it may have been shut down before this thread woke.
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
pub(crate) fn conduct(attempt: &Arc<Attempt>) {
    // Contained as a whole: a logger or the destructor of an error may panic too.
    let result = contain(|| run(attempt))
        .unwrap_or_else(|message| Err(step_panicked(attempt.service, message)));
    conclude(attempt, result);
}

/// Runs an attempt on a thread of its own, which nobody has to wait for.
pub(crate) fn conduct_elsewhere(attempt: &Arc<Attempt>) {
    let own = Arc::clone(attempt);
    let spawned = thread::Builder::new()
        .name(format!("init {}", attempt.service.name))
        .spawn(move || conduct(&own));
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        let failure = step_failed(attempt, Step::Initialize, cause);
        conclude(attempt, Err(failure));
    }
}

/// Ends an attempt; an instance that came too late is shut down.
pub(crate) fn conclude(attempt: &Arc<Attempt>, result: Outcome) {
    let (_, orphan) = end(attempt, result);
    if let Some(instance) = orphan {
        let _running = Running::enter(attempt);
        // A failure has been logged, and there is nobody left to tell.
        let _ = shut_down_instance(attempt.service, instance, &Driver::Here);
    }
}

fn run(attempt: &Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    // From the beginning, so that what a logger uses is used by this attempt: it must neither wait for
    // itself nor be taken for a need of the attempt outside, which has one already.
    let _running = Running::enter(attempt);
    let _span = attempt.span.enter();
    for requirement in &attempt.missing {
        obtain(attempt.realm, requirement, Some(attempt))
            .map_err(|error| error.for_dependent(service.name))?;
    }
    initialize(attempt)
}

/// Makes an instance and checks it, as often as the policy allows.
pub(crate) fn initialize(attempt: &Attempt) -> Outcome {
    let began = Instant::now();
    telemetry::initializing(attempt.service);
    let mut pauses = attempt.service.policy.pauses();
    let outcome = loop {
        let failure = match make(attempt) {
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
    note_time(attempt, began);
    outcome
}

fn make(attempt: &Attempt) -> Outcome {
    if let Some(provided) = provided(attempt) {
        let instance = provided?;
        check(attempt, instance)?;
        return Ok(instance);
    }
    let made = match attempt.service.initialize {
        Initialize::Blocking(initialize) => contain(initialize),
        Initialize::Async(_) | Initialize::Provided => Ok(Err(not_provided())),
    };
    let instance = step_result(attempt, Step::Initialize, made)?;
    match check(attempt, instance.as_ref()) {
        // The instance lives as long as the process: guarded methods hand out `&'static` parts of it.
        Ok(()) => Ok(Box::leak(instance)),
        Err(error) => {
            discard(attempt.service, instance);
            Err(error)
        }
    }
}

fn check(attempt: &Attempt, instance: &dyn Instance) -> Result<(), Error> {
    let watch = telemetry::Stopwatch::start();
    let checked = contain(|| match instance.ping() {
        Work::Done(result) => result,
        Work::Later(future) => pollster::block_on(future),
    });
    let checked = allow_degraded(attempt.service, checked);
    telemetry::pinged(
        attempt.service,
        watch.elapsed(),
        matches!(checked, Ok(Ok(()))),
    );
    step_result(attempt, Step::Ping, checked)
}
