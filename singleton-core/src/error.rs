//! Why a service could not be used.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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
        /// The services along the cycle; the last is the first again.
        path: Arc<[&'static str]>,
    },
    /// `initialize` or `ping` of the service called one of its own guarded methods.
    #[non_exhaustive]
    SelfDependency {
        /// The service.
        service: &'static str,
    },
    /// The service was not ready within its `init_timeout`. An `initialize` that is still running is left
    /// to itself: if it succeeds after all the service is ready, and until it ends further calls fail at once.
    #[non_exhaustive]
    TimedOut {
        /// The service that was to be used.
        service: &'static str,
        /// The required service that had not ended, if it was not `service` itself.
        because_of: Option<&'static str>,
        /// The `init_timeout`.
        limit: Duration,
    },
    /// The service, or one that it requires, initialises asynchronously, and the call was not `async`.
    #[non_exhaustive]
    NeedsAsync {
        /// The service that was to be used.
        service: &'static str,
        /// The required service that initialises asynchronously, if it was not `service` itself.
        because_of: Option<&'static str>,
    },
    /// `provide` or `bind` came when the service was in use already.
    #[non_exhaustive]
    ProvidedTooLate {
        /// The service.
        service: &'static str,
    },
    /// `provide` or `bind` came a second time.
    #[non_exhaustive]
    ProvidedTwice {
        /// The service.
        service: &'static str,
    },
    /// The function with `#[setup]` returned an error or panicked; no service starts without it.
    #[non_exhaustive]
    SetupFailed {
        /// The function, with its crate and modules.
        setup: &'static str,
        /// What it returned.
        cause: Arc<anyhow::Error>,
    },
    /// Two crates of the program have a function with `#[setup]`; which comes first is for a third to say.
    #[non_exhaustive]
    SeveralSetups {
        /// One function, with its crate and modules.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// The function with `#[setup]` used a service; it runs before any.
    #[non_exhaustive]
    UsedInSetup {
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
    /// The same failure as seen by `dependent`, which needed the service that failed.
    pub(crate) fn for_dependent(mut self, dependent: &'static str) -> Self {
        if let Error::InitializationFailed {
            service,
            because_of,
            ..
        }
        | Error::PingFailed {
            service,
            because_of,
            ..
        }
        | Error::Panicked {
            service,
            because_of,
            ..
        }
        | Error::TimedOut {
            service,
            because_of,
            ..
        }
        | Error::NeedsAsync {
            service,
            because_of,
        } = &mut self
        {
            because_of.get_or_insert(*service);
            *service = dependent;
        }
        self
    }

    /// Tells whether the service's own `initialize` or `ping` returned an error.
    pub(crate) fn is_own_failure(&self) -> bool {
        matches!(
            self,
            Error::InitializationFailed {
                because_of: None,
                ..
            } | Error::PingFailed {
                because_of: None,
                ..
            }
        )
    }

    /// Tells whether `service` failed of itself, not of one that it required.
    pub(crate) fn is_of(&self, service: &str) -> bool {
        match self {
            Error::InitializationFailed { because_of, .. }
            | Error::PingFailed { because_of, .. }
            | Error::Panicked { because_of, .. }
            | Error::TimedOut { because_of, .. }
            | Error::NeedsAsync { because_of, .. } => because_of.is_none(),
            Error::ShutDown { service: shut_down } => *shut_down == service,
            _ => true,
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
            Error::TimedOut {
                service,
                because_of,
                limit,
            } => {
                write_failed(formatter, service, *because_of)?;
                write!(formatter, "not ready after {limit:?}")
            }
            Error::NeedsAsync {
                service,
                because_of,
            } => {
                let asynchronous = because_of.unwrap_or(service);
                write_failed(formatter, service, *because_of)?;
                write!(
                    formatter,
                    "{asynchronous} initializes asynchronously; await {service}::instance_async() first"
                )
            }
            Error::ProvidedTooLate { service } => write!(
                formatter,
                "{service} is in use already; provide it before its first use"
            ),
            Error::ProvidedTwice { service } => {
                write!(formatter, "{service} has been provided already")
            }
            Error::SetupFailed { setup, cause } => {
                write!(formatter, "setup function {setup} failed: ")?;
                write_cause(formatter, cause)
            }
            Error::SeveralSetups { first, second } => write!(
                formatter,
                "two setup functions: {first} and {second}; keep #[setup] on one of them"
            ),
            Error::UsedInSetup { service } => write!(
                formatter,
                "{service} was used in the setup function, which runs before any service"
            ),
            Error::ShutDown { service } => write!(formatter, "{service} has been shut down"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::InitializationFailed { cause, .. }
            | Error::PingFailed { cause, .. }
            | Error::SetupFailed { cause, .. } => Some(cause.as_ref().as_ref()),
            _ => None,
        }
    }
}

fn write_failed(
    formatter: &mut fmt::Formatter<'_>,
    service: &str,
    because_of: Option<&str>,
) -> fmt::Result {
    write!(formatter, "failed to initialize {service}")?;
    if let Some(cause) = because_of {
        write!(formatter, " because of {cause}")?;
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
