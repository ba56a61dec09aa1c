//! An application's life: starts services, checks their health, shuts them down, runs until a signal.

mod health;
mod shutdown;
#[cfg(unix)]
mod signals;
mod start;
mod start_report;

pub(crate) use health::ping_all;
pub use health::{HealthReport, PingOptions, ServiceHealth};
pub use shutdown::{ServiceShutdown, ShutdownOptions, ShutdownOutcome, ShutdownReport};
pub(crate) use shutdown::{ShutdownScope, has_something_to_shut_down, shut_down};
#[cfg(unix)]
pub use signals::RunError;
#[cfg(unix)]
pub(crate) use signals::run_until_signal;
pub use start::StartOptions;
pub(crate) use start::start;
pub use start_report::{ServiceStart, StartError, StartOutcome, StartReport, Waterfall};
