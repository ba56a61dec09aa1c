//! The long way round: finding an instance that cannot be had with one load, and making it if need be.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::attempt::{Attempt, Outcome, Timing};
use crate::background;
use crate::context::{Running, contain, innermost};
use crate::demand::{Asked, Need, ask};
use crate::descriptor::{Descriptor, Initialize, Instance, Work};
use crate::driver::Driver;
use crate::engine::{self, Engine, RealmId};
use crate::error::Error;
use crate::escaped::Escaped;
use crate::fault::{self, Step};
use crate::realm::{Provided, Slot};
use crate::release::stop;
use crate::{setup, watch};

/// Returns the service's instance in the caller's realm, initialising it and all it requires on first use.
pub(crate) fn resolve(service: &'static Descriptor) -> Outcome {
    setup::ensure(service.name)?;
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

/// If the service fails of a circle, this is what its users are told.
pub(crate) fn remember_cycle(user: &Attempt, outcome: &Outcome) {
    if let Err(error) = outcome
        && error.is_cycle()
    {
        let _ = user.cycle.set(Box::new(error.clone()));
    }
}

pub(crate) fn report_undeclared(
    realm: RealmId,
    user: &'static Descriptor,
    used: &'static Descriptor,
) {
    // Where the other depends on the user, no declaration would help: it is a circle, and becomes an error.
    if user == used || user.depends_on(used) || used.depends_on(user) {
        return;
    }
    let mut engine = engine::lock();
    let news = engine
        .realm_mut(realm)
        .is_some_and(|realm| realm.is_news(user, used));
    drop(engine);
    if news {
        watch::undeclared(user, used);
    }
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

/// The error for an attempt that has not ended in time.
pub(crate) fn timed_out(engine: &Engine, attempt: &Attempt) -> Error {
    let culprit = engine.waits_for(attempt);
    Error::TimedOut {
        service: attempt.service.name,
        because_of: (culprit != attempt.service).then_some(culprit.name),
        limit: attempt.service.policy.init_timeout.unwrap_or_default(),
    }
}

/// Runs an attempt to its end on the calling thread.
pub(crate) fn conduct(attempt: &Arc<Attempt>) {
    // Contained as a whole: a logger or the destructor of an error may panic too.
    let result = contain(|| run(attempt))
        .unwrap_or_else(|message| Err(fault::panicked(attempt.service, message)));
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
        let failure = fault::failed(attempt, Step::Initialize, cause);
        conclude(attempt, Err(failure));
    }
}

/// Ends an attempt; an instance that came too late is shut down.
pub(crate) fn conclude(attempt: &Arc<Attempt>, result: Outcome) {
    let (_, orphan) = end(attempt, result);
    if let Some(instance) = orphan {
        let _running = Running::enter(attempt);
        // A failure has been logged, and there is nobody left to tell.
        let _ = stop(attempt.service, instance, &Driver::Here);
    }
}

/// Ends an attempt; gives its outcome, and an instance that came too late and is to be shut down.
pub(crate) fn end(
    attempt: &Arc<Attempt>,
    result: Outcome,
) -> (Outcome, Option<&'static dyn Instance>) {
    let instance = result.as_ref().ok().copied();
    let (outcome, earlier) = engine::lock().finish(attempt, result);
    attempt.wake();
    // What is foreign here may panic, an error's destructor, a logger, a thread's start; the attempt has ended all the same.
    let _ = contain(|| drop(earlier));
    match &outcome {
        Ok(instance) => {
            let _ = contain(|| watch::ready(attempt));
            let _ = contain(|| background::start(attempt.realm, attempt.service, *instance));
            (outcome, None)
        }
        Err(error) => {
            let _ = contain(|| watch::failed(attempt, error));
            // What `main` has provided waits for the next start, if there is one.
            let is_kept = attempt.is_provided && !is_closing(attempt);
            (outcome, instance.filter(|_| !is_kept))
        }
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
    watch::initializing(attempt);
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
        watch::retrying(attempt.service, &failure, pause);
        if closing(attempt).is_none_or(|closing| closing.wait(pause)) {
            break Err(failure);
        }
    };
    note_time(attempt, began);
    outcome
}

pub(crate) fn note_time(attempt: &Attempt, began: Instant) {
    let own = began.elapsed();
    // Set once for each attempt.
    let _ = attempt.timing.set(Timing { began, own });
}

pub(crate) fn closing(attempt: &Attempt) -> Option<Arc<crate::stop::Stop>> {
    let engine = engine::lock();
    let realm = engine.realm(attempt.realm)?;
    Some(Arc::clone(&realm.closing))
}

/// Tells whether nothing starts any more where the attempt is made.
pub(crate) fn is_closing(attempt: &Attempt) -> bool {
    closing(attempt).is_none_or(|closing| closing.is_requested())
}

/// What takes the place of `initialize`, if anything does.
pub(crate) fn provided(attempt: &Attempt) -> Option<Result<&'static dyn Instance, Error>> {
    if !attempt.is_provided {
        return None;
    }
    let engine = engine::lock();
    let realm = engine.realm(attempt.realm)?;
    let (bound, cast) = match realm.get(attempt.service)?.provided? {
        Provided::Instance(instance) => return Some(Ok(instance)),
        Provided::Service(bound, cast) => (bound, cast),
    };
    let Some(Slot::Ready(instance)) = realm.get(bound).map(|entry| &entry.slot) else {
        return Some(Err(Error::ShutDown {
            service: bound.name,
        }));
    };
    let any = instance.as_any();
    drop(engine);
    let alias = cast(any)?;
    Some(Ok(Box::leak(alias)))
}

fn make(attempt: &Attempt) -> Outcome {
    if let Some(provided) = provided(attempt) {
        let instance = provided?;
        check(attempt, instance)?;
        return Ok(instance);
    }
    let made = match attempt.service.initialize {
        Initialize::Blocking(initialize) => contain(initialize),
        Initialize::Async(_) | Initialize::Provided => Ok(Err(fault::not_provided())),
    };
    let instance = fault::judge(attempt, Step::Initialize, made)?;
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
    let watch = watch::Stopwatch::start();
    let checked = contain(|| match instance.ping() {
        Work::Done(result) => result,
        Work::Later(future) => pollster::block_on(future),
    });
    let checked = fault::usable(attempt.service, checked);
    watch::pinged(
        attempt.service,
        watch.elapsed(),
        matches!(checked, Ok(Ok(()))),
    );
    fault::judge(attempt, Step::Ping, checked)
}

/// Drops an instance that does not work; its destructor may panic as well.
pub(crate) fn discard(service: &Descriptor, instance: Box<dyn Instance>) {
    if let Err(message) = contain(|| drop(instance)) {
        log::warn!(
            "{} panicked while it was dropped: {}",
            service.name,
            Escaped(message)
        );
    }
}
