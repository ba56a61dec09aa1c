//! What the slow path does in the same way for threads and for tasks: it looks a service up, or begins an attempt, and ends it.

use std::sync::Arc;
use std::time::Instant;

use crate::engine::{self, Attempt, Engine, Outcome, RealmId, Slot, Timing, is_stopping};
use crate::error::Error;
use crate::escaped::Escaped;
use crate::invoke::start_background;
use crate::panics::contain;
use crate::service::{Descriptor, Instance, Stop};
use crate::telemetry;

/// What there is of a service when someone asks for it.
pub(crate) enum Asked {
    Ready(&'static dyn Instance),
    /// An attempt, and whether it is the asker's to carry on.
    Wait(Arc<Attempt>, bool),
}

/// Asks for a service on behalf of `user`, which holds on to it if it is ready, and else needs the attempt.
pub(crate) fn ask(
    realm: RealmId,
    service: &'static Descriptor,
    user: Option<&Arc<Attempt>>,
    begin: impl FnOnce(&mut Engine) -> Result<Arc<Attempt>, Error>,
) -> Result<Asked, Error> {
    let mut engine = engine::lock();
    let (attempt, mine) = match look(&mut engine, realm, service, user)? {
        Found::Ready(instance) => return Ok(Asked::Ready(instance)),
        Found::Busy(attempt) => (attempt, false),
        Found::Idle => (begin(&mut engine)?, true),
    };
    if let Some(user) = user {
        if let Some(cycle) = engine.find_cycle(user, &attempt) {
            return Err(cycle);
        }
        engine.needs(user, &attempt);
    }
    Ok(Asked::Wait(attempt, mine))
}

enum Found {
    Ready(&'static dyn Instance),
    Busy(Arc<Attempt>),
    Idle,
}

fn look(
    engine: &mut Engine,
    realm: RealmId,
    service: &'static Descriptor,
    user: Option<&Arc<Attempt>>,
) -> Result<Found, Error> {
    let gone = Error::ShutDown {
        service: service.name,
    };
    let Some(known) = engine.realm(realm) else {
        return Err(gone);
    };
    match known.get(service).map(|entry| &entry.slot) {
        Some(Slot::Ready(instance)) => {
            let instance = *instance;
            if let Some(user) = user {
                engine.link(user, service);
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
        Some(Slot::Stopping { attempt, .. }) if !known.closing.is_requested() && !is_stopping() => {
            Ok(Found::Busy(Arc::clone(attempt)))
        }
        Some(Slot::Stopping { .. } | Slot::ShutDown) => Err(gone),
        Some(Slot::Idle) | None => Ok(Found::Idle),
    }
}

/// That one attempt cannot go on before another ends, until the value is dropped: a task may be cancelled.
pub(crate) struct Need<'a> {
    pub(crate) dependent: &'a Attempt,
    pub(crate) attempt: &'a Attempt,
}

impl Drop for Need<'_> {
    fn drop(&mut self) {
        engine::lock().needs_no_more(self.dependent, self.attempt);
    }
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
        telemetry::undeclared(user, used);
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
            let _ = contain(|| telemetry::ready(attempt.service, attempt.own_time()));
            let _ = contain(|| start_background(attempt.realm, attempt.service, *instance));
            (outcome, None)
        }
        Err(error) => {
            let _ = contain(|| telemetry::failed(attempt.service, attempt.own_time(), error));
            // What `main` has provided waits for the next start, if there is one.
            let is_kept = attempt.is_provided && !is_closing(attempt);
            (outcome, instance.filter(|_| !is_kept))
        }
    }
}

pub(crate) fn note_time(attempt: &Attempt, began: Instant) {
    let own = began.elapsed();
    // Set once for each attempt.
    let _ = attempt.timing.set(Timing { began, own });
}

pub(crate) fn closing(attempt: &Attempt) -> Option<Arc<Stop>> {
    let engine = engine::lock();
    let realm = engine.realm(attempt.realm)?;
    Some(Arc::clone(&realm.closing))
}

/// Tells whether nothing starts any more where the attempt is made.
pub(crate) fn is_closing(attempt: &Attempt) -> bool {
    closing(attempt).is_none_or(|closing| closing.is_requested())
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
