#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

mod asynchronous;
mod attempt;
mod background;
mod by_service;
mod check;
mod context;
mod crew;
mod degraded;
mod demand;
mod descriptor;
mod driver;
mod dynamic;
mod engine;
pub mod env;
mod error;
mod escaped;
mod fault;
mod graph;
mod health;
mod health_report;
mod initialization;
#[cfg(all(test, loom))]
mod model;
mod plan;
mod policy;
#[cfg(all(test, not(loom)))]
mod random_graphs;
mod ready;
mod realm;
mod registry;
mod release;
mod service;
mod service_info;
mod setup;
mod shutdown;
mod shutdown_options;
mod shutdown_report;
#[cfg(unix)]
mod signals;
mod start;
mod start_error;
mod start_report;
mod stop;
mod sync;
mod table;
pub mod testing;
mod watch;

#[doc(hidden)]
pub mod __private;

pub use degraded::Degraded;
pub use error::Error;
pub use graph::{Graph, GraphService};
pub use health::PingOptions;
pub use health_report::{Health, HealthReport, ServiceHealth};
pub use registry::{Registry, registry};
pub use service::{AsyncService, BackgroundService, Requirement, Service, Singleton};
pub use service_info::{ServiceInfo, State};
pub use shutdown_options::ShutdownOptions;
pub use shutdown_report::{ServiceShutdown, ShutdownOutcome, ShutdownReport};
#[cfg(unix)]
pub use signals::RunError;
pub use singleton_macros::{guarded, requires, service, setup};
pub use start::StartOptions;
pub use start_error::StartError;
pub use start_report::{ServiceStart, StartOutcome, StartReport, Waterfall};
pub use stop::Stop;
