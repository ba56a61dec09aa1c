//! The arguments of `#[service(…)]`.

use std::time::Duration;

use backon::BackoffBuilder;

/// The timeout of a service's shutdown if neither its `#[service(…)]` nor the options of the shutdown set one.
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The arguments of one `#[service(…)]`, as its expansion passes them.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// The retries of a failed initialization.
    pub retry: Option<Retry>,
    /// The maximum time that a caller waits for the service, its dependencies included.
    pub init_timeout: Option<Duration>,
    /// The maximum time of `shutdown` before other services shut down without waiting for it.
    pub shutdown_timeout: Option<Duration>,
    /// Whether `start_eager` starts the service.
    pub eager: bool,
    /// The service's groups, for `ping_all`.
    pub tags: &'static [&'static str],
}

impl Policy {
    /// The policy of `#[service]` without arguments.
    pub const DEFAULT: Policy = Policy {
        retry: None,
        init_timeout: None,
        shutdown_timeout: None,
        eager: false,
        tags: &[],
    };

    /// Returns the pauses between attempts.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        self.retry.into_iter().flat_map(Retry::pauses)
    }
}

/// The argument `retry(attempts = …, initial = …, max = …)`.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The maximum number of calls of `initialize`, the first one included.
    pub attempts: usize,
    /// The pause after the first failure.
    pub initial: Duration,
    /// The maximum pause.
    pub max: Duration,
}

impl Retry {
    fn pauses(self) -> impl Iterator<Item = Duration> + Send {
        growing(self.initial, self.max)
            .with_max_times(self.attempts.saturating_sub(1))
            .build()
    }
}

/// Returns pauses that double from `initial` to `max`, each shortened at random by up to a half, so that services that
/// failed together do not retry together. This is the "equal jitter" of [Exponential Backoff And Jitter].
///
/// [Exponential Backoff And Jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
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
        let policy = Policy {
            retry: Some(Retry {
                attempts: 6,
                initial: Duration::from_millis(10),
                max: Duration::from_millis(50),
            }),
            ..Policy::DEFAULT
        };
        let pauses: Vec<_> = policy.pauses().collect();
        assert_eq!(pauses.len(), 5, "six attempts have five pauses");
        for (pause, least) in pauses.iter().zip([5, 10, 20, 25, 25]) {
            assert!(
                (least..=2 * least).contains(&pause.as_millis()),
                "{pauses:?}"
            );
        }
        let other_pauses: Vec<_> = policy.pauses().collect();
        assert_ne!(
            pauses[..2],
            other_pauses[..2],
            "two services have different pauses"
        );
        assert_eq!(Policy::DEFAULT.pauses().count(), 0);
    }
}
