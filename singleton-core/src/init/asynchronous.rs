//! The slow path for tasks, which blocks no thread while another task or thread initializes.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
use futures_timer::Delay;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Either};

use super::blocking::{self, run_attempt_on_thread};
use super::provide::provided;
use super::steps::{
    Lookup, WaitEdge, closing, complete, drop_instance, find_or_begin, pause_before_retry,
    record_cycle, record_time, report_undeclared_use, take_back, timed_out,
};
use crate::engine::{
    self, Attempt, AttemptGuard, ContainerId, Engine, InAttempt, InContext, Origin, Outcome,
    current_attempt, own_instance,
};
use crate::error::Error;
use crate::invoke::{
    Driver, Step, allow_degraded, ensure_setup, shut_down_instance_async, shut_down_late,
    step_failed, step_panicked, step_result,
};
use crate::panics::{catch_panic, panic_message};
use crate::service::{Descriptor, Initialize, Instance, Work};
use crate::telemetry;
use crate::threads;

/// Returns the service's instance in the caller's container, as [`blocking::resolve`] does.
pub(crate) async fn resolve(service: &'static Descriptor) -> Outcome {
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
    let outcome = get_or_init(container, service, dependent.clone(), origin).await;
    if let Some(dependent) = &dependent {
        record_cycle(dependent, &outcome);
    }
    outcome
}

/// Returns the service's instance in the given container, on behalf of `dependent`. Boxed, because the attempt's future
/// calls it for dependencies.
pub(crate) fn get_or_init(
    container: ContainerId,
    service: &'static Descriptor,
    dependent: Option<Arc<Attempt>>,
    origin: Origin,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        loop {
            let lookup = find_or_begin(container, service, dependent.as_ref(), &origin, |engine| {
                begin(engine, container, service, origin.clone())
            });
            let (attempt, is_owner) = match lookup? {
                Lookup::Ready(instance) => return Ok(instance),
                Lookup::Pending(attempt, is_owner) => (attempt, is_owner),
            };
            let _wait = dependent
                .as_ref()
                .map(|dependent| WaitEdge::new(dependent, &attempt));
            let future = attempt.future();
            if is_owner {
                let _ = catch_panic(|| attempt.span.open(service));
                if future.is_none() {
                    run_attempt_on_thread(&attempt);
                }
            }
            // Each task that awaits an asynchronous attempt polls it.
            let outcome = match future {
                Some(future) => Some(future.await),
                None => attempt.completion().await,
            };
            match outcome {
                // Look it up again: it may have been shut down before this task woke.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(timed_out(&engine::lock(), &attempt)),
            }
        }
    })
}

fn begin(
    engine: &mut Engine,
    container: ContainerId,
    service: &'static Descriptor,
    origin: Origin,
) -> Result<Arc<Attempt>, Error> {
    let attempt = engine.begin_attempt(container, service, origin)?;
    // Only the container knows the service that is bound to a trait object.
    let container = engine.container(container);
    if container.is_some_and(|container| container.needs_task(&attempt)) {
        let future: BoxFuture<'static, Outcome> = Box::pin(drive_attempt(Arc::clone(&attempt)));
        attempt.set_future(future.shared());
    }
    Ok(attempt)
}

/// Runs an attempt to its end in the tasks that await it.
async fn drive_attempt(attempt: Arc<Attempt>) -> Outcome {
    let work = InAttempt::new(&attempt, run_steps(Arc::clone(&attempt)));
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let result = match with_deadline(attempt.deadline, work.as_mut()).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(payload)) => Err(step_panicked(attempt.service, panic_message(payload))),
        None => Err(timed_out(&engine::lock(), &attempt)),
    };
    // Unlike a thread, a future can be stopped: it is dropped after its deadline.
    let _ = catch_panic(|| {
        let _attempt = AttemptGuard::enter(&attempt);
        drop(work);
    });
    let (outcome, leftovers) = complete(&attempt, result);
    if let Some(instance) = leftovers.late_instance {
        let stopped = InContext::new(
            attempt.context.clone(),
            shut_down_instance_async(attempt.container, attempt.service, instance),
        );
        let deadline = Instant::now().checked_add(attempt.shutdown_timeout);
        // A failure was logged, and no caller waits for it.
        let _ = with_deadline(deadline, stopped).await;
    }
    if let Some(start) = leftovers.failed_start {
        take_back(start);
    }
    outcome
}

/// Returns the value of a future, or `None` if the deadline passes first.
async fn with_deadline<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let Some(deadline) = deadline else {
        return Some(future.await);
    };
    let timer = Delay::new(deadline.saturating_duration_since(Instant::now()));
    match future::select(std::pin::pin!(future), timer).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(((), _)) => None,
    }
}

async fn run_steps(attempt: Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    let missing = engine::lock()
        .container(attempt.container)
        .map(|container| container.missing_in_order(&attempt));
    // Each dependency after its own ones, so that the futures do not nest as deep as the graph.
    for requirement in missing.into_iter().flatten() {
        let origin = Origin {
            retry: attempt.retry(),
            is_indirect: !attempt.missing.contains(&requirement),
            ..attempt.origin_for(requirement)
        };
        let dependent = Some(Arc::clone(&attempt));
        get_or_init(attempt.container, requirement, dependent, origin)
            .await
            .map_err(|error| error.for_dependent(service.name()))?;
    }
    match service.initialize {
        Initialize::Async(initialize) => initialize_async(&attempt, initialize).await,
        Initialize::Blocking(_) | Initialize::Provided => initialize_on_thread(&attempt).await,
    }
}

/// Runs a blocking `initialize` on a thread, because an asynchronous dependency requires a task to wait for it.
async fn initialize_on_thread(attempt: &Arc<Attempt>) -> Outcome {
    let thread_attempt = Arc::clone(attempt);
    let (result, received) = oneshot::channel();
    let spawned = threads::spawn(format!("init {}", attempt.service.name()), move || {
        let outcome = catch_panic(|| {
            let _attempt = AttemptGuard::enter(&thread_attempt);
            blocking::initialize(&thread_attempt)
        });
        let outcome =
            outcome.unwrap_or_else(|message| Err(step_panicked(thread_attempt.service, message)));
        // Without a receiver, the attempt has exceeded its deadline.
        if let Err(Ok(instance)) = result.send(outcome) {
            shut_down_late(&thread_attempt, instance, &Driver::Here);
        }
    });
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        return Err(step_failed(attempt, Step::Initialize, cause));
    }
    let thread_ended = || {
        Err(step_panicked(
            attempt.service,
            "its thread has gone".to_owned(),
        ))
    };
    received.await.unwrap_or_else(|_| thread_ended())
}

async fn initialize_async(
    attempt: &Attempt,
    initialize: fn() -> BoxFuture<'static, anyhow::Result<Box<dyn Instance>>>,
) -> Outcome {
    let started_at = Instant::now();
    telemetry::initializing(attempt.service);
    let mut failures = 0;
    let outcome = loop {
        let failure = match make_instance(attempt, initialize).await {
            Ok(instance) => break Ok(instance),
            Err(failure) => failure,
        };
        failures += 1;
        let Some(pause) = pause_before_retry(attempt, failures, &failure) else {
            break Err(failure);
        };
        telemetry::retrying(attempt.service, &failure, pause);
        let Some(closing) = closing(attempt) else {
            break Err(failure);
        };
        if let Either::Left(_) = future::select(closing.requested(), Delay::new(pause)).await {
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

async fn make_instance(
    attempt: &Attempt,
    initialize: fn() -> BoxFuture<'static, anyhow::Result<Box<dyn Instance>>>,
) -> Outcome {
    if let Some(provided) = provided(attempt) {
        let instance = provided?;
        check_instance(attempt, instance).await?;
        return Ok(instance);
    }
    // Called inside the future, so that a panic before the first await is caught too.
    let initialized = AssertUnwindSafe(async { initialize().await }).catch_unwind();
    let instance = step_result(
        attempt,
        Step::Initialize,
        initialized.await.map_err(panic_message),
    )?;
    match check_instance(attempt, instance.as_ref()).await {
        Ok(()) => Ok(Box::leak(instance)),
        Err(error) => {
            drop_instance(attempt.service, instance);
            Err(error)
        }
    }
}

async fn check_instance(attempt: &Attempt, instance: &dyn Instance) -> Result<(), Error> {
    let stopwatch = telemetry::Stopwatch::start();
    let checked = AssertUnwindSafe(async {
        match instance.ping() {
            Work::Done(result) => result,
            Work::Later(future) => future.await,
        }
    });
    let checked = allow_degraded(
        attempt.service,
        checked.catch_unwind().await.map_err(panic_message),
    );
    let healthy = matches!(checked, Ok(Ok(())));
    telemetry::pinged(attempt.service, stopwatch.elapsed(), healthy);
    step_result(attempt, Step::Ping, checked)
}
