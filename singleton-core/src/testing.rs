//! Test scopes: separate services for each test, and fakes in place of real ones.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
use std::thread;

use crate::application::{ShutdownOptions, ShutdownScope, shut_down};
use crate::engine::{self, ContainerId, InContainer};
use crate::invoke::{Driver, off_thread};
use crate::panics::catch_panic;
use crate::service::{Chosen, Descriptor, Instance, Singleton, TraitService};

/// A separate set of services. Inside a scope, each service is initialized again, except those passed
/// to [`provide`](Scope::provide).
///
/// Scopes on different threads do not see each other, so tests can run in parallel. A nested scope inherits no service
/// from the outer scope. Code outside scopes keeps its instances. While a scope is open anywhere in the process, each guarded
/// call takes a lock.
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
        let container = self.open();
        let _container = engine::enter(container);
        let _shutdown = ShutdownOnDrop(container);
        work()
    }

    /// Runs a future inside the scope, on any thread, and then shuts the scope's services down.
    ///
    /// If the future is dropped before it completes, dropping it shuts the services down.
    pub async fn run_async<R>(self, work: impl Future<Output = R>) -> R {
        let container = self.open();
        let shutdown_on_drop = ShutdownOnDrop(container);
        let value = InContainer::new(container, work).await;
        std::mem::forget(shutdown_on_drop);
        off_thread(move |driver| shut_down_scope(container, driver)).await;
        value
    }

    fn open(self) -> ContainerId {
        let provided = self.provided.into_iter();
        let provided = provided.map(|(service, instance)| (service, &*Box::leak(instance)));
        engine::lock().open_container(provided.collect(), self.environment)
    }

    /// Returns a handle to the calling thread's innermost scope, for other threads.
    ///
    /// Outside scopes, the handle stands for the process's services: entering it leaves all scopes.
    pub fn current() -> ScopeHandle {
        ScopeHandle {
            container: engine::current_container(),
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.provided.iter().map(|(service, _)| service.name);
        formatter.write_str("Scope ")?;
        formatter.debug_list().entries(names).finish()
    }
}

/// A handle that carries a scope to other threads; see [`Scope::current`].
///
/// # Examples
///
/// ```
/// use std::thread;
/// use singleton_core::testing::Scope;
///
/// Scope::new().run(|| {
///     let scope = Scope::current();
///     thread::spawn(move || scope.enter(|| { /* sees the services of the scope */ })).join()
/// })
/// # .unwrap();
/// ```
#[derive(Debug, Clone)]
pub struct ScopeHandle {
    container: ContainerId,
}

impl ScopeHandle {
    /// Runs `work` inside the scope on the calling thread.
    ///
    /// After the scope's [`run`](Scope::run) has ended, guarded calls return
    /// [`Error::ShutDown`](crate::Error::ShutDown).
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let _container = engine::enter(self.container);
        work()
    }

    /// Spawns a thread inside the scope.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system cannot start a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::{env, testing::Scope};
    ///
    /// Scope::new().env("PORT", "8080").run(|| {
    ///     let port = Scope::current().spawn(|| env::var("PORT"))?.join();
    ///     assert_eq!(port.unwrap().as_deref(), Ok("8080"));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<thread::JoinHandle<R>> {
        let handle = self.clone();
        thread::Builder::new().spawn(move || handle.enter(work))
    }

    /// Returns a future that runs `work` inside the scope, on any thread that polls it.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::{env, testing::Scope};
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let port = Scope::new().env("PORT", "8080").run_async(async {
    ///     tokio::spawn(Scope::current().carry(async { env::var("PORT") })).await
    /// });
    /// assert_eq!(port.await.unwrap().as_deref(), Ok("8080"));
    /// # }
    /// ```
    pub fn carry<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        InContainer::new(self.container, work)
    }

    /// Returns the services of the scope that are ready, in the order in which they became ready. Provided ones come
    /// first.
    pub fn initialized(&self) -> Vec<&'static str> {
        let engine = engine::lock();
        let started = engine
            .container(self.container)
            .map(|container| &container.started);
        started
            .into_iter()
            .flatten()
            .map(|service| service.name)
            .collect()
    }

    /// Asserts that exactly these services are ready in the scope, and became ready in this order.
    ///
    /// # Panics
    ///
    /// Panics if others are ready, or if the order differs.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::testing::Scope;
    /// # use singleton_core::{Service, requires, service};
    /// # #[service] struct Engine;
    /// # #[service] #[requires(Engine)] struct Car;
    /// # impl Service for Engine { fn initialize() -> anyhow::Result<Self> { Ok(Engine) } }
    /// # impl Service for Car { fn initialize() -> anyhow::Result<Self> { Ok(Car) } }
    ///
    /// Scope::new().run(|| {
    ///     Car::instance()?;
    ///     Scope::current().assert_initialized(["Engine", "Car"]);
    ///     Ok(())
    /// })
    /// # .map_err(|error: singleton_core::Error| error)?;
    /// # Ok::<(), singleton_core::Error>(())
    /// ```
    #[track_caller]
    pub fn assert_initialized<'a>(&self, expected: impl AsRef<[&'a str]>) {
        let (initialized, expected) = (self.initialized(), expected.as_ref());
        assert!(
            initialized == expected,
            "the services initialized in this scope are {initialized:?}, expected {expected:?}"
        );
    }
}

/// Shuts the scope's services down when it is dropped.
struct ShutdownOnDrop(ContainerId);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        shut_down_scope(self.0, &Driver::Here);
    }
}

fn shut_down_scope(container: ContainerId, driver: &Driver) {
    shut_down(
        container,
        ShutdownScope::All,
        &ShutdownOptions::default(),
        driver,
    );
    let removed = engine::lock().remove_container(container);
    // The destructors of its errors and futures are user code.
    let _ = catch_panic(|| drop(removed));
}
