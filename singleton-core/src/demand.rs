//! What there is of a service when someone asks for it, and who cannot go on without it.

use std::sync::Arc;

use crate::attempt::Attempt;
use crate::context;
use crate::descriptor::{Descriptor, Instance};
use crate::engine::{self, Engine, RealmId};
use crate::error::Error;
use crate::realm::Slot;

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
        Some(Slot::Stopping { attempt, .. })
            if !known.closing.is_requested() && !context::is_stopping() =>
        {
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
