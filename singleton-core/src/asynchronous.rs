//! The long way round for tasks: nobody's thread waits while another task or thread initialises.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_channel::oneshot;
use futures_timer::Delay;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Either};

use crate::attempt::{Attempt, Outcome};
use crate::context::{PartOf, Running, contain, innermost, message};
use crate::descriptor::{Descriptor, Initialize, Instance, Work};
use crate::engine::{self, RealmId};
use crate::error::Error;
use crate::fault::{self, Step};
use crate::initialization::{
    self as blocking, Found, conclude, conduct_elsewhere, look, remember_cycle, report_undeclared,
};
use crate::{setup, watch};

/// Returns the service's instance in the caller's realm, as [`blocking::resolve`] does.
pub(crate) async fn resolve(service: &'static Descriptor) -> Outcome {
    setup::ensure(service)?;
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
            let (attempt, mine, _need) = match ask(realm, service, user.as_ref())? {
                Asked::Ready(instance) => return Ok(instance),
                Asked::Wait(attempt, mine, need) => (attempt, mine, need),
            };
            if mine {
                let _ = contain(|| attempt.span.open(service));
                if attempt.future.get().is_none() {
                    conduct_elsewhere(&attempt);
                }
            }
            // Whoever awaits an asynchronous attempt carries it on.
            let ended = match attempt.future.get().cloned() {
                Some(future) => Some(future.await),
                None => attempt.ended().await,
            };
            match ended {
                // Looked up again: it may have been shut down before this task woke.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(blocking::timed_out(&engine::lock(), &attempt)),
            }
        }
    })
}

enum Asked {
    Ready(&'static dyn Instance),
    Wait(Arc<Attempt>, bool, Option<Need>),
}

/// That one attempt cannot go on before another ends, until the value is dropped: a task may be cancelled.
struct Need {
    dependent: Arc<Attempt>,
    attempt: Arc<Attempt>,
}

impl Drop for Need {
    fn drop(&mut self) {
        engine::lock().needs_no_more(&self.dependent, &self.attempt);
    }
}

fn ask(
    realm: RealmId,
    service: &'static Descriptor,
    user: Option<&Arc<Attempt>>,
) -> Result<Asked, Error> {
    let mut engine = engine::lock();
    let found = look(&mut engine, realm, service, user.map(Arc::as_ref))?;
    let (attempt, mine) = match found {
        Found::Ready(instance) => return Ok(Asked::Ready(instance)),
        Found::Initializing(attempt) => (attempt, false),
        Found::Idle => {
            let attempt = engine.begin(realm, service)?;
            if service.asynchronous {
                let future: BoxFuture<'static, Outcome> = Box::pin(conduct(Arc::clone(&attempt)));
                // Nobody else sets it, and nobody has seen the attempt yet.
                let _ = attempt.future.set(future.shared());
            }
            (attempt, true)
        }
    };
    let Some(user) = user else {
        return Ok(Asked::Wait(attempt, mine, None));
    };
    if let Some(cycle) = engine.find_cycle(user, &attempt) {
        return Err(cycle);
    }
    engine.needs(user, &attempt);
    let need = Need {
        dependent: Arc::clone(user),
        attempt: Arc::clone(&attempt),
    };
    Ok(Asked::Wait(attempt, mine, Some(need)))
}

/// Runs an attempt to its end in whatever tasks await it.
async fn conduct(attempt: Arc<Attempt>) -> Outcome {
    let work = PartOf::new(&attempt, run(Arc::clone(&attempt)));
    let contained = AssertUnwindSafe(work).catch_unwind();
    let result = match within_limit(&attempt, contained).await {
        Some(Ok(outcome)) => outcome,
        Some(Err(payload)) => Err(fault::panicked(attempt.service, message(payload))),
        None => Err(blocking::timed_out(&engine::lock(), &attempt)),
    };
    conclude(&attempt, result)
}

/// A future has no thread that could not be stopped: when its time is over it is dropped.
async fn within_limit<F: Future>(attempt: &Attempt, future: F) -> Option<F::Output> {
    let Some(deadline) = attempt.deadline else {
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
    for requirement in blocking::missing_requirements(&attempt) {
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
                .send(outcome.unwrap_or_else(|message| Err(fault::panicked(own.service, message))));
        });
    if let Err(error) = spawned {
        let cause = anyhow::Error::new(error).context("no thread to initialize it on");
        return Err(fault::failed(attempt, Step::Initialize, cause));
    }
    let gone = || {
        Err(fault::panicked(
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
    watch::initializing(attempt);
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
        watch::retrying(attempt.service, &failure, pause);
        Delay::new(pause).await;
        if blocking::closing(attempt).is_none_or(|closing| closing.is_requested()) {
            break Err(failure);
        }
    };
    blocking::note_time(attempt, began);
    outcome
}

async fn make(
    attempt: &Attempt,
    initialize: fn() -> BoxFuture<'static, anyhow::Result<Box<dyn Instance>>>,
) -> Outcome {
    if let Some(provided) = blocking::provided(attempt) {
        let instance = provided?;
        check(attempt, instance).await?;
        return Ok(instance);
    }
    // Called within the future, so that a panic on the way to it is contained as well.
    let made = AssertUnwindSafe(async { initialize().await }).catch_unwind();
    let instance = fault::judge(attempt, Step::Initialize, made.await.map_err(message))?;
    match check(attempt, instance.as_ref()).await {
        Ok(()) => Ok(Box::leak(instance)),
        Err(error) => {
            blocking::discard(attempt.service, instance);
            Err(error)
        }
    }
}

async fn check(attempt: &Attempt, instance: &dyn Instance) -> Result<(), Error> {
    let watch = watch::Stopwatch::start();
    let checked = AssertUnwindSafe(async {
        match instance.ping() {
            Work::Done(result) => result,
            Work::Later(future) => future.await,
        }
    });
    let checked = fault::usable(
        attempt.service,
        checked.catch_unwind().await.map_err(message),
    );
    let healthy = matches!(checked, Ok(Ok(())));
    watch::pinged(attempt.service, watch.elapsed(), healthy);
    fault::judge(attempt, Step::Ping, checked)
}
