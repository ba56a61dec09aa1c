//! The outcome of a fault for its callers, and whether the promises were kept.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig};
use serde::{Deserialize, Serialize};
use singleton_core::testing::Scope;

use crate::ledger;
use crate::load::Load;
use crate::seen::Seen;

/// The time that a call may take beyond its limit, and within which calls succeed again after the fault.
const GRACE: Duration = Duration::from_secs(1);

/// The results of the callers, compared with the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The limit of a call: the timeout for a connection plus the timeout of a statement.
    pub(crate) limit: Duration,
    pub(crate) seen: Seen,
    /// The number of rows in the table.
    pub(crate) found: usize,
    /// The writes with unknown outcome that are in the table.
    pub(crate) found_of_unknown: usize,
    /// The acknowledged writes that are not in the table.
    pub(crate) lost: usize,
    /// The writes that are in the table more than once.
    pub(crate) doubled: usize,
    /// The writes in the table whose error said that they were not done.
    pub(crate) unwanted: usize,
}

/// The permitted effects of a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed {
    /// The errors that callers may get.
    pub(crate) errors: &'static [&'static str],
    /// Whether callers may notice nothing.
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

    /// Returns the promises that were not kept.
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
            format!("a call took {longest:.1?}, and the limit is {limit:?}"),
        );
        for (count, what) in [
            (self.lost, "were acknowledged and are lost"),
            (self.doubled, "are in the table more than once"),
            (
                self.unwanted,
                "are in the table although their error said that they were not written",
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

/// The database of a load.
pub(crate) struct Place {
    /// The settings of the load.
    pub(crate) config: DatabaseConfig,
    /// The limit of a call.
    pub(crate) limit: Duration,
    /// The settings with which the table is read at the end.
    pub(crate) found: DatabaseConfig,
}

impl Place {
    /// Runs the load while `fault` runs, and compares its results with the table. The fault has ended when `fault`
    /// returns.
    pub(crate) fn under_load(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.under_loads(|load| fault(load).map(|()| None))
    }

    /// Runs the load, like [`under_load`](Place::under_load), beside a child process that writes and reads too and
    /// returns its results.
    pub(crate) fn under_loads(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<Option<Seen>>,
    ) -> anyhow::Result<Outcome> {
        let seen = within(self.config, || {
            ledger::create()?;
            let load = Load::start(0)?;
            let fault = fault(&load).and_then(|other| load.recover().map(|()| other));
            // First of all, so that the threads end even if the fault failed.
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

/// Runs `work` in its own scope.
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
