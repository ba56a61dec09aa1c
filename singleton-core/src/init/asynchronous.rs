//! The long way round for tasks: nobody's thread waits while another task or thread initialises.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
use futures_timer::Delay;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Either};

use super::blocking::{self, conduct_elsewhere};
use super::provide::provided;
use super::steps::{
    Asked, Need, ask, closing, discard, end, note_time, remember_cycle, report_undeclared,
    timed_out,
};
use crate::engine::{self, Attempt, Engine, Inside, Outcome, PartOf, RealmId, Running, innermost};
use crate::error::Error;
use crate::invoke::{
    Step, allow_degraded, ensure_setup, shut_down_instance_async, step_failed, step_panicked,
    step_result,
};
use crate::panics::{contain, message};
use crate::service::{DEFAULT_SHUTDOWN_TIMEOUT, Descriptor, Initialize, Instance, Work};
use crate::telemetry;

/// Returns the service's instance in the caller's realm, as [`blocking::resolve`] does.
pub(crate) async fn resolve(service: &'static Descriptor) -> Outcome {
    ensure_setup(service.name)?;
    let realm = engine::current_realm();
    let user = innermost();
    if let Some(user) = &user {
        report_undeclared(realm, user.service, service);
    }
    let outcome = obtain(realm, service, user.clone()).await;
    if let Some(user) = &user {
        remember_cycle(user, &outcome);
    }
    outcome
}

/// The same for a given realm and user. Boxed, since it goes on to the requirements of the requirements.
pub(crate) fn obtain(
    realm: RealmId,
    service: &'static Descriptor,
    user: Option<Arc<Attempt>>,
) -> BoxFuture<'static, Outcome> {
    Box::pin(async move {
        loop {
            let asked = ask(realm, service, user.as_ref(), |engine| {
                begin(engine, realm, service)
            });
            let (attempt, mine) = match asked? {
                Asked::Ready(instance) => return Ok(instance),
                Asked::Wait(attempt, mine) => (attempt, mine),
            };
            let _need = user.as_ref().map(|dependent| Need {
                dependent,
                attempt: &attempt,
            });
            let future = attempt.future();
            if mine {
                let _ = contain(|| attempt.span.open(service));
                if future.is_none() {
                    conduct_elsewhere(&attempt);
                }
            }
            // Whoever awaits an asynchronous attempt carries it on.
            let ended = match future {
                Some(future) => Some(future.await),
                None => attempt.ended().await,
            };
            match ended {
                // Looked up again: it may have been shut down before this task woke.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(timed_out(&engine::lock(), &attempt)),
            }
        }
    })
}

fn begin(
    engine: &mut Engine,
    realm: RealmId,
    service: &'static Descriptor,
) -> Result<Arc<Attempt>, Error> {
    let attempt = engine.begin(realm, service)?;
    // Of a trait object only the realm knows what it is.
    let known = engine.realm(realm);
    if known.is_some_and(|known| known.needs_task(&attempt)) {
        let future: BoxFuture<'static, Outcome> = Box::pin(conduct(Arc::clone(&attempt)));
        attempt.carry_by(future.shared());
    }
    Ok(attempt)
}

/// Runs an attempt to its end in whatever tasks await it.
async fn conduct(attempt: Arc<Attempt>) -> Outcome {
    let work = PartOf::new(&attempt, run(Arc::clone(&attempt)));
    let mut work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let result = match within(attempt.deadline, work.as_mut()).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(payload)) => Err(step_panicked(attempt.service, message(payload))),
        None => Err(timed_out(&engine::lock(), &attempt)),
    };
    // A future has no thread that could not be stopped: when its time is over it is dropped.
    let _ = contain(|| {
        let _running = Running::enter(&attempt);
        drop(work);
    });
    let (outcome, orphan) = end(&attempt, result);
    if let Some(instance) = orphan {
        let limit = attempt.service.policy.shutdown_timeout;
        let limit = limit.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT);
        let stopped = Inside::new(
            attempt.realm,
            shut_down_instance_async(attempt.service, instance),
        );
        // A failure has been logged, and there is nobody left to tell.
        let _ = within(Instant::now().checked_add(limit), stopped).await;
    }
    outcome
}

/// The value of a future, unless the deadline comes first.
async fn within<F: Future>(deadline: Option<Instant>, future: F) -> Option<F::Output> {
    let Some(deadline) = deadline else {
        return Some(future.await);
    };
    let timer = Delay::new(deadline.saturating_duration_since(Instant::now()));
    match future::select(std::pin::pin!(future), timer).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(((), _)) => None,
    }
}

async fn run(attempt: Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    for requirement in &attempt.missing {
        obtain(attempt.realm, requirement, Some(Arc::clone(&attempt)))
            .await
            .map_err(|error| error.for_dependent(service.name))?;
    }
    match service.initialize {
        Initialize::Async(initialize) => initialize_async(&attempt, initialize).await,
        Initialize::Blocking(_) | Initialize::Provided => initialize_elsewhere(&attempt).await,
    }
}

/// A blocking `initialize` behind an asynchronous requirement: it gets a thread.
async fn initialize_elsewhere(attempt: &Arc<Attempt>) -> Outcome {
    let own = Arc::clone(attempt);
    let (result, received) = oneshot::channel();
    let spawned = std::thread::Builder::new()
        .name(format!("init {}", attempt.service.name))
        .spawn(move || {
            let outcome = contain(|| {
                let _running = Running::enter(&own);
                blocking::initialize(&own)
            });
            // Nobody may be waiting any more.
            let _ = result
                .send(outcome.unwrap_or_else(|message| Err(step_panicked(own.service, message))));
        });
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        return Err(step_failed(attempt, Step::Initialize, cause));
    }
    let gone = || {
        Err(step_panicked(
            attempt.service,
            "its thread has gone".to_owned(),
        ))
    };
    received.await.unwrap_or_else(|_| gone())
}

async fn initialize_async(
    attempt: &Attempt,
    initialize: fn() -> BoxFuture<'static, anyhow::Result<Box<dyn Instance>>>,
) -> Outcome {
    let began = Instant::now();
    telemetry::initializing(attempt.service);
    let mut pauses = attempt.service.policy.pauses();
    let outcome = loop {
        let failure = match make(attempt, initialize).await {
            Ok(instance) => break Ok(instance),
            Err(failure) => failure,
        };
        let pause = pauses.next().filter(|_| failure.is_own_failure());
        let Some(pause) = pause else {
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
    note_time(attempt, began);
    outcome
}

async fn make(
    attempt: &Attempt,
    initialize: fn() -> BoxFuture<'static, anyhow::Result<Box<dyn Instance>>>,
) -> Outcome {
    if let Some(provided) = provided(attempt) {
        let instance = provided?;
        check(attempt, instance).await?;
        return Ok(instance);
    }
    // Called within the future, so that a panic on the way to it is contained as well.
    let made = AssertUnwindSafe(async { initialize().await }).catch_unwind();
    let instance = step_result(attempt, Step::Initialize, made.await.map_err(message))?;
    match check(attempt, instance.as_ref()).await {
        Ok(()) => Ok(Box::leak(instance)),
        Err(error) => {
            discard(attempt.service, instance);
            Err(error)
        }
    }
}

async fn check(attempt: &Attempt, instance: &dyn Instance) -> Result<(), Error> {
    let watch = telemetry::Stopwatch::start();
    let checked = AssertUnwindSafe(async {
        match instance.ping() {
            Work::Done(result) => result,
            Work::Later(future) => future.await,
        }
    });
    let checked = allow_degraded(
        attempt.service,
        checked.catch_unwind().await.map_err(message),
    );
    let healthy = matches!(checked, Ok(Ok(())));
    telemetry::pinged(attempt.service, watch.elapsed(), healthy);
    step_result(attempt, Step::Ping, checked)
}
