//! The functions that the macros' expansions call. Not part of the public API.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

pub use inventory;

pub use crate::escaped::Escaped;
pub use crate::init::{bind, provide, provide_chosen};
pub use crate::invoke::Setup;
pub use crate::service::{
    Chosen, Descriptor, Facts, Kind, Node, Ready, Registration, Retry, ServicePolicy, TraitService,
    asynchronous, blocking, describe, run,
};

use crate::engine::{self, ContainerId};
use crate::error::Error;
use crate::init;
use crate::service::{Instance, Requirement, Singleton, State, Stop};

/// Returns the instance after one load if it is ready and no scope is open.
#[inline(always)]
pub fn ready<T: Singleton>() -> Option<&'static T> {
    T::ready().get()
}

/// Returns the instance. Initializes the service on first use.
#[inline(always)]
pub fn instance<T: Singleton>() -> Result<&'static T, Error> {
    match ready() {
        Some(instance) => Ok(instance),
        None => initialize(),
    }
}

/// Returns the instance, which [`ready`] has not found.
///
/// Outside scopes, a ready service needs one more look at the thread and one more load. They are inlined, because all
/// calls come here while a scope is open anywhere.
///
/// # Errors
///
/// Returns an error if the service cannot be initialized.
#[inline(always)]
pub fn initialize<T: Singleton>() -> Result<&'static T, Error> {
    if engine::current_container() == ContainerId::PROCESS
        && let Some(instance) = T::ready().of_process()
    {
        return Ok(instance);
    }
    resolve()
}

#[cold]
#[inline(never)]
fn resolve<T: Singleton>() -> Result<&'static T, Error> {
    if let Some(instance) = ready_in_context(T::ready(), T::descriptor) {
        return Ok(instance);
    }
    Ok(downcast(init::resolve(T::descriptor())?))
}

/// Returns the instance, like [`instance`], without blocking the thread.
pub async fn instance_async<T: Singleton>() -> Result<&'static T, Error> {
    match T::ready()
        .get()
        .or_else(|| ready_in_context(T::ready(), T::descriptor))
    {
        Some(instance) => Ok(instance),
        // Boxed, because the future is large and rarely needed.
        None => Ok(downcast(
            Box::pin(init::resolve_async(T::descriptor())).await?,
        )),
    }
}

/// Returns the instance if it is ready in the caller's context, without a lock.
fn ready_in_context<T: Sync + 'static>(
    ready: &Ready<T>,
    descriptor: fn() -> &'static Descriptor,
) -> Option<&'static T> {
    match engine::current_container() {
        ContainerId::PROCESS => ready.of_process(),
        _ => engine::ready_in_scope(descriptor()).map(downcast),
    }
}

fn downcast<T: 'static>(instance: &'static dyn Instance) -> &'static T {
    instance
        .as_any()
        .downcast_ref()
        .expect("a slot holds an instance of the type that its descriptor names")
}

/// Returns the chosen implementation of a trait service. Initializes it on first use.
pub fn chosen<D: TraitService + ?Sized>() -> Result<&'static D, Error> {
    if let Some(chosen) = ready_choice::<D>() {
        return Ok(chosen.0);
    }
    let chosen: &'static Chosen<D> = downcast(init::resolve(D::descriptor())?);
    Ok(chosen.0)
}

/// Returns the chosen implementation, like [`chosen`], without blocking the thread.
pub async fn chosen_async<D: TraitService + ?Sized>() -> Result<&'static D, Error> {
    if let Some(chosen) = ready_choice::<D>() {
        return Ok(chosen.0);
    }
    let chosen: &'static Chosen<D> = downcast(init::resolve_async(D::descriptor()).await?);
    Ok(chosen.0)
}

fn ready_choice<D: TraitService + ?Sized>() -> Option<&'static Chosen<D>> {
    let chosen = D::ready().get();
    chosen.or_else(|| ready_in_context(D::ready(), D::descriptor))
}

/// Returns the request to shut down the services of the caller's container. `None` after the end of its scope.
pub fn shutdown_request() -> Option<Arc<Stop>> {
    let engine = engine::lock();
    let container = engine.container(engine::current_container())?;
    Some(Arc::clone(&container.closing))
}

/// Returns whether `T` is ready in the caller's container.
pub fn is_initialized<T: Singleton>() -> bool {
    let ready = ready::<T>().or_else(|| ready_in_context(T::ready(), T::descriptor));
    ready.is_some() || is_ready::<T>()
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
    pub fn ready(self) -> Option<&'static T> {
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
    use crate::error::{Error, Reason};
    use crate::testing::Scope;
    use crate::{Service, service};

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
            assert!(Guard::<Shop>::NEW.ready().is_none());
            assert!(Guard::<Shop>::NEW.instance().is_ok());
            assert!(pollster::block_on(Guard::<Shop>::NEW.instance_async()).is_ok());
            let error = Error::new("Shop", Reason::ShutDown);
            assert!(
                Guard::<Shop>::NEW
                    .failed::<Result<(), Error>>(error)
                    .is_err()
            );
        });
    }
}
