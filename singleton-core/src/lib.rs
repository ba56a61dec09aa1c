#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

// The attributes refer to the crate by this name, also in its unit tests.
#[cfg(test)]
extern crate self as singleton_core;

mod application;
mod context;
mod engine;
pub mod env;
mod error;
mod escaped;
mod init;
mod invoke;
mod panics;
mod registry;
mod service;
mod sync;
mod telemetry;
pub mod testing;
mod text_table;
mod threads;

#[doc(hidden)]
pub mod __private;

#[cfg(unix)]
pub use application::RunError;
pub use application::{
    HealthReport, PingOptions, ServiceHealth, ServiceShutdown, ServiceStart, ShutdownOptions,
    ShutdownOutcome, ShutdownReport, StartError, StartOptions, StartOutcome, StartReport,
    Waterfall,
};
pub use context::ServiceContext;
pub use error::{Error, ErrorKind};
pub use registry::{Graph, GraphService, Registry, ServiceInfo, registry};
pub use service::{
    AsyncService, BackgroundService, Degraded, Health, Policy, Requirement, Retry, Service,
    Singleton, State, Stop,
};
pub use singleton_macros::{guarded, requires, service, setup};

#[cfg(test)]
mod tests {
    #[cfg(not(loom))]
    mod deep_graphs;
    #[cfg(loom)]
    mod loom;
    #[cfg(not(loom))]
    mod random_graphs;
}
