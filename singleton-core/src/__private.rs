//! The functions that the macros' expansions call. Not part of the public API.

use std::fmt;
use std::marker::PhantomData;

pub use inventory;

pub use crate::escaped::Escaped;
pub use crate::init::{bind, provide, provide_chosen};
pub use crate::invoke::Setup;
pub use crate::service::{
    Chosen, Descriptor, Facts, Kind, Node, Policy, Ready, Registration, Retry, TraitService,
    asynchronous, blocking, describe, run,
};

use crate::engine;
use crate::error::Error;
use crate::init;
use crate::service::{Requirement, Singleton, State};

/// The slow path, which a guarded call takes if the instance is not ready.
pub type Initialize<T> = fn() -> Result<&'static T, Error>;

/// Returns the instance after one load if it is ready, otherwise the slow path.
#[inline(always)]
pub fn ready<T: Singleton>() -> Result<&'static T, Initialize<T>> {
    T::ready().get().ok_or(resolve::<T>)
}

/// Returns the instance. Initializes the service on first use.
#[inline(always)]
pub fn instance<T: Singleton>() -> Result<&'static T, Error> {
    ready().or_else(|initialize| initialize())
}

#[cold]
#[inline(never)]
fn resolve<T: Singleton>() -> Result<&'static T, Error> {
    let descriptor = T::descriptor();
    let instance = init::resolve(descriptor)?;
    Ok(instance
        .as_any()
        .downcast_ref()
        .expect("a slot holds an instance of the type that its descriptor names"))
}

/// Returns the instance, like [`instance`], without blocking the thread.
pub async fn instance_async<T: Singleton>() -> Result<&'static T, Error> {
    match ready() {
        Ok(instance) => Ok(instance),
        // Boxed, because the future is large and rarely needed.
        Err(_) => Box::pin(resolve_async::<T>()).await,
    }
}

async fn resolve_async<T: Singleton>() -> Result<&'static T, Error> {
    let instance = init::resolve_async(T::descriptor()).await?;
    Ok(instance
        .as_any()
        .downcast_ref()
        .expect("a slot holds an instance of the type that its descriptor names"))
}

/// Returns the chosen implementation of a trait service. Initializes it on first use.
pub fn chosen<D: TraitService + ?Sized>() -> Result<&'static D, Error> {
    if let Some(chosen) = D::ready().get() {
        return Ok(chosen.0);
    }
    let instance = init::resolve(D::descriptor())?;
    let chosen: &'static Chosen<D> = instance
        .as_any()
        .downcast_ref()
        .expect("a slot holds an instance of the type that its descriptor names");
    Ok(chosen.0)
}

/// Returns the chosen implementation, like [`chosen`], without blocking the thread.
pub async fn chosen_async<D: TraitService + ?Sized>() -> Result<&'static D, Error> {
    if let Some(chosen) = D::ready().get() {
        return Ok(chosen.0);
    }
    let instance = init::resolve_async(D::descriptor()).await?;
    let chosen: &'static Chosen<D> = instance
        .as_any()
        .downcast_ref()
        .expect("a slot holds an instance of the type that its descriptor names");
    Ok(chosen.0)
}

/// Returns whether `T` is ready in the caller's container.
pub fn is_initialized<T: Singleton>() -> bool {
    T::ready().get().is_some() || is_ready::<T>()
}

/// Returns whether `T`, which may be a trait object, is ready in the caller's container.
pub fn is_ready<T: Requirement + ?Sized>() -> bool {
    engine::lock().state(engine::current_container(), T::descriptor()) == State::Ready
}

/// Converts the error of a guard into the result of the guarded method.
#[cold]
pub fn failed<R: GuardedResult>(error: Error) -> R {
    R::from_error(error)
}

/// The guard of the service `T`, for an expansion that has no path to this module.
pub struct Guard<T>(PhantomData<T>);

impl<T: Singleton> Guard<T> {
    /// The guard.
    pub const NEW: Self = Guard(PhantomData);

    /// Calls [`ready`].
    #[inline(always)]
    pub fn ready(self) -> Result<&'static T, Initialize<T>> {
        ready()
    }

    /// Calls [`instance`].
    #[inline(always)]
    pub fn instance(self) -> Result<&'static T, Error> {
        instance()
    }

    /// Calls [`instance_async`].
    pub async fn instance_async(self) -> Result<&'static T, Error> {
        instance_async().await
    }

    /// Calls [`failed`].
    pub fn failed<R: GuardedResult>(self, error: Error) -> R {
        failed(error)
    }
}

impl<T> fmt::Debug for Guard<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Guard")
    }
}

/// A possible result type of a guarded method.
#[diagnostic::on_unimplemented(
    message = "a guarded method returns a `Result`, because the initialization of its service can fail",
    label = "not a `Result<_, E>` with `E: From<singleton_core::Error>`",
    note = "write `Result<{Self}, singleton_core::Error>`, or an error type of your own with `impl From<singleton_core::Error>`"
)]
pub trait GuardedResult {
    /// Returns the result that contains `error`.
    fn from_error(error: Error) -> Self;
}

impl<T, E: From<Error>> GuardedResult for Result<T, E> {
    fn from_error(error: Error) -> Self {
        Err(error.into())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Guard;
    use crate::testing::Scope;
    use crate::{Error, Service, service};

    #[service]
    struct Shop;

    impl Service for Shop {
        fn initialize() -> anyhow::Result<Self> {
            Ok(Shop)
        }
    }

    #[test]
    fn a_guard_reaches_its_service_without_a_path() {
        Scope::new().run(|| {
            assert!(Guard::<Shop>::NEW.ready().is_err());
            assert!(Guard::<Shop>::NEW.instance().is_ok());
            assert!(pollster::block_on(Guard::<Shop>::NEW.instance_async()).is_ok());
            let error = Error::ShutDown { service: "Shop" };
            assert!(
                Guard::<Shop>::NEW
                    .failed::<Result<(), Error>>(error)
                    .is_err()
            );
        });
    }
}
