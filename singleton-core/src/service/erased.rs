//! Type erasure: turns a service's type into a [`Descriptor`] and its instances into [`Instance`]s. The
//! expansion of `#[service]` calls these functions.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use super::descriptor::{
    Descriptor, Initialize, Instance, Kind, Registration, Run, ServiceNumber, Visibility, Work,
};
use super::policy::ServicePolicy;
use super::ready::Ready;
use super::traits::{AsyncService, BackgroundService, Requirement, Service, Singleton};

thread_local! {
    /// The service whose default `shutdown` ran last on this thread.
    static DEFAULT_SHUTDOWN: Cell<Option<TypeId>> = const { Cell::new(None) };
}

/// Records that the default `shutdown` of `T` runs.
pub(super) fn note_default_shutdown<T: 'static>() {
    let _ = DEFAULT_SHUTDOWN.try_with(|last| last.set(Some(TypeId::of::<T>())));
}

/// Calls the `shutdown` of `T`. Also returns whether that was the default, which is known only afterwards: a trait's
/// default method looks like any other.
fn shut_down<T: 'static, R>(call: impl FnOnce() -> R) -> (R, bool) {
    let last = |value| {
        DEFAULT_SHUTDOWN
            .try_with(|last| last.replace(value))
            .ok()
            .flatten()
    };
    last(None);
    let result = call();
    // An own `shutdown` may call the default one of a field.
    (result, last(None) == Some(TypeId::of::<T>()))
}

/// An instance of a [`Service`].
pub(crate) struct BlockingInstance<T>(pub(crate) T);

impl<T: Service> Instance for BlockingInstance<T> {
    fn ping(&self) -> Work<'_> {
        Work::Done(self.0.ping())
    }

    fn shutdown(&self) -> (Work<'_>, bool) {
        let (result, is_default) = shut_down::<T, _>(|| self.0.shutdown());
        (Work::Done(result), is_default)
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

    fn shutdown(&self) -> (Work<'_>, bool) {
        let (future, is_default) = shut_down::<T, _>(|| self.0.shutdown());
        (Work::Later(Box::pin(future)), is_default)
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
    #[track_caller]
    pub const fn new<T: Singleton>(
        name: &'static str,
        path: &'static str,
        requirements: &'static [fn() -> &'static Descriptor],
        run: Option<Run>,
        policy: ServicePolicy,
    ) -> Self {
        Descriptor {
            number: ServiceNumber::new(),
            declared_name: name,
            path,
            location: Location::caller(),
            shown_name: OnceLock::new(),
            has_default_shutdown: AtomicBool::new(false),
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

fn publish<T: Singleton>(instance: Option<&'static dyn Instance>, visibility: Visibility) {
    let instance = instance.and_then(|instance| instance.as_any().downcast_ref());
    T::ready().set(instance, visibility);
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

    fn shutdown(&self) -> (Work<'_>, bool) {
        (Work::Done(Ok(())), true)
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
#[track_caller]
pub const fn describe<D: TraitService + ?Sized>(
    name: &'static str,
    path: &'static str,
) -> Descriptor {
    Descriptor {
        number: ServiceNumber::new(),
        declared_name: name,
        path,
        location: Location::caller(),
        shown_name: OnceLock::new(),
        // A value has no `shutdown`, and a bound service has its own descriptor.
        has_default_shutdown: AtomicBool::new(true),
        rank: D::RANK,
        asynchronous: D::ASYNC,
        initialize: Initialize::Provided,
        run: None,
        policy: ServicePolicy::DEFAULT,
        requirements: &[],
        publish: publish_chosen::<D>,
    }
}

fn publish_chosen<D: TraitService + ?Sized>(
    instance: Option<&'static dyn Instance>,
    visibility: Visibility,
) {
    let instance = instance.and_then(|instance| instance.as_any().downcast_ref());
    D::ready().set(instance, visibility);
}
