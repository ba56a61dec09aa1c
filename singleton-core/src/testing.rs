//! Test scopes: separate services for each test, and fakes in place of real ones.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;

use crate::application::{ShutdownOptions, ShutdownScope, has_something_to_shut_down, shut_down};
use crate::context::ServiceContext;
use crate::engine::{self, Context, InContext};
use crate::invoke::{Driver, off_thread};
use crate::panics::catch_panic;
use crate::service::{Chosen, Descriptor, Instance, Singleton, TraitService};

/// A separate set of services. Inside a scope, each service is initialized again, except those passed
/// to [`provide`](Scope::provide).
///
/// Scopes on different threads do not see each other, so tests can run in parallel. A nested scope inherits no service
/// from the outer scope. Code outside scopes keeps its instances. While a scope is open anywhere in the process, a
/// guarded call looks up the scope of its thread, without a lock.
///
/// The `#[setup]` function runs outside scopes. Its `provide` and `bind` apply to the process, not to scopes.
///
/// When [`run`](Scope::run) ends, the services that the scope started and those provided are shut down, each after its
/// dependents. Their memory is never freed, because guarded methods may have returned `&'static` borrows of it.
///
/// # Examples
///
/// ```
/// use singleton_core::testing::Scope;
/// use singleton_core::{Error, Service, guarded, requires, service};
///
/// #[service]
/// struct Clock {
///     hour: u32,
/// }
///
/// impl Service for Clock {
///     fn initialize() -> anyhow::Result<Self> {
///         anyhow::bail!("no clock on this machine")
///     }
/// }
///
/// impl Clock {
///     #[guarded]
///     fn hour(&self) -> Result<u32, Error> {
///         Ok(self.hour)
///     }
/// }
///
/// #[service]
/// #[requires(Clock)]
/// struct Greeter;
/// # impl Service for Greeter { fn initialize() -> anyhow::Result<Self> { Ok(Greeter) } }
///
/// impl Greeter {
///     #[guarded]
///     fn greet(&self) -> Result<&str, Error> {
///         Ok(if Clock::hour()? < 12 { "Good morning" } else { "Good day" })
///     }
/// }
///
/// let greeting = Scope::new().provide(Clock { hour: 9 }).run(Greeter::greet)?;
/// assert_eq!(greeting, "Good morning");
/// assert!(Greeter::greet().is_err(), "outside the scope, nothing has changed");
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
#[must_use = "a scope does nothing until `run` is called"]
pub struct Scope {
    provided: Vec<(&'static Descriptor, Box<dyn Instance>)>,
    environment: HashMap<OsString, Option<OsString>>,
}

impl Scope {
    /// Creates a scope without services.
    pub fn new() -> Self {
        Scope::default()
    }

    /// Provides `instance` in place of the service's `initialize`.
    ///
    /// The instance is ready at once: its `initialize` and `ping` are not called, and its dependencies are not
    /// initialized. If the method is called several times for one service, the last instance counts.
    pub fn provide<T: Singleton>(mut self, instance: T) -> Self {
        let service = T::descriptor();
        self.provided.retain(|(provided, _)| *provided != service);
        self.provided.push((service, (T::KIND.erase)(instance)));
        self
    }

    /// Like [`provide`](Scope::provide), for a trait service.
    pub fn provide_trait<D: TraitService + ?Sized>(mut self, implementation: Box<D>) -> Self {
        let service = D::descriptor();
        self.provided.retain(|(provided, _)| *provided != service);
        let chosen = Chosen(Box::leak(implementation));
        self.provided.push((service, Box::new(chosen)));
        self
    }

    /// Sets an environment variable inside the scope, for code that reads it with [`env::var`](crate::env::var).
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), Some(value.into()));
        self
    }

    /// Removes an environment variable inside the scope, for code that reads it with [`env::var`](crate::env::var).
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), None);
        self
    }

    /// Runs `work` inside the scope, and then shuts the scope's services down, even if `work` panics.
    ///
    /// Returns the value of `work`.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        let context = self.open();
        let _context = context.enter();
        let _shutdown = ShutdownOnDrop(Some(context.clone()));
        work()
    }

    /// Runs a future inside the scope, on any thread, and then shuts the scope's services down.
    ///
    /// If the future is dropped before it completes, dropping it shuts the services down.
    pub async fn run_async<R>(self, work: impl Future<Output = R>) -> R {
        let context = self.open();
        let mut shutdown_on_drop = ShutdownOnDrop(Some(context.clone()));
        let value = InContext::new(context.clone(), work).await;
        shutdown_on_drop.0 = None;
        if has_something_to_shut_down(context.container) {
            off_thread(move |driver| shut_down_scope(&context, driver)).await;
        } else {
            shut_down_scope(&context, &Driver::Here);
        }
        value
    }

    fn open(self) -> Context {
        let provided = self.provided.into_iter();
        let provided = provided.map(|(service, instance)| (service, &*Box::leak(instance)));
        engine::lock().open_container(provided.collect(), self.environment)
    }

    /// Returns the services of the caller's innermost scope that are ready, in the order in which they became ready.
    /// Provided ones come first. Outside scopes, returns those of the process.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::testing::Scope;
    /// # use singleton_core::{Service, requires, service};
    /// # #[service] struct Wheel;
    /// # #[service] #[requires(Wheel)] struct Cart;
    /// # impl Service for Wheel { fn initialize() -> anyhow::Result<Self> { Ok(Wheel) } }
    /// # impl Service for Cart { fn initialize() -> anyhow::Result<Self> { Ok(Cart) } }
    ///
    /// Scope::new().run(|| {
    ///     Cart::instance()?;
    ///     assert_eq!(Scope::initialized(), ["Wheel", "Cart"]);
    ///     Ok(())
    /// })
    /// # .map_err(|error: singleton_core::Error| error)?;
    /// # Ok::<(), singleton_core::Error>(())
    /// ```
    pub fn initialized() -> Vec<&'static str> {
        ServiceContext::current().ready_services()
    }

    /// Returns a handle to the calling thread's innermost scope, for other threads.
    #[deprecated(note = "use `singleton_core::ServiceContext::current()`")]
    pub fn current() -> ServiceContext {
        ServiceContext::current()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.provided.iter().map(|(service, _)| service.name());
        formatter.write_str("Scope ")?;
        formatter.debug_list().entries(names).finish()
    }
}

/// The former name of [`ServiceContext`].
#[deprecated(note = "use `singleton_core::ServiceContext`")]
pub type ScopeHandle = ServiceContext;

/// Refuses calls outside scopes from now on, in the whole process: they return
/// [`ErrorKind::OutsideScope`](crate::ErrorKind::OutsideScope).
///
/// A test that forgets to carry its scope to another thread, for example to `spawn_blocking`, would otherwise use the
/// process's services, such as the developer's database. Call this function at the beginning of each test. It cannot be
/// revoked. A service that shuts down may still use its dependencies.
///
/// # Examples
///
/// ```standalone_crate
/// use std::thread;
/// use singleton_core::testing::{Scope, require_scope};
/// use singleton_core::{ErrorKind, Service, ServiceContext, service};
///
/// #[service]
/// struct Clock;
/// # impl Service for Clock { fn initialize() -> anyhow::Result<Self> { Ok(Clock) } }
///
/// require_scope();
/// Scope::new().run(|| {
///     let forgotten = thread::spawn(Clock::instance).join().unwrap();
///     assert_eq!(forgotten.err().map(|error| error.kind()), Some(ErrorKind::OutsideScope));
///     let context = ServiceContext::current();
///     let carried = thread::spawn(context.wrap(Clock::instance)).join().unwrap();
///     assert!(carried.is_ok());
/// });
/// ```
pub fn require_scope() {
    engine::lock().require_scope();
}

/// Shuts the scope's services down when it is dropped.
struct ShutdownOnDrop(Option<Context>);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            shut_down_scope(context, &Driver::Here);
        }
    }
}

fn shut_down_scope(context: &Context, driver: &Driver) {
    shut_down(
        context,
        ShutdownScope::All,
        &ShutdownOptions::default(),
        driver,
    );
    let removed = engine::lock().remove_container(context.container);
    // The destructors of its errors and futures are user code.
    let _ = catch_panic(|| drop(removed));
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Weak};

    use super::*;
    use crate::service::{AsyncService, Service};
    use crate::{requires, service, threads};

    #[service]
    struct Plain;

    impl Service for Plain {
        fn initialize() -> anyhow::Result<Self> {
            Ok(Plain)
        }
    }

    #[service(async)]
    #[requires(Plain)]
    struct PlainAsync;

    impl AsyncService for PlainAsync {
        async fn initialize() -> anyhow::Result<Self> {
            Ok(PlainAsync)
        }
    }

    /// Has an own `shutdown`, which calls the default one of another service.
    #[service]
    struct Flushes;

    static FLUSHES: AtomicUsize = AtomicUsize::new(0);

    impl Service for Flushes {
        fn initialize() -> anyhow::Result<Self> {
            Ok(Flushes)
        }

        fn shutdown(&self) -> anyhow::Result<()> {
            FLUSHES.fetch_add(1, Ordering::Relaxed);
            Service::shutdown(&Plain)
        }
    }

    /// Returns the number of threads that `work` and its threads start.
    fn count_threads(work: impl FnOnce()) -> usize {
        let count = Arc::new(AtomicUsize::new(0));
        let started = Arc::clone(&count);
        let refuse = move |_: &str| {
            started.fetch_add(1, Ordering::Relaxed);
            false
        };
        threads::faults::with(Arc::new(refuse), work);
        count.load(Ordering::Relaxed)
    }

    fn use_plain_services() {
        Scope::new().run(|| {
            assert!(Plain::instance().is_ok());
            assert!(pollster::block_on(PlainAsync::instance_async()).is_ok());
        });
    }

    #[test]
    fn end_of_a_scope_starts_threads_only_for_services_with_a_shutdown() {
        // The first shutdown of a service shows whether it has one of its own.
        use_plain_services();
        assert_eq!(count_threads(use_plain_services), 0);
        let asynchronous = Scope::new().run_async(async {
            assert!(Plain::instance().is_ok());
            assert!(PlainAsync::instance_async().await.is_ok());
        });
        assert_eq!(count_threads(|| pollster::block_on(asynchronous)), 0);
        for flushes in 1..=3 {
            let use_both = || {
                Scope::new().run(|| {
                    assert!(Plain::instance().is_ok() && Flushes::instance().is_ok());
                });
            };
            assert_eq!(count_threads(use_both), 1);
            assert_eq!(FLUSHES.load(Ordering::Relaxed), flushes);
        }
    }

    #[test]
    fn bookkeeping_of_an_ended_scope_is_freed() {
        let state: Weak<_> = Scope::new().run(|| {
            assert!(Plain::instance().is_ok());
            Context::current().downgrade().expect("this is a scope")
        });
        assert!(state.upgrade().is_none());
        let engine = engine::lock();
        assert!(engine.container(engine::ContainerId::PROCESS).is_some());
    }
}
