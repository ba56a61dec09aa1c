//! One service as the registry lists it.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::descriptor::Descriptor;

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

/// What a service is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
