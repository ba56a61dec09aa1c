//! Type erasure: turns a service's type into a [`Descriptor`] and its instances into [`Instance`]s. The
//! expansion of `#[service]` calls these functions.

use std::any::Any;
use std::fmt;

use super::descriptor::{
    Descriptor, Initialize, Instance, Kind, Registration, Run, ServiceNumber, Work,
};
use super::policy::Policy;
use super::ready::Ready;
use super::traits::{AsyncService, BackgroundService, Requirement, Service, Singleton};

/// An instance of a [`Service`].
pub(crate) struct BlockingInstance<T>(pub(crate) T);

impl<T: Service> Instance for BlockingInstance<T> {
    fn ping(&self) -> Work<'_> {
        Work::Done(self.0.ping())
    }

    fn shutdown(&self) -> Work<'_> {
        Work::Done(self.0.shutdown())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        &self.0
    }
}

/// An instance of an [`AsyncService`].
pub(crate) struct AsyncInstance<T>(pub(crate) T);

impl<T: AsyncService> Instance for AsyncInstance<T> {
    fn ping(&self) -> Work<'_> {
        Work::Later(Box::pin(self.0.ping()))
    }

    fn shutdown(&self) -> Work<'_> {
        Work::Later(Box::pin(self.0.shutdown()))
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        &self.0
    }
}

/// Returns how a [`Service`] is created and erased.
pub const fn blocking<T: Service>() -> Kind<T> {
    Kind {
        initialize: Initialize::Blocking(|| Ok(Box::new(BlockingInstance(T::initialize()?)))),
        erase: |instance| Box::new(BlockingInstance(instance)),
    }
}

/// Returns the kind of an [`AsyncService`].
pub const fn asynchronous<T: AsyncService>() -> Kind<T> {
    Kind {
        initialize: Initialize::Async(|| {
            Box::pin(async {
                let instance: Box<dyn Instance> = Box::new(AsyncInstance(T::initialize().await?));
                Ok(instance)
            })
        }),
        erase: |instance| Box::new(AsyncInstance(instance)),
    }
}

/// Returns the function that a [`BackgroundService`]'s thread runs.
pub const fn run<T: BackgroundService>() -> Run {
    |instance, stop| match instance.downcast_ref::<T>() {
        Some(service) => service.run(stop),
        None => Ok(()),
    }
}

impl Descriptor {
    /// Describes the service `T`, which is declared as `name` at `path`.
    pub const fn new<T: Singleton>(
        name: &'static str,
        path: &'static str,
        requirements: &'static [fn() -> &'static Descriptor],
        run: Option<Run>,
        policy: Policy,
    ) -> Self {
        Descriptor {
            number: ServiceNumber::new(),
            name,
            path,
            rank: T::RANK,
            asynchronous: T::ASYNC,
            initialize: T::KIND.initialize,
            run,
            policy,
            requirements,
            publish: publish::<T>,
        }
    }
}

fn publish<T: Singleton>(instance: Option<&'static dyn Instance>) {
    T::ready().set(instance.and_then(|instance| instance.as_any().downcast_ref()));
}

impl Registration {
    /// Creates the registration of a service or trait service.
    pub const fn of<T: Requirement + ?Sized>() -> Self {
        Registration {
            descriptor: T::descriptor,
        }
    }
}

/// The implementation that was chosen for a trait service.
pub struct Chosen<D: ?Sized + 'static>(pub(crate) &'static D);

impl<D: ?Sized> fmt::Debug for Chosen<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::any::type_name::<D>())
    }
}

impl<D: ?Sized + Send + Sync> Instance for Chosen<D> {
    // These do nothing. A service chosen with `bind` has a descriptor of its own, with its `ping` and `shutdown`. A
    // value chosen with `provide` has neither method.
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

/// Implemented for `dyn Trait` if `Trait` has `#[service]`. Only the attribute implements `TraitService`.
pub trait TraitService: Requirement + Send + Sync {
    #[doc(hidden)]
    fn ready() -> &'static Ready<Chosen<Self>>;
}

/// Describes the trait object `D`, which is declared as `name` at `path`.
pub const fn describe<D: TraitService + ?Sized>(
    name: &'static str,
    path: &'static str,
) -> Descriptor {
    Descriptor {
        number: ServiceNumber::new(),
        name,
        path,
        rank: D::RANK,
        asynchronous: D::ASYNC,
        initialize: Initialize::Provided,
        run: None,
        policy: Policy::DEFAULT,
        requirements: &[],
        publish: publish_chosen::<D>,
    }
}

fn publish_chosen<D: TraitService + ?Sized>(instance: Option<&'static dyn Instance>) {
    D::ready().set(instance.and_then(|instance| instance.as_any().downcast_ref()));
}
