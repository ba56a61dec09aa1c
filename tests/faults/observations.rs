//! The results of a load's calls.

use std::collections::BTreeMap;
use std::time::Duration;

use db_service::DbError;
use serde::{Deserialize, Serialize};

/// The results of all calls of a load.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Observations {
    pub(crate) writes: CallStatistics,
    pub(crate) reads: CallStatistics,
    pub(crate) numbers: WriteResults,
    /// Reads that did not find a number whose write had been acknowledged to the same thread.
    pub(crate) missing: u64,
}

/// Durations and errors of the writes or of the reads.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct CallStatistics {
    pub(crate) longest: Duration,
    pub(crate) calls: u64,
    /// By the name of the [`DbError`] variant, or `panic`.
    pub(crate) errors: BTreeMap<String, ErrorStatistics>,
    /// The time from the end of the fault to the end of the first successful call.
    pub(crate) recovery: Option<Duration>,
}

/// The errors of one variant.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorStatistics {
    pub(crate) count: u64,
    pub(crate) first_message: String,
}

/// The numbers, by what the write call returned.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct WriteResults {
    /// The call returned `Ok`.
    pub(crate) acknowledged: Vec<i64>,
    /// The connection broke at a point where the number may or may not have been written.
    pub(crate) unknown: Vec<i64>,
    /// The error, or a panic, means that the number was not written.
    pub(crate) failed: Vec<i64>,
}

impl Observations {
    /// Returns the number of calls.
    pub(crate) fn calls(&self) -> u64 {
        self.writes.calls + self.reads.calls
    }

    /// Returns whether a write and a read have succeeded since the end of the fault.
    pub(crate) fn has_recovered(&self) -> bool {
        self.writes.recovery.is_some() && self.reads.recovery.is_some()
    }

    /// Adds the observations of another process.
    pub(crate) fn merge(&mut self, other: Observations) {
        self.writes.merge(other.writes);
        self.reads.merge(other.reads);
        self.missing += other.missing;
        let WriteResults {
            acknowledged,
            unknown,
            failed,
        } = other.numbers;
        self.numbers.acknowledged.extend(acknowledged);
        self.numbers.unknown.extend(unknown);
        self.numbers.failed.extend(failed);
    }
}

impl CallStatistics {
    /// Counts an error.
    pub(crate) fn add_error(&mut self, error: &DbError) {
        let variant = format!("{error:?}");
        let variant = variant.chars().take_while(char::is_ascii_alphanumeric);
        self.add(variant.collect(), 1, || error.to_string());
    }

    /// Counts a panic that has unwound through the call.
    pub(crate) fn add_panic(&mut self) {
        self.add("panic".to_owned(), 1, String::new);
    }

    fn add(&mut self, variant: String, count: u64, message: impl FnOnce() -> String) {
        let new = || ErrorStatistics {
            count: 0,
            first_message: message(),
        };
        self.errors.entry(variant).or_insert_with(new).count += count;
    }

    fn merge(&mut self, other: CallStatistics) {
        self.longest = self.longest.max(other.longest);
        self.calls += other.calls;
        for (variant, errors) in other.errors {
            self.add(variant, errors.count, || errors.first_message);
        }
        self.recovery = self.recovery.max(other.recovery);
    }
}
