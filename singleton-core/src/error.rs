//! The error of a guarded call.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The reason why a guarded call did not reach its service.
///
/// A clone is cheap: all callers that waited for a failed initialization get the same error. Services appear with their
/// declared name, without modules. `Display` ends with the cause's message, and `{:#}` adds the causes of the cause,
/// which [`source`](std::error::Error::source) returns too.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// `initialize` of the service or of one of its dependencies returned an error.
    #[non_exhaustive]
    InitializationFailed {
        /// The service that was called.
        service: &'static str,
        /// The dependency that failed, or `None` if `service` itself failed.
        because_of: Option<&'static str>,
        /// The error that `initialize` returned.
        cause: Arc<anyhow::Error>,
    },
    /// `ping` of the service or of one of its dependencies returned an error after `initialize`.
    #[non_exhaustive]
    PingFailed {
        /// The service that was called.
        service: &'static str,
        /// The dependency that failed, or `None` if `service` itself failed.
        because_of: Option<&'static str>,
        /// The error that `ping` returned.
        cause: Arc<anyhow::Error>,
    },
    /// `initialize` or `ping` of the service or of one of its dependencies panicked.
    #[non_exhaustive]
    Panicked {
        /// The service that was called.
        service: &'static str,
        /// The dependency that panicked, or `None` if `service` itself panicked.
        because_of: Option<&'static str>,
        /// The panic message.
        message: Arc<str>,
    },
    /// Services depend on each other while they initialize. At least one of these dependencies is not declared with
    /// `#[requires]`; if all were declared, the program would not compile.
    #[non_exhaustive]
    CircularDependency {
        /// The services along the cycle. The first service appears again at the end.
        path: Arc<[&'static str]>,
    },
    /// `initialize` or `ping` of the service called one of its own guarded methods.
    #[non_exhaustive]
    SelfDependency {
        /// The service.
        service: &'static str,
    },
    /// The service was not ready within its `init_timeout`. Its `initialize` keeps running: further calls fail at once
    /// until it ends, and if it succeeds, the service is ready.
    #[non_exhaustive]
    TimedOut {
        /// The service that was called.
        service: &'static str,
        /// The dependency that was not ready, or `None` if it was `service` itself.
        because_of: Option<&'static str>,
        /// The `init_timeout`.
        limit: Duration,
    },
    /// A blocking call needs the service or one of its dependencies to initialize asynchronously.
    #[non_exhaustive]
    NeedsAsync {
        /// The service that was called.
        service: &'static str,
        /// The dependency that initializes asynchronously, or `None` if it is `service` itself.
        because_of: Option<&'static str>,
    },
    /// `provide` or `bind` was called after the service's first use.
    #[non_exhaustive]
    ProvidedTooLate {
        /// The service.
        service: &'static str,
    },
    /// `provide` or `bind` was called twice.
    #[non_exhaustive]
    ProvidedTwice {
        /// The service.
        service: &'static str,
    },
    /// The `#[setup]` function returned an error or panicked, so no service starts.
    #[non_exhaustive]
    SetupFailed {
        /// The function, with its crate and modules.
        setup: &'static str,
        /// The error that it returned.
        cause: Arc<anyhow::Error>,
    },
    /// The program contains two `#[setup]` functions. Keep the attribute on one function that calls both.
    #[non_exhaustive]
    SeveralSetups {
        /// One function, with its crate and modules.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// The `#[setup]` function used a service. It runs before all services.
    #[non_exhaustive]
    UsedInSetup {
        /// The service.
        service: &'static str,
    },
    /// The service was shut down. It does not start again.
    #[non_exhaustive]
    ShutDown {
        /// The service.
        service: &'static str,
    },
}

impl Error {
    /// Returns the error that `dependent` reports when its dependency failed with `self`.
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

    /// Returns whether the service's own `initialize` or `ping` returned an error.
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

    /// Returns whether `service` itself failed, not one of its dependencies.
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

    /// Returns whether a service waits for itself, directly or through others.
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

/// Writes the cause; with `{:#}`, its whole chain, as `anyhow::Error` does.
fn write_cause(formatter: &mut fmt::Formatter<'_>, cause: &anyhow::Error) -> fmt::Result {
    if formatter.alternate() {
        write!(formatter, "{cause:#}")
    } else {
        write!(formatter, "{cause}")
    }
}
