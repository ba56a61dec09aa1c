//! What the arguments of `#[service(…)]` say.

use std::time::Duration;

use backon::BackoffBuilder;

/// The timeout of a service's shutdown if neither its `#[service(…)]` nor the options of the shutdown set one.
pub(crate) const DEFAULT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// The arguments of one `#[service(…)]`, as its expansion writes them.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How often, and at which intervals, a failed initialisation is tried.
    pub retry: Option<Retry>,
    /// How long a caller waits for the service, what it requires included.
    pub init_timeout: Option<Duration>,
    /// How long `shutdown` may take before others go on without it.
    pub shutdown_timeout: Option<Duration>,
    /// Whether `start_eager` starts the service.
    pub eager: bool,
    /// The groups that the service is in.
    pub tags: &'static [&'static str],
}

impl Policy {
    /// That of a bare `#[service]`.
    pub const DEFAULT: Policy = Policy {
        retry: None,
        init_timeout: None,
        shutdown_timeout: None,
        eager: false,
        tags: &[],
    };

    /// The pauses between attempts.
    pub(crate) fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        self.retry.into_iter().flat_map(Retry::pauses)
    }
}

/// `retry.attempts = …, initial = …, max = …)`.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How often `initialize` is tried, the first time included.
    pub attempts: usize,
    /// The pause after the first failure.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
}

impl Retry {
    fn pauses(self) -> impl Iterator<Item = Duration> + Send {
        growing(self.initial, self.max)
            .with_max_times(self.attempts.saturating_sub(1))
            .build()
    }
}

/// Pauses that double from `initial` to `max`, of each between the half and the whole at random, so that
/// those who failed together do not return together: the "equal jitter" of [Exponential Backoff And Jitter].
///
/// [Exponential Backoff And Jitter]: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
pub(crate) fn growing(initial: Duration, max: Duration) -> backon::ExponentialBuilder {
    backon::ExponentialBuilder::default()
        // The jitter adds up to as much again.
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
            "two services do not keep step"
        );
        assert_eq!(Policy::DEFAULT.pauses().count(), 0);
    }
}
