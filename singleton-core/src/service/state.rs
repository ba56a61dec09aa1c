//! What a service is doing, and how it fares.

use std::fmt;

use serde::Serialize;

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

/// How a service fares; the better comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Its `ping` found nothing wrong.
    Healthy,
    /// Nobody has used it yet; it is not started in order to be checked.
    NotStarted,
    /// It works, but not as it should: its `ping` returned [`Degraded`](crate::Degraded) or was slow, or
    /// its thread had to be started again within the last minute.
    Degraded,
    /// Its `ping` failed or did not answer, it could not be initialised, or not in time, its thread is not
    /// running, or it was shut down.
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

/// Returned as an error by [`Service::ping`](crate::Service::ping): the service works, but not as it should.
///
/// Such a service becomes ready all the same, with a warning in the log, and
/// [`ping_all`](crate::Registry::ping_all) reports it as degraded.
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
    /// Says what is not as it should be.
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
