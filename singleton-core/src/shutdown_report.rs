//! What became of each service at shutdown.

use std::fmt;
use std::time::Duration;

use crate::descriptor::Descriptor;
use crate::table::Table;

/// What became of each service at shutdown, in the order in which they ended; prints as a table.
#[derive(Debug, Clone, Default)]
pub struct ShutdownReport {
    pub(crate) services: Vec<ServiceShutdown>,
    pub(crate) took: Duration,
}

impl ShutdownReport {
    /// The services that were ready or initialising.
    pub fn services(&self) -> &[ServiceShutdown] {
        &self.services
    }

    /// How long it took together.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Tells whether every service ended in time and without an error.
    pub fn is_clean(&self) -> bool {
        self.services
            .iter()
            .all(|service| service.outcome == ShutdownOutcome::Done)
    }
}

/// What became of one service at shutdown.
#[derive(Debug, Clone)]
pub struct ServiceShutdown {
    pub(crate) service: &'static Descriptor,
    pub(crate) outcome: ShutdownOutcome,
    pub(crate) took: Duration,
}

impl ServiceShutdown {
    /// The name of the struct.
    pub fn name(&self) -> &'static str {
        self.service.name
    }

    /// How it ended.
    pub fn outcome(&self) -> &ShutdownOutcome {
        &self.outcome
    }

    /// How long its `shutdown` took, the end of its thread included; if it overran, how long it was waited for.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// How a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownOutcome {
    /// In time and without an error.
    Done,
    /// `shutdown` returned an error or panicked.
    Failed(String),
    /// Its time was over; it may still be at it.
    Overran,
    /// It was still initialising when its time was over; if that ends after all, it is shut down then.
    StillInitializing,
}

impl fmt::Display for ShutdownOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShutdownOutcome::Done => formatter.write_str("done"),
            ShutdownOutcome::Failed(message) => write!(formatter, "failed: {message}"),
            ShutdownOutcome::Overran => formatter.write_str("overran"),
            ShutdownOutcome::StillInitializing => formatter.write_str("still initializing"),
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["service", "took", "outcome"]);
        for service in &self.services {
            table.row([
                service.name().to_owned(),
                format!("{:.1?}", service.took),
                service.outcome.to_string(),
            ]);
        }
        writeln!(formatter, "{table}shut down in {:.1?}", self.took)
    }
}
