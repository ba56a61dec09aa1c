//! The error of a guarded call.

use std::error::Error as StdError;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// The reason why a guarded call did not reach its service.
///
/// The error is one word, so that a `Result` of it costs no more than the value. A clone is cheap: all callers that
/// waited for a failed initialization get the same error. Services appear with their declared name, and with as many
/// modules as it takes to tell two services of one name apart.
///
/// `Display` ends with the messages of the whole chain of causes, so [`source`](std::error::Error::source) returns
/// `None`; [`cause`](Error::cause) returns the user's own error.
///
/// # Examples
///
/// ```
/// use singleton_core::{ErrorKind, Service, service};
///
/// #[service]
/// struct Shop;
///
/// impl Service for Shop {
///     fn initialize() -> anyhow::Result<Self> {
///         let port: u16 = "http".parse()?;
///         anyhow::bail!("nothing listens on {port}")
///     }
/// }
///
/// let error = Shop::instance().err().expect("`http` is no number");
/// assert_eq!(error.kind(), ErrorKind::InitializationFailed);
/// assert_eq!(error.to_string(), "failed to initialize Shop: invalid digit found in string");
/// assert!(error.cause().is_some_and(|cause| cause.is::<std::num::ParseIntError>()));
/// ```
#[derive(Clone)]
pub struct Error(Arc<Failure>);

/// The kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// `initialize` of the service or of one of its dependencies returned an error.
    InitializationFailed,
    /// `ping` of the service or of one of its dependencies returned an error after `initialize`.
    PingFailed,
    /// `initialize` or `ping` of the service or of one of its dependencies panicked.
    Panicked,
    /// Services depend on each other while they initialize. At least one of these dependencies is not declared with
    /// `#[requires]`; if all were declared, the program would not compile.
    CircularDependency,
    /// `initialize` or `ping` of the service called one of its own guarded methods.
    SelfDependency,
    /// The service was not ready within its `init_timeout`. Its `initialize` keeps running: further calls fail at once
    /// until it ends, and if it succeeds, the service is ready.
    TimedOut,
    /// A blocking call needs the service or one of its dependencies to initialize asynchronously.
    NeedsAsync,
    /// The service was shut down. It does not start again.
    ShutDown,
    /// `provide` or `bind` was called after the service's first use.
    ProvidedTooLate,
    /// `provide` or `bind` was called twice.
    ProvidedTwice,
    /// [`configure`](crate::Registry::configure) was called after the service's first use.
    ConfiguredTooLate,
    /// The `#[setup]` function returned an error or panicked, so no service starts.
    SetupFailed,
    /// The program contains two `#[setup]` functions. Keep the attribute on one function that calls both.
    SeveralSetups,
    /// The `#[setup]` function used a service. It runs before all services.
    UsedInSetup,
    /// The call was outside all scopes after [`require_scope`](crate::testing::require_scope).
    OutsideScope,
}

#[derive(Clone)]
struct Failure {
    service: Option<&'static str>,
    because_of: Option<&'static str>,
    /// Whether the failed service was retried by its own policy.
    was_retried: bool,
    reason: Reason,
}

/// The kind, with its data.
#[derive(Clone)]
pub(crate) enum Reason {
    /// The error that `initialize` returned.
    InitializationFailed(Arc<anyhow::Error>),
    /// The error that `ping` returned.
    PingFailed(Arc<anyhow::Error>),
    /// The panic message.
    Panicked(Arc<str>),
    /// The services along the cycle. The first one appears again at the end.
    CircularDependency(Arc<[&'static str]>),
    SelfDependency,
    /// The `init_timeout`.
    TimedOut(Duration),
    NeedsAsync,
    ShutDown,
    ProvidedTooLate,
    ProvidedTwice,
    ConfiguredTooLate,
    /// The function, with its crate and modules, and its error.
    SetupFailed(&'static str, Arc<anyhow::Error>),
    /// Two functions, with their crates and modules.
    SeveralSetups(&'static str, &'static str),
    UsedInSetup,
    OutsideScope,
}

impl Error {
    /// Creates the error of a caller of `service`.
    pub(crate) fn new(service: &'static str, reason: Reason) -> Self {
        Self::create(Some(service), reason)
    }

    /// Creates an error that belongs to no service.
    pub(crate) fn of_setup(reason: Reason) -> Self {
        Self::create(None, reason)
    }

    #[cold]
    fn create(service: Option<&'static str>, reason: Reason) -> Self {
        Error(Arc::new(Failure {
            service,
            because_of: None,
            was_retried: false,
            reason,
        }))
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        match self.0.reason {
            Reason::InitializationFailed(_) => ErrorKind::InitializationFailed,
            Reason::PingFailed(_) => ErrorKind::PingFailed,
            Reason::Panicked(_) => ErrorKind::Panicked,
            Reason::CircularDependency(_) => ErrorKind::CircularDependency,
            Reason::SelfDependency => ErrorKind::SelfDependency,
            Reason::TimedOut(_) => ErrorKind::TimedOut,
            Reason::NeedsAsync => ErrorKind::NeedsAsync,
            Reason::ShutDown => ErrorKind::ShutDown,
            Reason::ProvidedTooLate => ErrorKind::ProvidedTooLate,
            Reason::ProvidedTwice => ErrorKind::ProvidedTwice,
            Reason::ConfiguredTooLate => ErrorKind::ConfiguredTooLate,
            Reason::SetupFailed(..) => ErrorKind::SetupFailed,
            Reason::SeveralSetups(..) => ErrorKind::SeveralSetups,
            Reason::UsedInSetup => ErrorKind::UsedInSetup,
            Reason::OutsideScope => ErrorKind::OutsideScope,
        }
    }

    /// Returns the service that was called. `None` for errors of the `#[setup]` function.
    pub fn service(&self) -> Option<&'static str> {
        self.0.service
    }

    /// Returns the dependency that failed, or `None` if [`service`](Error::service) itself failed.
    pub fn because_of(&self) -> Option<&'static str> {
        self.0.because_of
    }

    /// Returns the services along a cycle. The first service appears again at the end.
    ///
    /// `None` for all kinds but [`ErrorKind::CircularDependency`].
    pub fn cycle(&self) -> Option<&[&'static str]> {
        match &self.0.reason {
            Reason::CircularDependency(path) => Some(path),
            _ => None,
        }
    }

    /// Returns the `init_timeout` that was exceeded. `None` for all kinds but [`ErrorKind::TimedOut`].
    pub fn timeout(&self) -> Option<Duration> {
        match self.0.reason {
            Reason::TimedOut(limit) => Some(limit),
            _ => None,
        }
    }

    /// Returns the error that `initialize`, `ping` or the `#[setup]` function returned, for a downcast to its type.
    ///
    /// If the error has an [`anyhow::Context`], that is the cause, and its
    /// [`source`](std::error::Error::source) is the error below it.
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.0.reason {
            Reason::InitializationFailed(cause)
            | Reason::PingFailed(cause)
            | Reason::SetupFailed(_, cause) => Some(cause.as_ref().as_ref()),
            _ => None,
        }
    }

    /// Returns the error that `dependent` reports when its dependency failed with `self`.
    pub(crate) fn for_dependent(mut self, dependent: &'static str) -> Self {
        if matches!(
            self.0.reason,
            Reason::InitializationFailed(_)
                | Reason::PingFailed(_)
                | Reason::Panicked(_)
                | Reason::TimedOut(_)
                | Reason::NeedsAsync
        ) {
            let failure = Arc::make_mut(&mut self.0);
            failure.because_of = failure.because_of.or(failure.service);
            failure.service = Some(dependent);
        }
        self
    }

    /// Returns whether `initialize` or `ping` of a service returned an error, so that another attempt may succeed.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(
            self.0.reason,
            Reason::InitializationFailed(_) | Reason::PingFailed(_)
        )
    }

    /// Marks that the failed service was retried by its own policy.
    pub(crate) fn after_retries(mut self) -> Self {
        Arc::make_mut(&mut self.0).was_retried = true;
        self
    }

    /// Returns whether the failed service was retried by its own policy.
    pub(crate) fn was_retried(&self) -> bool {
        self.0.was_retried
    }

    /// Returns whether `service` itself failed, not one of its dependencies.
    pub(crate) fn is_of(&self, service: &str) -> bool {
        match self.0.reason {
            Reason::ShutDown => self.0.service == Some(service),
            _ => self.0.because_of.is_none(),
        }
    }

    /// Returns whether a service waits for itself, directly or through others.
    pub(crate) fn is_cycle(&self) -> bool {
        matches!(
            self.0.reason,
            Reason::CircularDependency(_) | Reason::SelfDependency
        )
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = format!("{:?}", self.kind());
        formatter
            .debug_tuple(&kind)
            .field(&self.to_string())
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure = &*self.0;
        // A text for errors of the set-up, which have no service.
        let service = failure.service.unwrap_or("the registry");
        if self.is_failed_initialization() {
            write!(formatter, "failed to initialize {service}")?;
            if let Some(cause) = failure.because_of {
                write!(formatter, " because of {cause}")?;
            }
            formatter.write_str(": ")?;
        }
        match &failure.reason {
            Reason::InitializationFailed(cause) => write_chain(formatter, cause.as_ref().as_ref()),
            Reason::PingFailed(cause) => {
                formatter.write_str("ping failed: ")?;
                write_chain(formatter, cause.as_ref().as_ref())
            }
            Reason::Panicked(message) => write!(formatter, "panicked: {message}"),
            Reason::TimedOut(limit) => write!(formatter, "not ready after {limit:?}"),
            Reason::NeedsAsync => {
                let asynchronous = failure.because_of.unwrap_or(service);
                write!(
                    formatter,
                    "{asynchronous} initializes asynchronously; await {service}::instance_async() first"
                )
            }
            Reason::CircularDependency(path) => {
                write!(formatter, "circular dependency: {}", path.join(" -> "))
            }
            Reason::SelfDependency => write!(
                formatter,
                "guarded method of {service} was called while {service} was initializing"
            ),
            Reason::ShutDown => write!(formatter, "{service} has been shut down"),
            Reason::ProvidedTooLate => write!(
                formatter,
                "{service} is in use already; provide it before its first use"
            ),
            Reason::ProvidedTwice => write!(formatter, "{service} has been provided already"),
            Reason::ConfiguredTooLate => write!(
                formatter,
                "{service} is in use already; configure it before its first use"
            ),
            Reason::SetupFailed(setup, cause) => {
                write!(formatter, "setup function {setup} failed: ")?;
                write_chain(formatter, cause.as_ref().as_ref())
            }
            Reason::SeveralSetups(first, second) => write!(
                formatter,
                "two setup functions: {first} and {second}; keep #[setup] on one of them"
            ),
            Reason::UsedInSetup => write!(
                formatter,
                "{service} was used in the setup function, which runs before any service"
            ),
            Reason::OutsideScope => write!(
                formatter,
                "{service} was called outside every scope, and require_scope() forbids that; run the call inside \
                 Scope::run, or pass it through ServiceContext::wrap"
            ),
        }
    }
}

impl Error {
    fn is_failed_initialization(&self) -> bool {
        matches!(
            self.0.reason,
            Reason::InitializationFailed(_)
                | Reason::PingFailed(_)
                | Reason::Panicked(_)
                | Reason::TimedOut(_)
                | Reason::NeedsAsync
        )
    }
}

// `Display` shows the causes, so there is no `source`: an error prints its cause or returns it, never both.
impl StdError for Error {}

/// Writes the messages of an error and its causes, each once.
///
/// An error that prints its cause and also returns it is common, so a message that the previous one ends with is
/// skipped.
pub(crate) fn write_chain(
    writer: &mut impl Write,
    error: &(dyn StdError + 'static),
) -> fmt::Result {
    let mut last = error.to_string();
    writer.write_str(&last)?;
    let mut next = error.source();
    while let Some(cause) = next {
        let message = cause.to_string();
        if !last.ends_with(&message) {
            write!(writer, ": {message}")?;
            last = message;
        }
        next = cause.source();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct PrintsItsCause(std::num::ParseIntError);

    impl fmt::Display for PrintsItsCause {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "no port: {}", self.0)
        }
    }

    impl StdError for PrintsItsCause {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn error_is_one_word() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn each_cause_is_written_once() {
        let cause = PrintsItsCause("x".parse::<u16>().expect_err("not a number"));
        let cause = anyhow::Error::new(cause).context("cannot listen");
        let error = Error::new("Shop", Reason::InitializationFailed(Arc::new(cause)));
        let error = error.for_dependent("Till");
        let text = "failed to initialize Till because of Shop: cannot listen: no port: invalid digit found in string";
        assert_eq!(error.to_string(), text);
        assert_eq!(format!("{error:#}"), text);
        assert_eq!(format!("{:#}", anyhow::Error::new(error.clone())), text);
        assert_eq!(
            format!("{error:?}"),
            format!("InitializationFailed({text:?})")
        );
        assert!(StdError::source(&error).is_none());
    }
}
