//! The answer of a `ping` between well and broken.

use std::fmt;

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
