//! Services that are required as trait objects, so that the implementation is chosen elsewhere.

use std::any::Any;
use std::fmt;

use crate::by_service::Number;
use crate::descriptor::{Descriptor, Initialize, Instance, Work};
use crate::engine;
use crate::error::Error;
use crate::policy::Policy;
use crate::ready::Ready;
use crate::realm::{Cast, Provided, Slot};
use crate::service::{Requirement, Singleton};

/// The chosen implementation.
pub struct Chosen<D: ?Sized + 'static>(pub(crate) &'static D);

impl<D: ?Sized> fmt::Debug for Chosen<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::any::type_name::<D>())
    }
}

impl<D: ?Sized + Send + Sync> Instance for Chosen<D> {
    // A service that was bound is checked and shut down as itself, and of any other value it is not known how.
    fn ping(&self) -> Work<'_> {
        Work::Done(Ok(()))
    }

    fn shutdown(&self) -> Work<'_> {
        Work::Done(Ok(()))
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// `dyn Trait` of a trait with `#[service]`; the attribute implements it, and nothing else should.
pub trait TraitService: Requirement + Send + Sync {
    #[doc(hidden)]
    fn ready() -> &'static Ready<Chosen<Self>>;
}

/// Describes the trait object `D`, whose `name` and `path` are those of its declaration.
pub const fn describe<D: TraitService + ?Sized>(
    name: &'static str,
    path: &'static str,
) -> Descriptor {
    Descriptor {
        number: Number::new(),
        name,
        path,
        rank: D::RANK,
        asynchronous: D::ASYNC,
        initialize: Initialize::Provided,
        run: None,
        policy: Policy::DEFAULT,
        requirements: &[],
        publish: publish::<D>,
    }
}

fn publish<D: TraitService + ?Sized>(instance: Option<&'static dyn Instance>) {
    D::ready().set(instance.and_then(|instance| instance.as_any().downcast_ref()));
}

/// Chooses a value.
pub fn provide_chosen<D: TraitService + ?Sized>(value: Box<D>) -> Result<(), Error> {
    let chosen: &'static D = Box::leak(value);
    put(
        D::descriptor(),
        Provided::Instance(Box::leak(Box::new(Chosen(chosen)))),
    )
}

/// Chooses a service, which is then initialised, checked and shut down as any requirement.
pub fn bind<D: TraitService + ?Sized, T: Singleton>(
    cast: fn(&'static T) -> &'static D,
) -> Result<(), Error> {
    let cast = move |any: &'static (dyn Any + Send + Sync)| -> Option<Box<dyn Instance>> {
        let chosen = Chosen(cast(any.downcast_ref::<T>()?));
        Some(Box::new(chosen))
    };
    let cast: &'static Cast = Box::leak(Box::new(cast));
    put(D::descriptor(), Provided::Service(T::descriptor(), cast))
}

/// Puts an instance in the place of what `initialize` would make.
pub fn provide<T: Singleton>(instance: T) -> Result<(), Error> {
    // Leaked for good: guarded methods hand out `&'static` parts of it.
    put(
        T::descriptor(),
        Provided::Instance(Box::leak((T::KIND.erase)(instance))),
    )
}

fn put(service: &'static Descriptor, provided: Provided) -> Result<(), Error> {
    let name = service.name;
    let mut engine = engine::lock();
    let Some(realm) = engine.realm_mut(engine::current_realm()) else {
        return Err(Error::ShutDown { service: name });
    };
    if realm.closing.is_requested() {
        return Err(Error::ShutDown { service: name });
    }
    let entry = realm.get_mut(service);
    match entry.slot {
        // What has failed may be replaced.
        Slot::Idle if entry.provided.is_some() && entry.failure.is_none() => {
            Err(Error::ProvidedTwice { service: name })
        }
        Slot::Idle => {
            entry.provided = Some(provided);
            Ok(())
        }
        Slot::Initializing(_) | Slot::Ready(_) | Slot::Stopping { .. } | Slot::ShutDown => {
            Err(Error::ProvidedTooLate { service: name })
        }
    }
}
