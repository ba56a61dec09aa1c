//! The long way round: finding an instance that cannot be had with one load, and making it if need be.

use std::any::Any;
use std::cell::RefCell;
use std::error::Error as StdError;
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
        // If the service fails of it, this is what its users are told.
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

/// Marks an attempt as the innermost of this thread until the value is dropped.
struct Running;

impl Running {
    /// Destructors of other thread-locals may start services when ours is gone; then nothing is marked.
    fn enter(attempt: &Arc<Attempt>) -> Option<Self> {
        RUNNING
            .try_with(|running| running.borrow_mut().push(Arc::clone(attempt)))
            .ok()
            .map(|()| Running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let ended = RUNNING.try_with(|running| running.borrow_mut().pop());
        drop(ended);
    }
}

fn innermost() -> Option<Arc<Attempt>> {
    RUNNING
        .try_with(|running| running.borrow().last().cloned())
        .ok()
        .flatten()
}

fn report_undeclared(realm: RealmId, user: &'static Descriptor, used: &'static Descriptor) {
    // Where the other depends on the user, no declaration would help: it is a circle, and becomes an error.
    if user == used || user.depends_on(used) || used.depends_on(user) {
        return;
    }
    if engine::lock().is_news(realm, user, used) {
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

    // Contained as a whole: a logger or the destructor of an error may panic too.
    let result =
        contain(|| run(realm, &attempt)).unwrap_or_else(|message| Err(panicked(service, message)));
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

/// Runs an attempt to its end on the calling thread.
fn run(realm: RealmId, attempt: &Arc<Attempt>) -> Outcome {
    let service = attempt.service;
    // From the beginning, so that what a logger uses is used by this attempt: it must neither wait for
    // itself nor be taken for a need of the attempt outside, which has one already.
    let _running = Running::enter(attempt);
    for requirement in service.requirements() {
        obtain(realm, requirement, Some(attempt))
            .map_err(|error| error.for_dependent(service.name))?;
    }
    log::debug!("initializing {}", service.name);
    let instance = initialize(attempt)?;
    log::debug!("{} is ready", service.name);
    // The instance lives as long as the process: guarded methods hand out `&'static` parts of it.
    Ok(Box::leak(instance))
}

fn initialize(attempt: &Attempt) -> Result<Box<dyn Instance>, Error> {
    let service = attempt.service;
    let name = service.name;
    let failed_in_panic = |message: String| match attempt.cycle.get() {
        // `unwrap` on the error of a circle.
        Some(cycle) if message.contains(&format!("{cycle:?}")) => cycle.clone(),
        _ => panicked(service, message),
    };
    let instance = contain(service.initialize)
        .map_err(failed_in_panic)?
        .map_err(|cause| {
            failure(attempt, cause, |cause| Error::InitializationFailed {
                service: name,
                because_of: None,
                cause,
            })
        })?;
    let checked = contain(|| instance.as_ref().ping())
        .map_err(failed_in_panic)
        .and_then(|result| {
            result.map_err(|cause| {
                failure(attempt, cause, |cause| Error::PingFailed {
                    service: name,
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

fn panicked(service: &Descriptor, message: String) -> Error {
    Error::Panicked {
        service: service.name,
        because_of: None,
        message: message.into(),
    }
}

/// Makes the error of a service whose `initialize` or `ping` returned one.
fn failure(
    attempt: &Attempt,
    cause: anyhow::Error,
    own: impl FnOnce(Arc<anyhow::Error>) -> Error,
) -> Error {
    // However it was wrapped, a circle is more telling than the service that noticed it.
    if let Some(cycle) = attempt.cycle.get()
        && format!("{cause:#}").contains(&cycle.to_string())
    {
        return cycle.clone();
    }
    // A service that hands on the error of one that it used, as it is, has failed because of that one.
    let outermost: &(dyn StdError + 'static) = cause.as_ref();
    match outermost.downcast_ref::<Error>() {
        Some(error) => error.clone().for_dependent(attempt.service.name),
        None => own(Arc::new(cause)),
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
