//! The policies of services: the arguments of `#[service(…)]`, and what `configure` replaces.

use std::borrow::Cow;
use std::time::Duration;

use backon::BackoffBuilder;

/// The timeout of a service's shutdown if neither its `#[service(…)]` nor the options of the shutdown set one.
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The policy of one service: the arguments of its `#[service(…)]`, and what `configure` has replaced.
#[derive(Debug, Clone)]
pub struct ServicePolicy {
    /// The retries of a failed initialization.
    pub retry: Option<Retry>,
    /// The maximum time that a caller waits for the service, its dependencies included.
    pub init_timeout: Option<Duration>,
    /// The maximum time of `shutdown` before other services shut down without waiting for it.
    pub shutdown_timeout: Option<Duration>,
    /// Whether `start_eager` starts the service.
    pub eager: bool,
    /// The service's groups, for `ping_all`.
    pub tags: Cow<'static, [&'static str]>,
}

impl ServicePolicy {
    /// The policy of `#[service]` without arguments.
    pub const DEFAULT: ServicePolicy = ServicePolicy {
        retry: None,
        init_timeout: None,
        shutdown_timeout: None,
        eager: false,
        tags: Cow::Borrowed(&[]),
    };

    /// Replaces what `policy` sets.
    pub(crate) fn merge(&mut self, policy: Policy) {
        self.retry = policy.retry.or(self.retry);
        self.init_timeout = policy.init_timeout.or(self.init_timeout);
        self.shutdown_timeout = policy.shutdown_timeout.or(self.shutdown_timeout);
        self.eager |= policy.eager;
        if let Some(tags) = policy.tags {
            self.tags = Cow::Owned(tags);
        }
    }
}

/// A service's policy for [`configure`](crate::Registry::configure), in place of arguments of its `#[service(…)]`.
///
/// What a policy does not set keeps the value of the attribute.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use singleton_core::{Policy, Retry, Service, registry, service};
///
/// #[service]
/// struct Mailer;
/// # impl Service for Mailer { fn initialize() -> anyhow::Result<Self> { Ok(Mailer) } }
///
/// let retry = Retry::new(5).initial(Duration::from_millis(200)).max(Duration::from_secs(10));
/// registry().configure::<Mailer>(Policy::new().retry(retry).eager().tags(["readiness"]))?;
/// # Ok::<(), singleton_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Policy {
    retry: Option<Retry>,
    init_timeout: Option<Duration>,
    shutdown_timeout: Option<Duration>,
    eager: bool,
    tags: Option<Vec<&'static str>>,
}

impl Policy {
    /// Creates a policy that sets nothing.
    pub fn new() -> Self {
        Policy::default()
    }

    /// Sets the retries of a failed initialization. Default: none.
    ///
    /// A service without retries of its own is retried as its dependent demands: a service with retries never fails
    /// sooner because it declares a dependency.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Sets the maximum time that a caller waits for the service, its dependencies included. Default: no limit.
    pub fn init_timeout(mut self, timeout: Duration) -> Self {
        self.init_timeout = Some(timeout);
        self
    }

    /// Sets the maximum time of `shutdown` before other services shut down without waiting for it. Default: that of
    /// [`ShutdownOptions`](crate::ShutdownOptions).
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = Some(timeout);
        self
    }

    /// Makes the service start with the application. Default: it starts on first use.
    pub fn eager(mut self) -> Self {
        self.eager = true;
        self
    }

    /// Sets the service's groups for health reports, in place of those of the attribute. Default: none.
    pub fn tags(mut self, tags: impl IntoIterator<Item = &'static str>) -> Self {
        self.tags = Some(tags.into_iter().collect());
        self
    }
}

/// The retries of a failed initialization: how many, and the pauses between them.
///
/// The pauses double from `initial` to `max`. Each is shortened at random by up to a half, so that services that failed
/// together do not retry together. This is the "equal jitter" of [Exponential Backoff And Jitter].
///
/// [Exponential Backoff And Jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Retry {
    attempts: u32,
    initial: Duration,
    max: Duration,
}

impl Retry {
    /// Creates retries with the maximum number of calls of `initialize`, the first one included. 0 counts as 1.
    pub const fn new(attempts: u32) -> Self {
        Retry {
            attempts,
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
        }
    }

    /// Sets the pause after the first failure. Default: 100 ms.
    pub const fn initial(mut self, pause: Duration) -> Self {
        self.initial = pause;
        self
    }

    /// Sets the maximum pause. It also limits the first one. Default: 5 s.
    pub const fn max(mut self, pause: Duration) -> Self {
        self.max = pause;
        self
    }

    /// Returns the pause after the given number of failures, or `None` if there is no further attempt.
    pub(crate) fn pause_after(self, failures: u32) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let mut pauses = growing(self.initial.min(self.max), self.max)
            .without_max_times()
            .build();
        // The doubling reaches the maximum long before.
        let position = failures.saturating_sub(1).min(64);
        pauses.nth(usize::try_from(position).unwrap_or(0))
    }

    /// Returns the more patient of two retries.
    pub(crate) fn most_patient(one: Option<Retry>, other: Option<Retry>) -> Option<Retry> {
        let patience = |retry: &Retry| (retry.attempts, retry.max, retry.initial);
        one.into_iter().chain(other).max_by_key(patience)
    }
}

/// Returns pauses that double from `initial` to `max`, with the jitter of [`Retry`].
pub(crate) fn growing(initial: Duration, max: Duration) -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::default()
        // The jitter adds up to the same amount again.
        .with_min_delay(initial / 2)
        .with_max_delay(max / 2)
        .with_jitter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_jitter_up_to_the_maximum() {
        let retry = Retry::new(6)
            .initial(Duration::from_millis(10))
            .max(Duration::from_millis(50));
        let pauses = || (1..6).filter_map(|failures| retry.pause_after(failures));
        let first: Vec<_> = pauses().collect();
        assert_eq!(first.len(), 5, "six attempts have five pauses");
        for (pause, least) in first.iter().zip([5, 10, 20, 25, 25]) {
            assert!(
                (least..=2 * least).contains(&pause.as_millis()),
                "{first:?}"
            );
        }
        let second: Vec<_> = pauses().collect();
        assert_ne!(first, second, "two services have different pauses");
        assert_eq!(retry.pause_after(6), None);
        assert_eq!(Retry::new(0).pause_after(1), None);
    }

    #[test]
    fn maximum_limits_the_first_pause() {
        let retry = Retry::new(1_000).max(Duration::from_millis(2));
        for failures in [1, 999] {
            let pause = retry
                .pause_after(failures)
                .expect("there are more attempts");
            assert!(pause <= Duration::from_millis(2), "{pause:?}");
        }
    }
}
