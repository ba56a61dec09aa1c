//! The state and the health of a service.

use std::fmt;

use serde::Serialize;

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// The service was not used yet, or its last initialization failed.
    Uninitialized,
    /// The service or one of its dependencies is initializing.
    Initializing,
    /// The service was initialized and checked.
    Ready,
    /// The service was shut down. Calls return [`ErrorKind::ShutDown`](crate::ErrorKind::ShutDown).
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

/// The health of a service, ordered from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// `ping` succeeded.
    Healthy,
    /// The service was not used yet. A health check does not start it.
    NotStarted,
    /// The service works with restrictions: `ping` returned [`Degraded`](crate::Degraded) or was slow, or
    /// its background thread was restarted within the last minute.
    Degraded,
    /// `ping` failed or timed out, the initialization failed or timed out, the background thread is not
    /// running, or the service was shut down.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Health::Healthy => "healthy",
            Health::NotStarted => "not started",
            Health::Degraded => "degraded",
            Health::Unhealthy => "unhealthy",
        })
    }
}

/// An error for [`Service::ping`](crate::Service::ping): the service works with restrictions.
///
/// The service becomes ready, with a warning in the log, and [`ping_all`](crate::Registry::ping_all) reports it as
/// degraded.
///
/// # Examples
///
/// ```
/// use singleton_core::{Degraded, Service, service};
///
/// #[service]
/// struct Replica {
///     lag_seconds: u32,
/// }
///
/// impl Service for Replica {
///     fn initialize() -> anyhow::Result<Self> {
///         Ok(Replica { lag_seconds: 90 })
///     }
///
///     fn ping(&self) -> anyhow::Result<()> {
///         if self.lag_seconds > 60 {
///             return Err(Degraded::because(format!("{} s behind", self.lag_seconds)).into());
///         }
///         Ok(())
///     }
/// }
///
/// assert!(Replica::instance().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    reason: String,
}

impl Degraded {
    /// Creates the error with its reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Degraded {
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Degraded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.reason)
    }
}

impl std::error::Error for Degraded {}
