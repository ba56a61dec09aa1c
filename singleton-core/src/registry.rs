//! The services linked into the program.

use std::collections::HashSet;
use std::fmt;

use crate::descriptor::{Descriptor, Registration};
use crate::engine;

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
        let realm = engine::current_realm();
        let engine = engine::lock();
        let mut services: Vec<_> = found
            .into_iter()
            .map(|descriptor| ServiceInfo {
                descriptor,
                state: engine.state(realm, descriptor),
            })
            .collect();
        services.sort_by_key(|service| (service.rank(), service.path()));
        services
    }
}

/// One service as the registry knows it.
#[derive(Clone, Copy)]
pub struct ServiceInfo {
    descriptor: &'static Descriptor,
    state: State,
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

    /// The names of the services listed in `#[requires]`, in that order.
    pub fn dependencies(&self) -> Vec<&'static str> {
        self.descriptor
            .requirements()
            .map(|requirement| requirement.name)
            .collect()
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

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Nobody has used it yet, or the last attempt to initialise it failed.
    Uninitialized,
    /// It, or a service that it requires, is being initialised.
    Initializing,
    /// It was initialised and checked.
    Ready,
    /// It was shut down, and calls get [`Error::ShutDown`](crate::Error::ShutDown).
    ShutDown,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            State::Uninitialized => "uninitialized",
            State::Initializing => "initializing",
            State::Ready => "ready",
            State::ShutDown => "shut down",
        })
    }
}
