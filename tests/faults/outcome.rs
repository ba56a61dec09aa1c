//! What a fault has done to those who called meanwhile, and whether that was as promised.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig};
use serde::{Deserialize, Serialize};
use singleton_core::testing::Scope;

use crate::ledger;
use crate::load::Load;
use crate::seen::Seen;

/// What callers are promised on top of their limits, and within which time calls succeed again.
const GRACE: Duration = Duration::from_secs(1);

/// What callers have seen, beside what is in the ledger.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long a call may take: for a connection, and for the answer to a statement.
    pub(crate) limit: Duration,
    pub(crate) seen: Seen,
    /// How many numbers are in the ledger.
    pub(crate) found: usize,
    /// Of those whose outcome was unknown to the caller.
    pub(crate) found_of_unknown: usize,
    /// Acknowledged, and not there.
    pub(crate) lost: usize,
    /// There more than once.
    pub(crate) doubled: usize,
    /// There, although the caller was told that they were not written.
    pub(crate) unwanted: usize,
}

/// What a fault may do to callers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// The errors that they may get.
    pub(crate) errors: &'static [&'static str],
    /// Whether it would be no fault if they noticed nothing.
    pub(crate) unnoticed: bool,
}

impl Outcome {
    pub(crate) fn new(limit: Duration, seen: Seen, ledger: &HashMap<i64, u64>) -> Self {
        let numbers = &seen.numbers;
        let is_there = |number: &&i64| ledger.contains_key(*number);
        let known: HashSet<_> = numbers
            .acknowledged
            .iter()
            .chain(&numbers.unknown)
            .collect();
        Outcome {
            limit,
            found: ledger.len(),
            found_of_unknown: numbers.unknown.iter().filter(is_there).count(),
            lost: numbers.acknowledged.len() - numbers.acknowledged.iter().filter(is_there).count(),
            doubled: ledger.values().filter(|times| **times > 1).count(),
            unwanted: ledger
                .keys()
                .filter(|number| !known.contains(number))
                .count(),
            seen,
        }
    }

    /// All promises that were not kept.
    pub(crate) fn broken_promises(&self, allowed: Allowed) -> Vec<String> {
        let Seen {
            writes,
            reads,
            missing,
            ..
        } = &self.seen;
        let mut broken = Vec::new();
        let mut promise = |is_kept: bool, otherwise: String| {
            if !is_kept {
                broken.push(otherwise);
            }
        };
        let longest = writes.longest.max(reads.longest);
        let limit = self.limit;
        promise(
            longest <= limit + GRACE,
            format!("a caller waited {longest:.1?}, and the limit is {limit:?}"),
        );
        for (count, what) in [
            (self.lost, "were acknowledged and are lost"),
            (self.doubled, "are there more than once"),
            (
                self.unwanted,
                "are there although the caller was told that they are not",
            ),
        ] {
            promise(count == 0, format!("{count} writes {what}"));
        }
        promise(
            *missing == 0,
            format!("{missing} reads did not find what their thread had written"),
        );
        for (kind, experience) in [("write", writes), ("read", reads)] {
            let recovery = experience.recovery.unwrap_or(Duration::MAX);
            promise(
                recovery <= GRACE,
                format!(
                    "the first {kind} succeeded {recovery:.1?} after the end, not within {GRACE:?}"
                ),
            );
        }
        for (variant, errors) in writes.errors.iter().chain(&reads.errors) {
            promise(
                allowed.errors.contains(&variant.as_str()),
                format!("{variant} is not to be expected here: {}", errors.text),
            );
        }
        let has_errors = !(writes.errors.is_empty() && reads.errors.is_empty());
        let was_noticed = has_errors || longest > GRACE / 2;
        promise(
            was_noticed || allowed.unnoticed,
            "nobody has noticed the fault, so it proves nothing".to_owned(),
        );
        broken
    }
}

/// A database for a load.
pub(crate) struct Place {
    /// How the load reaches it.
    pub(crate) config: DatabaseConfig,
    /// How long a call may take.
    pub(crate) limit: Duration,
    /// Where the ledger is read in the end.
    pub(crate) found: DatabaseConfig,
}

impl Place {
    /// Lets sixteen threads write and read while `fault` happens, which has ended when it returns, and compares what they were told
    /// with what is found.
    pub(crate) fn under_load(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.under_loads(|load| fault(load).map(|()| None))
    }

    /// The same where another process has written and read as well, and tells what it has seen.
    pub(crate) fn under_loads(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<Option<Seen>>,
    ) -> anyhow::Result<Outcome> {
        let seen = within(self.config, || {
            ledger::create()?;
            let load = Load::start(0)?;
            let fault = fault(&load).and_then(|other| load.recover().map(|()| other));
            // Before anything is said of the fault: the threads end with it.
            let mut seen = load.stop()?;
            if let Some(other) = fault? {
                seen.merge(other);
            }
            Ok(seen)
        })?;
        let ledger = within(self.found, ledger::all)?;
        Ok(Outcome::new(self.limit, seen, &ledger))
    }
}

/// Does `work` with services of its own, which are shut down afterwards.
pub(crate) fn within<T>(
    config: DatabaseConfig,
    work: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let scope = Scope::new().provide(ConfigService::new(config));
    scope.run(|| {
        let result = work();
        singleton_core::registry().shutdown_all();
        result
    })
}
