//! Fresh services for each test, with fakes in the place of real ones.

use std::fmt;

use crate::descriptor::{Descriptor, Instance};
use crate::engine::{self, RealmId};
use crate::initialization;
use crate::service::Singleton;

/// A set of services of its own: inside it every service is fresh, except for those provided.
///
/// Scopes on different threads do not see each other, so tests can run in parallel; a scope inside
/// a scope is fresh as well. Code outside of any scope keeps its instances, and is none the wiser
/// except that while a scope is open anywhere every guarded call takes a lock.
///
/// When [`run`](Scope::run) ends, the services that the scope started and those provided are shut down,
/// each before what it requires.
/// Their memory is never given back: guarded methods may have handed out `&'static` parts of it.
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
/// assert!(Greeter::greet().is_err(), "outside of the scope nothing has changed");
/// # Ok::<(), Error>(())
/// ```
#[derive(Default)]
#[must_use = "a scope does nothing until `run` is called"]
pub struct Scope {
    provided: Vec<(&'static Descriptor, Box<dyn Instance>)>,
}

impl Scope {
    /// Makes a scope in which every service is fresh.
    pub fn new() -> Self {
        Scope::default()
    }

    /// Puts `instance` in the place of the service that would be initialised.
    ///
    /// It is ready as it is: neither its `initialize`, its `ping` nor what it requires is run for it.
    /// Of several instances of one service the last counts.
    pub fn provide<T: Singleton>(mut self, instance: T) -> Self {
        let service = T::descriptor();
        self.provided.retain(|(provided, _)| *provided != service);
        self.provided.push((service, Box::new(instance)));
        self
    }

    /// Runs `work` inside the scope, then shuts down the scope's services, also if `work` panics.
    pub fn run<R>(self, work: impl FnOnce() -> R) -> R {
        let provided = self
            .provided
            .into_iter()
            .map(|(service, instance)| (service, &*Box::leak(instance)))
            .collect();
        let realm = engine::lock().open_realm(provided);
        let _entered = engine::enter(realm);
        let _closing = Closing(realm);
        work()
    }

    /// Returns the innermost scope that the calling thread is in, to be carried to another thread.
    ///
    /// Outside of any scope the handle stands for just that, and entering it leaves all scopes.
    pub fn current() -> ScopeHandle {
        ScopeHandle {
            realm: engine::current_realm(),
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

/// Carries a scope to other threads; see [`Scope::current`].
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
    realm: RealmId,
}

impl ScopeHandle {
    /// Runs `work` inside the scope on the calling thread.
    ///
    /// Once the scope's own [`run`](Scope::run) has ended, its services answer with
    /// [`Error::ShutDown`](crate::Error::ShutDown).
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = engine::enter(self.realm);
        work()
    }
}

/// Shuts the scope's services down, each before what it requires, while the thread is still inside.
struct Closing(RealmId);

impl Drop for Closing {
    fn drop(&mut self) {
        loop {
            let next = engine::lock().stop_next(self.0);
            let Some((service, instance)) = next else {
                break;
            };
            initialization::stop(service, instance);
        }
    }
}
