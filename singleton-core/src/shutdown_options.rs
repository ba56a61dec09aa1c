//! How a shutdown goes about it.

use std::time::Duration;

/// How [`shutdown_all_with`](crate::Registry::shutdown_all_with) goes about it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ShutdownOptions {
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        ShutdownOptions {
            timeout: Self::DEFAULT_TIMEOUT,
            threads: 16,
        }
    }
}

impl ShutdownOptions {
    pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

    /// The defaults, which each of the methods states.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each service may take before the others go on without it; 10 seconds.
    ///
    /// `shutdown_timeout` of a `#[service(…)]` comes first.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many services are shut down at once, those that overran not counted; 16.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}
