//! Why a service could not be used.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// Why a guarded call did not reach its service.
///
/// Cheap to clone: everyone who waited for a failed initialisation gets the same error. Services are
/// named as declared, without their modules. The text ends with that of the cause; `{:#}` adds the causes of the
/// cause, which [`source`](std::error::Error::source) leads to as well.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// `initialize` of the service, or of one that it requires, returned an error.
    #[non_exhaustive]
    InitializationFailed {
        /// The service that was to be used.
        service: &'static str,
        /// The required service that failed, if it was not `service` itself.
        because_of: Option<&'static str>,
        /// What `initialize` returned.
        cause: Arc<anyhow::Error>,
    },
    /// `ping` of the service, or of one that it requires, returned an error after `initialize`.
    #[non_exhaustive]
    PingFailed {
        /// The service that was to be used.
        service: &'static str,
        /// The required service that failed, if it was not `service` itself.
        because_of: Option<&'static str>,
        /// What `ping` returned.
        cause: Arc<anyhow::Error>,
    },
    /// `initialize` or `ping` of the service, or of one that it requires, panicked.
    #[non_exhaustive]
    Panicked {
        /// The service that was to be used.
        service: &'static str,
        /// The required service that panicked, if it was not `service` itself.
        because_of: Option<&'static str>,
        /// The message of the panic.
        message: Arc<str>,
    },
    /// Services need each other while they initialise; at least one of the uses is not declared with
    /// `#[requires]`, or the program would not have compiled.
    #[non_exhaustive]
    CircularDependency {
        /// The services along the circle; the last is the first again.
        path: Arc<[&'static str]>,
    },
    /// `initialize` or `ping` of the service called one of its own guarded methods.
    #[non_exhaustive]
    SelfDependency {
        /// The service.
        service: &'static str,
    },
    /// The service was shut down and does not start again.
    #[non_exhaustive]
    ShutDown {
        /// The service.
        service: &'static str,
    },
}

impl Error {
    /// Names the service whose own initialisation failed, for failures that have one.
    fn culprit(service: &'static str, because_of: Option<&'static str>) -> Option<&'static str> {
        Some(because_of.unwrap_or(service))
    }

    /// The same failure as seen by `dependent`, which needed the service that failed.
    pub(crate) fn for_dependent(self, dependent: &'static str) -> Self {
        match self {
            Error::InitializationFailed {
                service,
                because_of,
                cause,
            } => Error::InitializationFailed {
                service: dependent,
                because_of: Self::culprit(service, because_of),
                cause,
            },
            Error::PingFailed {
                service,
                because_of,
                cause,
            } => Error::PingFailed {
                service: dependent,
                because_of: Self::culprit(service, because_of),
                cause,
            },
            Error::Panicked {
                service,
                because_of,
                message,
            } => Error::Panicked {
                service: dependent,
                because_of: Self::culprit(service, because_of),
                message,
            },
            Error::CircularDependency { .. }
            | Error::SelfDependency { .. }
            | Error::ShutDown { .. } => self,
        }
    }

    /// Tells whether services were found to wait for themselves.
    pub(crate) fn is_cycle(&self) -> bool {
        matches!(
            self,
            Error::CircularDependency { .. } | Error::SelfDependency { .. }
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::InitializationFailed {
                service,
                because_of,
                cause,
            } => {
                write_failed(formatter, service, *because_of)?;
                write_cause(formatter, cause)
            }
            Error::PingFailed {
                service,
                because_of,
                cause,
            } => {
                write_failed(formatter, service, *because_of)?;
                formatter.write_str("ping failed: ")?;
                write_cause(formatter, cause)
            }
            Error::Panicked {
                service,
                because_of,
                message,
            } => {
                write_failed(formatter, service, *because_of)?;
                write!(formatter, "panicked: {message}")
            }
            Error::CircularDependency { path } => {
                write!(formatter, "circular dependency: {}", path.join(" -> "))
            }
            Error::SelfDependency { service } => {
                write!(
                    formatter,
                    "guarded method of {service} was called while {service} was initializing"
                )
            }
            Error::ShutDown { service } => write!(formatter, "{service} has been shut down"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::InitializationFailed { cause, .. } | Error::PingFailed { cause, .. } => {
                Some(cause.as_ref().as_ref())
            }
            Error::Panicked { .. }
            | Error::CircularDependency { .. }
            | Error::SelfDependency { .. }
            | Error::ShutDown { .. } => None,
        }
    }
}

fn write_failed(
    formatter: &mut fmt::Formatter<'_>,
    service: &str,
    because_of: Option<&str>,
) -> fmt::Result {
    write!(formatter, "failed to initialize {service}")?;
    if let Some(culprit) = because_of {
        write!(formatter, " because of {culprit}")?;
    }
    formatter.write_str(": ")
}

/// `{:#}` follows the cause down to its root, as it does for `anyhow::Error`.
fn write_cause(formatter: &mut fmt::Formatter<'_>, cause: &anyhow::Error) -> fmt::Result {
    if formatter.alternate() {
        write!(formatter, "{cause:#}")
    } else {
        write!(formatter, "{cause}")
    }
}
