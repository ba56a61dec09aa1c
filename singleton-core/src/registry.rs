//! The services linked into the program.

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
use crate::engine;
use crate::invoke::{Driver, off_thread};
use crate::service::{Descriptor, Registration, Requirement, State};

mod graph;

pub use graph::{Graph, GraphService};

/// The services linked into the program, registered by `#[service]` alone; see [`registry`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Registry {}

/// Returns the registry of all services linked into the program.
///
/// A crate that nothing refers to is not linked, and so are its services not.
///
/// # Examples
///
/// ```
/// use singleton_core::{Service, State, registry, requires, service};
///
/// #[service]
/// struct Engine;
///
/// #[service]
/// #[requires(Engine)]
/// struct Car;
/// # impl Service for Engine { fn initialize() -> anyhow::Result<Self> { Ok(Engine) } }
/// # impl Service for Car { fn initialize() -> anyhow::Result<Self> { Ok(Car) } }
///
/// let services = registry().services();
/// let car = services.iter().find(|service| service.name() == "Car").expect("it is linked");
/// assert_eq!(car.rank(), 2);
/// assert_eq!(car.dependencies(), ["Engine"]);
/// assert_eq!(car.state(), State::Uninitialized);
/// ```
pub fn registry() -> Registry {
    Registry {}
}

impl Registry {
    /// Lists the services, each after all that it requires; within a rank by their paths.
    ///
    /// The states are those of the moment, in the caller's [`Scope`](crate::testing::Scope) if it is in one.
    pub fn services(&self) -> Vec<ServiceInfo> {
        let id = engine::current_container();
        let engine = engine::lock();
        let container = engine.container(id);
        let info = |descriptor: &'static Descriptor| ServiceInfo {
            descriptor,
            state: engine.state(id, descriptor),
            own_time: container
                .and_then(|container| Some(container.get(descriptor)?.timing?.own_time)),
            bound: container.and_then(|container| {
                container
                    .requirements(descriptor)
                    .nth(descriptor.requirements.len())
            }),
        };
        all().iter().copied().map(info).collect()
    }

    /// Returns the services and what they require, to be printed as a text tree or in other formats.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::registry;
    ///
    /// let graph = registry().graph();
    /// println!("{graph}");
    /// std::fs::write(std::env::temp_dir().join("services.dot"), graph.to_dot())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn graph(&self) -> Graph {
        Graph::new(&self.services())
    }

    /// Initialises every service linked into the program, each as soon as what it requires is ready.
    ///
    /// # Errors
    ///
    /// Services failed: all of them are in the report, and those behind them are skipped. What the call
    /// had started is shut down again, and can be started anew.
    pub fn start_all(&self) -> Result<StartReport, StartError> {
        self.start_all_with(&StartOptions::default())
    }

    /// The same with options.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub fn start_all_with(&self, options: &StartOptions) -> Result<StartReport, StartError> {
        start(
            engine::current_container(),
            all().to_vec(),
            options,
            &Driver::Here,
        )
    }

    /// The same for a task, whose executor drives the asynchronous services.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub async fn start_all_async(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            let options = StartOptions::default();
            start(
                engine::current_container(),
                all().to_vec(),
                &options,
                driver,
            )
        })
        .await
    }

    /// Initialises the services that are marked `eager`, the background services, and all they require.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub fn start_eager(&self) -> Result<StartReport, StartError> {
        start(
            engine::current_container(),
            eager(),
            &StartOptions::default(),
            &Driver::Here,
        )
    }

    /// The same for a task, whose executor drives the asynchronous services.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub async fn start_eager_async(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            start(
                engine::current_container(),
                eager(),
                &StartOptions::default(),
                driver,
            )
        })
        .await
    }

    /// Initialises one service and all it requires.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub fn start<T: Requirement + ?Sized>(&self) -> Result<StartReport, StartError> {
        let services = vec![T::descriptor()];
        start(
            engine::current_container(),
            services,
            &StartOptions::default(),
            &Driver::Here,
        )
    }

    /// The same for a task, whose executor drives the asynchronous services.
    ///
    /// # Errors
    ///
    /// As [`start_all`](Registry::start_all).
    pub async fn start_async<T: Requirement + ?Sized>(&self) -> Result<StartReport, StartError> {
        off_thread(|driver| {
            let services = vec![T::descriptor()];
            start(
                engine::current_container(),
                services,
                &StartOptions::default(),
                driver,
            )
        })
        .await
    }

    /// Checks the services that are ready, several at once, and reports on all.
    ///
    /// A check that does not answer in time makes its service unhealthy; it goes on by itself, and until
    /// it has ended no second one is begun.
    pub fn ping_all(&self, options: &PingOptions) -> HealthReport {
        ping_all(
            engine::current_container(),
            all().to_vec(),
            options,
            &Driver::Here,
        )
    }

    /// The same for a task, whose executor drives the asynchronous services.
    ///
    /// A check that has not ended with the report, or whose report was cancelled, is not polled until the
    /// next report takes it up.
    pub async fn ping_all_async(&self, options: &PingOptions) -> HealthReport {
        let options = options.clone();
        off_thread(move |driver| {
            ping_all(
                engine::current_container(),
                all().to_vec(),
                &options,
                driver,
            )
        })
        .await
    }

    /// Shuts every service down as soon as nothing that holds on to it is left, several at once.
    ///
    /// From the call on nothing starts any more, and afterwards guarded calls give
    /// [`Error::ShutDown`](crate::Error::ShutDown), of services that nobody has used as well. Initialisations
    /// that are going on are waited for within the time limit, asynchronous ones that no task awaits are
    /// dropped. Of two calls at once the second begins when the first has ended.
    ///
    /// A service holds on to what it requires and to what it was first to use while it was initialised; that
    /// it used something undeclared that was ready already cannot be seen, so declare it.
    pub fn shutdown_all(&self) -> ShutdownReport {
        self.shutdown_all_with(&ShutdownOptions::default())
    }

    /// The same with options.
    pub fn shutdown_all_with(&self, options: &ShutdownOptions) -> ShutdownReport {
        shut_down(
            engine::current_container(),
            ShutdownScope::All,
            options,
            &Driver::Here,
        )
    }

    /// The same for a task, whose executor drives the asynchronous services.
    pub async fn shutdown_all_async(&self, options: &ShutdownOptions) -> ShutdownReport {
        let options = options.clone();
        off_thread(move |driver| {
            shut_down(
                engine::current_container(),
                ShutdownScope::All,
                &options,
                driver,
            )
        })
        .await
    }

    /// Starts the `eager` services and the background services, and runs until SIGINT or SIGTERM; then
    /// shuts all services down, each before what it requires. Unix only.
    ///
    /// A signal during the start ends the start. A second signal ends the process at once, with the exit
    /// status 128 + its number. If a service fails to start, all services are shut down at once. When the
    /// function has returned, signals have their default action.
    ///
    /// # Errors
    ///
    /// A service failed to start, or signals cannot be received.
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

    /// The same for a task, whose executor drives the asynchronous services.
    ///
    /// # Errors
    ///
    /// As [`run_until_signal`](Registry::run_until_signal).
    #[cfg(unix)]
    pub async fn run_until_signal_async(&self) -> Result<ShutdownReport, RunError> {
        off_thread(|driver| run_until_signal(eager(), driver)).await
    }
}

/// One service as the registry knows it.
#[derive(Clone, Copy)]
pub struct ServiceInfo {
    pub(crate) descriptor: &'static Descriptor,
    pub(crate) state: State,
    pub(crate) own_time: Option<Duration>,
    /// The service that was bound to a trait object.
    pub(crate) bound: Option<&'static Descriptor>,
}

impl ServiceInfo {
    /// The name of the struct.
    pub fn name(&self) -> &'static str {
        self.descriptor.name
    }

    /// The name of the struct with its crate and modules, such as `shop::orders::OrderService`.
    pub fn path(&self) -> &'static str {
        self.descriptor.path
    }

    /// The topological level: 1 without requirements, else one more than the highest among them.
    pub fn rank(&self) -> usize {
        self.descriptor.rank
    }

    /// The names of the services listed in `#[requires]`, in that order; of a trait object that of the service
    /// bound to it.
    pub fn dependencies(&self) -> Vec<&'static str> {
        self.requirements()
            .map(|requirement| requirement.name)
            .collect()
    }

    /// The same services.
    pub(crate) fn requirements(&self) -> impl Iterator<Item = &'static Descriptor> + use<> {
        self.descriptor.requirements().chain(self.bound)
    }

    /// The tags of its `#[service(tags(…))]`.
    pub fn tags(&self) -> &'static [&'static str] {
        self.descriptor.policy.tags
    }

    /// How long its own `initialize` and `ping` took the last time; none if that has not ended yet.
    pub fn own_time(&self) -> Option<Duration> {
        self.own_time
    }

    /// What the service was doing when it was listed.
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

/// Every service linked into the program, each after all that it requires.
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

/// The services that start with an application.
fn eager() -> Vec<&'static Descriptor> {
    let starts = |service: &&Descriptor| service.starts_with_application();
    all().iter().copied().filter(starts).collect()
}
