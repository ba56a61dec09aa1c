//! The long way round: finding an instance that cannot be had with one load, and making it if need be.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use crate::descriptor::{Descriptor, Instance};
use crate::engine::{self, Attempt, Outcome, RealmId, Slot};
use crate::error::Error;

thread_local! {
    /// The attempts that run on this thread, the innermost last.
    static RUNNING: RefCell<Vec<Arc<Attempt>>> = const { RefCell::new(Vec::new()) };
}

/// Returns the service's instance in the caller's realm, initialising it and all it requires on first use.
pub(crate) fn resolve(service: &'static Descriptor) -> Outcome {
    let realm = engine::current_realm();
    let user = innermost();
    if let Some(user) = &user {
        report_undeclared(realm, user.service, service);
    }
    let outcome = obtain(realm, service, user.as_deref());
    if let (Some(user), Err(error)) = (user, &outcome)
        && error.is_cycle()
    {
        // Whatever `initialize` makes of the error it gets, the circle is why it fails.
        let _ = user.cycle.set(error.clone());
    }
    outcome
}

/// Runs `work`, which is a user's, and gives the message of its panic if it panics.
pub(crate) fn contain<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        let message = message(&*payload);
        // The payload is the user's as well, and so is its destructor; a second panic is not worth more than the first.
        if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(second);
        }
        message
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "with a value that is no text".to_owned()
    }
}

fn innermost() -> Option<Arc<Attempt>> {
    RUNNING
        .try_with(|running| running.borrow().last().cloned())
        .ok()
        .flatten()
}

fn report_undeclared(realm: RealmId, user: &'static Descriptor, used: &'static Descriptor) {
    if user != used && !user.depends_on(used) && engine::lock().is_news(realm, user, used) {
        log::warn!(
            "{} uses {} while initializing but does not declare it; add #[requires({})] to {}",
            user.name,
            used.name,
            used.name,
            user.name,
        );
    }
}

fn obtain(realm: RealmId, service: &'static Descriptor, dependent: Option<&Attempt>) -> Outcome {
    let mut engine = engine::lock();
    let running = match engine.slot(realm, service) {
        Some(Slot::Ready(instance)) => return Ok(*instance),
        Some(Slot::ShutDown) => {
            return Err(Error::ShutDown {
                service: service.name,
            });
        }
        Some(Slot::Initializing(attempt)) => Some(Arc::clone(attempt)),
        None => None,
    };
    if let Some(attempt) = running {
        if let Some(dependent) = dependent {
            if let Some(cycle) = engine.find_cycle(dependent, &attempt) {
                return Err(cycle);
            }
            engine.needs(dependent, &attempt);
        }
        let outcome = attempt.wait(&mut engine);
        if let Some(dependent) = dependent {
            engine.needs_no_more(dependent);
        }
        return outcome;
    }
    let attempt = engine.begin(realm, service);
    if let Some(dependent) = dependent {
        engine.needs(dependent, &attempt);
    }
    drop(engine);

    let result = run(realm, &attempt);
    let orphan = result.as_ref().ok().copied();
    let mut engine = engine::lock();
    if let Some(dependent) = dependent {
        engine.needs_no_more(dependent);
    }
    let outcome = engine.finish(realm, &attempt, result);
    drop(engine);
    if let (Err(_), Some(instance)) = (&outcome, orphan) {
        stop(service, instance);
    }
    outcome
}

/// Runs an attempt to its end on the calling thread; whatever the user's code does, it comes back.
fn run(realm: RealmId, attempt: &Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    for requirement in service.requirements() {
        obtain(realm, requirement, Some(attempt))
            .map_err(|error| error.for_dependent(service.name))?;
    }
    log::debug!("initializing {}", service.name);
    RUNNING.with_borrow_mut(|running| running.push(Arc::clone(attempt)));
    let result = initialize(service);
    RUNNING.with_borrow_mut(|running| running.pop());
    match result {
        Ok(instance) => {
            log::debug!("{} is ready", service.name);
            // The instance lives as long as the process: guarded methods hand out `&'static` parts of it.
            Ok(Box::leak(instance))
        }
        Err(error) => Err(attempt.cycle.get().cloned().unwrap_or(error)),
    }
}

fn initialize(service: &'static Descriptor) -> Result<Box<dyn Instance>, Error> {
    let name = service.name;
    let panicked = |message: String| Error::Panicked {
        service: name,
        because_of: None,
        message: message.into(),
    };
    let instance = contain(service.initialize)
        .map_err(panicked)?
        .map_err(|cause| {
            failure(name, cause, |service, cause| Error::InitializationFailed {
                service,
                because_of: None,
                cause,
            })
        })?;
    let checked = contain(|| instance.as_ref().ping())
        .map_err(panicked)
        .and_then(|result| {
            result.map_err(|cause| {
                failure(name, cause, |service, cause| Error::PingFailed {
                    service,
                    because_of: None,
                    cause,
                })
            })
        });
    match checked {
        Ok(()) => Ok(instance),
        Err(error) => {
            // What does not work is not kept, and its destructor may panic as well.
            if let Err(message) = contain(|| drop(instance)) {
                log::warn!("{name} panicked while it was dropped: {message}");
            }
            Err(error)
        }
    }
}

/// A service that hands on the error of one that it used has failed because of that one.
fn failure(
    service: &'static str,
    cause: anyhow::Error,
    own: impl FnOnce(&'static str, Arc<anyhow::Error>) -> Error,
) -> Error {
    match cause.downcast::<Error>() {
        Ok(error) => error.for_dependent(service),
        Err(cause) => own(service, Arc::new(cause)),
    }
}

/// Shuts an instance down; a failure is logged, for there is nobody left to tell.
pub(crate) fn stop(service: &'static Descriptor, instance: &'static dyn Instance) {
    match contain(|| instance.shutdown()) {
        Ok(Ok(())) => log::debug!("{} has been shut down", service.name),
        Ok(Err(error)) => log::warn!("{} failed to shut down: {error:#}", service.name),
        Err(message) => log::warn!("{} panicked while shutting down: {message}", service.name),
    }
}
