//! What the callers have met with, and what they were told of each number.

use std::collections::BTreeMap;
use std::time::Duration;

use db_service::DbError;
use serde::{Deserialize, Serialize};

/// What callers of one kind met with.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Experience {
    pub(crate) longest: Duration,
    pub(crate) calls: u64,
    /// By the names of their variants.
    pub(crate) errors: BTreeMap<String, Errors>,
    /// From the end of the fault to the first success.
    pub(crate) recovery: Option<Duration>,
}

/// Errors of one variant.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    /// What the first of them said.
    pub(crate) text: String,
}

/// What became of the numbers that were to be written, as far as those who wrote them were told.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Numbers {
    /// The call returned without an error.
    pub(crate) acknowledged: Vec<i64>,
    /// The connection broke at a point where nobody can tell whether it was written.
    pub(crate) unknown: Vec<i64>,
    /// The error says that it was not written.
    pub(crate) refused: Vec<i64>,
}

/// All that the threads of a load have seen.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) writes: Experience,
    pub(crate) reads: Experience,
    pub(crate) numbers: Numbers,
    /// Reads that did not find what had been acknowledged to the same thread.
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

    /// Adds what another process has seen.
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
