//! The results of the callers: their errors, and the outcome of each write.

use std::collections::BTreeMap;
use std::time::Duration;

use db_service::DbError;
use serde::{Deserialize, Serialize};

/// The results of all writes, or of all reads.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Experience {
    pub(crate) longest: Duration,
    pub(crate) calls: u64,
    /// The errors by the names of their variants.
    pub(crate) errors: BTreeMap<String, Errors>,
    /// The time from the end of the fault to the first success.
    pub(crate) recovery: Option<Duration>,
}

/// Errors of one variant.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    /// The message of the first one.
    pub(crate) text: String,
}

/// The outcomes of writes, as their callers know them.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// The numbers whose write returned without an error.
    pub(crate) acknowledged: Vec<i64>,
    /// The numbers whose connection broke at a point where the outcome is unknown.
    pub(crate) unknown: Vec<i64>,
    /// The numbers whose error says that they were not written.
    pub(crate) refused: Vec<i64>,
}

/// All results of a load.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) writes: Experience,
    pub(crate) reads: Experience,
    pub(crate) numbers: Numbers,
    /// The number of reads that did not find the last acknowledged number of their thread.
    pub(crate) missing: u64,
}

impl Experience {
    pub(crate) fn error(&mut self, error: &DbError) {
        let variant = format!("{error:?}");
        let variant = variant.chars().take_while(char::is_ascii_alphanumeric);
        self.add(variant.collect(), 1, || error.to_string());
    }

    pub(crate) fn panic(&mut self) {
        self.add("panic".to_owned(), 1, String::new);
    }

    fn add(&mut self, variant: String, count: u64, text: impl FnOnce() -> String) {
        let new = || Errors {
            count: 0,
            text: text(),
        };
        self.errors.entry(variant).or_insert_with(new).count += count;
    }

    fn merge(&mut self, other: Experience) {
        self.longest = self.longest.max(other.longest);
        self.calls += other.calls;
        for (variant, Errors { count, text }) in other.errors {
            self.add(variant, count, || text);
        }
        self.recovery = self.recovery.max(other.recovery);
    }
}

impl Seen {
    pub(crate) fn calls(&self) -> u64 {
        self.writes.calls + self.reads.calls
    }

    pub(crate) fn has_recovered(&self) -> bool {
        self.writes.recovery.is_some() && self.reads.recovery.is_some()
    }

    /// Adds the results of a child process.
    pub(crate) fn merge(&mut self, other: Seen) {
        self.writes.merge(other.writes);
        self.reads.merge(other.reads);
        self.missing += other.missing;
        let Numbers {
            acknowledged,
            unknown,
            refused,
        } = other.numbers;
        self.numbers.acknowledged.extend(acknowledged);
        self.numbers.unknown.extend(unknown);
        self.numbers.refused.extend(refused);
    }
}
