//! The services that are linked into the program.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use crate::application::{
    HealthReport, PingOptions, ShutdownOptions, ShutdownReport, ShutdownScope, StartError,
    StartOptions, StartReport, ping_all, shut_down, start,
};
#[cfg(unix)]
use crate::application::{RunError, run_until_signal};
use crate::engine::{self, Context, Slot};
use crate::error::{Error, Reason};
use crate::invoke::{Driver, ensure_setup, off_thread};
use crate::service::{Descriptor, Policy, Registration, Requirement, State};

mod graph;

pub use graph::{Graph, GraphService};

/// The services that are linked into the program. `#[service]` registers them; [`registry`] returns them.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Registry {}

/// Returns the registry of all services that are linked into the program.
///
/// A crate that no code refers to is not linked, and its services are missing without an error. Refer to it with
/// `use plugins as _;` in the program. This links all services of the crate, and fails to compile if the dependency is
/// missing. `#[requires]` of one of its services, or any other use of the crate, does the same.
///
/// To find a missing service, compare the names that [`Registry::services`] returns with the expected ones, in a test
/// of the program.
///
/// # Examples
///
/// ```
/// use singleton_core::{Service, State, registry, requires, service};
///
/// #[service]
/// struct Hull;
///
/// #[service]
/// #[requires(Hull)]
/// struct Ship;
/// # impl Service for Hull { fn initialize() -> anyhow::Result<Self> { Ok(Hull) } }
/// # impl Service for Ship { fn initialize() -> anyhow::Result<Self> { Ok(Ship) } }
///
/// let services = registry().services();
/// let ship = services.iter().find(|service| service.name() == "Ship").expect("it is linked");
/// assert_eq!(ship.rank(), 2);
/// assert_eq!(ship.dependencies(), ["Hull"]);
/// assert_eq!(ship.state(), State::Uninitialized);
/// ```
pub fn registry() -> Registry {
    Registry {}
}

impl Registry {
    /// Returns all services in topological order, and by path within a rank.
    ///
    /// The states are those at the time of the call, in the caller's [`Scope`](crate::testing::Scope) if there is one.
    pub fn services(&self) -> Vec<ServiceInfo> {
        let id = engine::current_container();
        let engine = engine::lock();
        let container = engine.container(id);
        let info = |descriptor: &'static Descriptor| ServiceInfo {
            descriptor,
            state: engine.state(id, descriptor),
            own_time: container
                .and_then(|container| Some(container.get(descriptor)?.timing?.own_time)),
            tags: container.map_or_else(
                || descriptor.policy.tags.clone(),
                |container| container.policy(descriptor).tags.clone(),
            ),
            bound: container.and_then(|container| {
                container
                    .requirements(descriptor)
                    .nth(descriptor.requirements.len())
            }),
        };
        all().iter().copied().map(info).collect()
    }

    /// Returns the dependency graph, which prints as a text tree, DOT, Mermaid or JSON.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::registry;
    ///
    /// let graph = registry().graph();
    /// println!("{graph}");
    /// // For Graphviz, as in `my-program --graph | dot -Tsvg > services.svg`.
    /// println!("{}", graph.to_dot());
    /// ```
    pub fn graph(&self) -> Graph {
        Graph::new(&self.services())
    }

    /// Changes the policy of a service before its first use. What `policy` does not set keeps the value of the
    /// service's attribute.
    ///
    /// The change counts for the process, or for the caller's [`Scope`](crate::testing::Scope) if there is one. The
    /// natural place is the `#[setup]` function.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::ConfiguredTooLate`](crate::ErrorKind::ConfiguredTooLate) after the service's first use,
    /// and [`ErrorKind::ShutDown`](crate::ErrorKind::ShutDown) after a shutdown.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::{Error, Policy, Retry, Service, registry, requires, service};
    ///
    /// // Of a library, which does not know how long its users want to wait.
    /// #[service]
    /// struct Database;
    /// # impl Service for Database { fn initialize() -> anyhow::Result<Self> { Ok(Database) } }
    ///
    /// fn main() -> Result<(), Error> {
    ///     registry().configure::<Database>(Policy::new().retry(Retry::new(10)).eager())?;
    ///     // …
    /// #   Database::instance()?;
    ///     Ok(())
    /// }
    /// ```
    pub fn configure<S: Requirement + ?Sized>(&self, policy: Policy) -> Result<(), Error> {
        let service = S::descriptor();
        let failed = |reason| Err(Error::new(service.name(), reason));
        let mut engine = engine::lock();
        let Some(container) = engine.container_mut(engine::current_container()) else {
            return failed(Reason::ShutDown);
        };
        if container.closing.is_requested() {
            return failed(Reason::ShutDown);
        }
        let entry = container.get_mut(service);
        if !matches!(entry.slot, Slot::Idle) || entry.was_used {
            return failed(Reason::ConfiguredTooLate);
        }
        let configured = entry
            .policy
            .get_or_insert_with(|| Box::new(service.policy.clone()));
        configured.merge(policy);
        Ok(())
    }

    /// Initializes all services in parallel, each as soon as its dependencies are ready.
    ///
    /// # Errors
    ///
    /// Returns [`StartError`] if a service or the `#[setup]` function fails. The report contains all failures;
    /// dependents of a failed service are skipped. The services that the call started are shut down, and can be started
    /// again.
    pub fn start_all(&self) -> Result<StartReport, StartError> {
        self.start_all_with(&StartOptions::default())
    }

    /// Initializes all services, like [`start_all`](Registry::start_all), with options.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub fn start_all_with(&self, options: &StartOptions) -> Result<StartReport, StartError> {
        start(&Context::current(), all().to_vec(), options, &Driver::Here)
    }

    /// Initializes all services, like [`start_all`](Registry::start_all), without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub async fn start_all_async(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            let options = StartOptions::default();
            start(&Context::current(), all().to_vec(), &options, driver)
        })
        .await
    }

    /// Initializes the `eager` services, the background services, and their dependencies.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub fn start_eager(&self) -> Result<StartReport, StartError> {
        start(
            &Context::current(),
            eager(),
            &StartOptions::default(),
            &Driver::Here,
        )
    }

    /// Initializes the same services as [`start_eager`](Registry::start_eager), without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub async fn start_eager_async(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            start(
                &Context::current(),
                eager(),
                &StartOptions::default(),
                driver,
            )
        })
        .await
    }

    /// Initializes one service and its dependencies.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub fn start<T: Requirement + ?Sized>(&self) -> Result<StartReport, StartError> {
        let services = vec![T::descriptor()];
        start(
            &Context::current(),
            services,
            &StartOptions::default(),
            &Driver::Here,
        )
    }

    /// Initializes one service and its dependencies, without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`start_all`](Registry::start_all).
    pub async fn start_async<T: Requirement + ?Sized>(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            let services = vec![T::descriptor()];
            start(
                &Context::current(),
                services,
                &StartOptions::default(),
                driver,
            )
        })
        .await
    }

    /// Calls `ping` of all ready services in parallel, and returns the health of all services.
    ///
    /// A check never runs on the calling thread. If the system refuses a thread for as long as the timeout, the service
    /// is unhealthy. A check that times out makes its service unhealthy. It keeps running, and no second check of the service starts
    /// until it has ended.
    pub fn ping_all(&self, options: &PingOptions) -> HealthReport {
        ping_all(&Context::current(), all().to_vec(), options, &Driver::Here)
    }

    /// Returns the health of all services, like [`ping_all`](Registry::ping_all), without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor. If a check has not ended when the
    /// report ends or is cancelled, the next report continues to poll it.
    pub async fn ping_all_async(&self, options: &PingOptions) -> HealthReport {
        let options = options.clone();
        off_thread(move |driver| ping_all(&Context::current(), all().to_vec(), &options, driver))
            .await
    }

    /// Shuts all services down in parallel, each after its dependents.
    ///
    /// From this call on, no service starts. Guarded calls then return [`ErrorKind::ShutDown`](crate::ErrorKind::ShutDown),
    /// also for services that were never used. The call waits for running initializations up to the timeout, and drops
    /// asynchronous ones that no task awaits. If two threads call it, the second call runs after the first.
    ///
    /// Calls in flight are not waited for, and instances are not dropped; see [`Service::shutdown`](crate::Service::shutdown).
    /// Values from `provide` are shut down too. If the system refuses a thread for as long as a service's timeout, the
    /// outcome is [`ShutdownOutcome::Failed`](crate::ShutdownOutcome::Failed).
    ///
    /// A service depends on the services that it requires, and on those that it initialized by using them. An
    /// undeclared use of a service that was ready already is not recorded, so declare each dependency with
    /// `#[requires]`.
    pub fn shutdown_all(&self) -> ShutdownReport {
        self.shutdown_all_with(&ShutdownOptions::default())
    }

    /// Shuts all services down, like [`shutdown_all`](Registry::shutdown_all), with options.
    pub fn shutdown_all_with(&self, options: &ShutdownOptions) -> ShutdownReport {
        shut_down(
            &Context::current(),
            ShutdownScope::All,
            options,
            &Driver::Here,
        )
    }

    /// Shuts all services down, like [`shutdown_all_with`](Registry::shutdown_all_with), without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor.
    pub async fn shutdown_all_async(&self, options: &ShutdownOptions) -> ShutdownReport {
        let options = options.clone();
        off_thread(move |driver| {
            shut_down(&Context::current(), ShutdownScope::All, &options, driver)
        })
        .await
    }

    /// Starts the `eager` services and the background services, waits for SIGINT or SIGTERM, and shuts all services
    /// down, each after its dependents. Unix only.
    ///
    /// A signal during the start ends the start. A second signal ends the process at once, with exit status 128 plus
    /// the signal's number. When the function returns, signals have their default action again.
    ///
    /// # Errors
    ///
    /// Returns [`RunError::Start`] if a service fails to start; then all services have been shut down. Returns
    /// [`RunError::Signals`] if the system refuses to deliver signals or to start a thread.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// use singleton_core::registry;
    ///
    /// fn main() -> Result<(), singleton_core::RunError> {
    ///     let report = registry().run_until_signal()?;
    ///     print!("{report}");
    ///     Ok(())
    /// }
    /// ```
    #[cfg(unix)]
    pub fn run_until_signal(&self) -> Result<ShutdownReport, RunError> {
        run_until_signal(eager(), &Driver::Here)
    }

    /// Runs an application, like [`run_until_signal`](Registry::run_until_signal), without blocking the thread.
    ///
    /// The calling task polls the asynchronous services, so they find its executor.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`run_until_signal`](Registry::run_until_signal).
    #[cfg(unix)]
    pub async fn run_until_signal_async(&self) -> Result<ShutdownReport, RunError> {
        off_thread(|driver| run_until_signal(eager(), driver)).await
    }
}

/// One service of the registry.
#[derive(Clone)]
pub struct ServiceInfo {
    pub(crate) descriptor: &'static Descriptor,
    pub(crate) state: State,
    pub(crate) own_time: Option<Duration>,
    pub(crate) tags: Cow<'static, [&'static str]>,
    /// The service that was bound to a trait object.
    pub(crate) bound: Option<&'static Descriptor>,
}

impl ServiceInfo {
    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub fn name(&self) -> &'static str {
        self.descriptor.name()
    }

    /// Returns the name of the struct with its crate and modules, such as `shop::orders::OrderService`.
    pub fn path(&self) -> &'static str {
        self.descriptor.path
    }

    /// Returns the topological level: 1 for a service without dependencies, otherwise one more than its dependencies'
    /// maximum.
    pub fn rank(&self) -> usize {
        self.descriptor.rank
    }

    /// Returns the names of the services that `#[requires]` lists, in that order. For a trait object, returns the
    /// service that is bound to it.
    pub fn dependencies(&self) -> Vec<&'static str> {
        self.requirements().map(Descriptor::name).collect()
    }

    /// Returns the services whose names [`dependencies`](Self::dependencies) returns.
    pub(crate) fn requirements(&self) -> impl Iterator<Item = &'static Descriptor> + use<> {
        self.descriptor.requirements().chain(self.bound)
    }

    /// Returns the tags of `#[service(tags(…))]` or of [`configure`](Registry::configure).
    pub fn tags(&self) -> &[&'static str] {
        &self.tags
    }

    /// Returns the duration of the service's last `initialize` and `ping`, without its dependencies. `None` before
    /// their end.
    pub fn own_time(&self) -> Option<Duration> {
        self.own_time
    }

    /// Returns the state of the service when it was listed.
    pub fn state(&self) -> State {
        self.state
    }
}

impl fmt::Debug for ServiceInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ServiceInfo")
            .field("path", &self.path())
            .field("rank", &self.rank())
            .field("dependencies", &self.dependencies())
            .field("state", &self.state)
            .finish()
    }
}

/// Returns all services that are linked into the program, in topological order.
fn all() -> &'static [&'static Descriptor] {
    static ALL: LazyLock<Vec<&'static Descriptor>> = LazyLock::new(|| {
        let mut found = HashSet::new();
        let mut pending: Vec<_> = inventory::iter::<Registration>
            .into_iter()
            .map(|registration| (registration.descriptor)())
            .collect();
        while let Some(service) = pending.pop() {
            if found.insert(service) {
                pending.extend(service.requirements());
            }
        }
        let mut services: Vec<_> = found.into_iter().collect();
        services.sort_by_key(|service| (service.rank, service.path));
        services
    });
    &ALL
}

/// Returns the services that an application starts at once.
fn eager() -> Vec<&'static Descriptor> {
    // First of all, because the function may make services eager. If it fails, the start reports that.
    let _ = ensure_setup(None);
    let id = engine::current_container();
    let engine = engine::lock();
    let container = engine.container(id);
    let starts = |service: &&'static Descriptor| {
        container.is_some_and(|container| container.starts_with_application(service))
    };
    all().iter().copied().filter(starts).collect()
}
