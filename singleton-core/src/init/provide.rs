//! Replacements of `initialize`: provided values, and services that are bound to trait objects.

use std::any::Any;

use crate::engine::{self, Attempt, Cast, Provided, Slot};
use crate::error::{Error, Reason};
use crate::service::{Chosen, Descriptor, Instance, Singleton, TraitService};

/// Provides a value for a trait object.
pub fn provide_chosen<D: TraitService + ?Sized>(value: Box<D>) -> Result<(), Error> {
    let chosen: &'static D = Box::leak(value);
    set_provided(
        D::descriptor(),
        Provided::Instance(Box::leak(Box::new(Chosen(chosen)))),
    )
}

/// Binds a service to a trait object. The service is initialized, checked and shut down like any dependency.
pub fn bind<D: TraitService + ?Sized, T: Singleton>(
    cast: fn(&'static T) -> &'static D,
) -> Result<(), Error> {
    let cast = move |any: &'static (dyn Any + Send + Sync)| -> Option<Box<dyn Instance>> {
        let chosen = Chosen(cast(any.downcast_ref::<T>()?));
        Some(Box::new(chosen))
    };
    let cast: &'static Cast = Box::leak(Box::new(cast));
    set_provided(D::descriptor(), Provided::Service(T::descriptor(), cast))
}

/// Provides an instance in place of `initialize`.
pub fn provide<T: Singleton>(instance: T) -> Result<(), Error> {
    // Leaked, because guarded methods return `&'static` borrows of it.
    set_provided(
        T::descriptor(),
        Provided::Instance(Box::leak((T::KIND.erase)(instance))),
    )
}

fn set_provided(service: &'static Descriptor, provided: Provided) -> Result<(), Error> {
    let failed = |reason| Err(Error::new(service.name(), reason));
    let mut engine = engine::lock();
    let Some(container) = engine.container_mut(engine::current_container()) else {
        return failed(Reason::ShutDown);
    };
    if container.closing.is_requested() {
        return failed(Reason::ShutDown);
    }
    let entry = container.get_mut(service);
    match entry.slot {
        // A value whose `ping` failed may be replaced.
        Slot::Idle if entry.provided.is_some() && entry.failure.is_none() => {
            failed(Reason::ProvidedTwice)
        }
        Slot::Idle => {
            entry.provided = Some(provided);
            Ok(())
        }
        Slot::Initializing(_) | Slot::Ready(_) | Slot::Stopping { .. } | Slot::ShutDown => {
            failed(Reason::ProvidedTooLate)
        }
    }
}

/// Returns the replacement of `initialize`, or `None` if there is none.
pub(crate) fn provided(attempt: &Attempt) -> Option<Result<&'static dyn Instance, Error>> {
    if !attempt.is_provided {
        return None;
    }
    let engine = engine::lock();
    let container = engine.container(attempt.container)?;
    let (bound, cast) = match container.get(attempt.service)?.provided? {
        Provided::Instance(instance) => return Some(Ok(instance)),
        Provided::Service(bound, cast) => (bound, cast),
    };
    let Some(Slot::Ready(instance)) = container.get(bound).map(|entry| &entry.slot) else {
        return Some(Err(Error::new(bound.name(), Reason::ShutDown)));
    };
    let any = instance.as_any();
    drop(engine);
    let alias = cast(any)?;
    Some(Ok(Box::leak(alias)))
}
