//! A load on one database during a fault: how it runs, its outcome, and the checks of the outcome.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig};
use serde::{Deserialize, Serialize};
use singleton_core::testing::Scope;

use crate::load::Load;
use crate::number_table::{self, Queries};
use crate::observations::Observations;

/// The tolerance of a call's limit, and the longest recovery after the end of the fault.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The results of a load's calls, compared with the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// How long a call may take: the timeout of the checkout plus that of a statement.
    pub(crate) limit: Duration,
    pub(crate) observations: Observations,
    /// How many different numbers are in the table.
    pub(crate) present: usize,
    /// How many writes with an unknown outcome are in the table.
    pub(crate) unknown_present: usize,
    /// How many acknowledged writes are not in the table.
    pub(crate) lost: usize,
    /// How many numbers are in the table more than once.
    pub(crate) duplicated: usize,
    /// How many failed writes are in the table.
    pub(crate) failed_present: usize,
}

/// The effects that a fault may have on callers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AllowedEffects {
    /// The errors that calls may return: names of `DbError` variants, or `panic`.
    pub(crate) errors: &'static [&'static str],
    /// Whether the fault may leave all calls unaffected.
    pub(crate) none: bool,
}

impl Outcome {
    fn new(limit: Duration, observations: Observations, table: &HashMap<i64, u64>) -> Self {
        let numbers = &observations.numbers;
        let is_present = |number: &&i64| table.contains_key(*number);
        let expected: HashSet<_> = numbers
            .acknowledged
            .iter()
            .chain(&numbers.unknown)
            .collect();
        let acknowledged_present = numbers.acknowledged.iter().filter(is_present).count();
        Outcome {
            limit,
            present: table.len(),
            unknown_present: numbers.unknown.iter().filter(is_present).count(),
            lost: numbers.acknowledged.len() - acknowledged_present,
            duplicated: table.values().filter(|times| **times > 1).count(),
            failed_present: table
                .keys()
                .filter(|number| !expected.contains(number))
                .count(),
            observations,
        }
    }

    /// Returns a description of each check that fails.
    pub(crate) fn failed_checks(&self, allowed: AllowedEffects) -> Vec<String> {
        let Observations {
            writes,
            reads,
            missing,
            ..
        } = &self.observations;
        let mut failed = Vec::new();
        let mut check = |succeeds: bool, failure: String| {
            if !succeeds {
                failed.push(failure);
            }
        };
        let longest = writes.longest.max(reads.longest);
        let limit = self.limit;
        check(
            longest <= limit + TOLERANCE,
            format!("a call took {longest:.1?}; its limit is {limit:?}"),
        );
        for (count, what) in [
            (self.lost, "were acknowledged and are not in the table"),
            (self.duplicated, "are in the table more than once"),
            (
                self.failed_present,
                "are in the table although their calls failed",
            ),
        ] {
            check(count == 0, format!("{count} writes {what}"));
        }
        check(
            *missing == 0,
            format!("{missing} reads did not find the last acknowledged write of their thread"),
        );
        for (kind, statistics) in [("write", writes), ("read", reads)] {
            let recovery = statistics.recovery.unwrap_or(Duration::MAX);
            check(
                recovery <= TOLERANCE,
                format!(
                    "the first successful {kind} ended {recovery:.1?} after the fault, not within {TOLERANCE:?}"
                ),
            );
        }
        for (variant, errors) in writes.errors.iter().chain(&reads.errors) {
            check(
                allowed.errors.contains(&variant.as_str()),
                format!("unexpected error {variant}: {}", errors.first_message),
            );
        }
        let has_errors = !(writes.errors.is_empty() && reads.errors.is_empty());
        let has_effect = has_errors || longest > TOLERANCE / 2;
        check(
            has_effect || allowed.none,
            "the fault affected no call, so this row proves nothing".to_owned(),
        );
        failed
    }
}

/// A database for a load.
pub(crate) struct Target {
    /// The settings of the load's services.
    pub(crate) config: DatabaseConfig,
    /// How long a call may take.
    pub(crate) limit: Duration,
    /// The settings with which the table is read after the load.
    pub(crate) verification: DatabaseConfig,
    /// How the load writes its statements.
    pub(crate) queries: Queries,
}

impl Target {
    /// Runs a load until `fault` has returned and calls have recovered, and compares the results with the table.
    ///
    /// The fault must be over when `fault` returns.
    pub(crate) fn run_under_load(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<()>,
    ) -> anyhow::Result<Outcome> {
        self.run_under_two_loads(|load| fault(load).map(|()| None))
    }

    /// Runs a load like [`run_under_load`](Self::run_under_load). `fault` may return the observations of a second load,
    /// which another process has run on the same table.
    pub(crate) fn run_under_two_loads(
        self,
        fault: impl FnOnce(&Load) -> anyhow::Result<Option<Observations>>,
    ) -> anyhow::Result<Outcome> {
        let queries = self.queries;
        let observations = with_services(self.config, || {
            number_table::create()?;
            let load = Load::start(0, queries)?;
            let fault = fault(&load).and_then(|other| load.recover().map(|()| other));
            // Ends the threads even if the fault returned an error.
            let mut observations = load.stop()?;
            if let Some(other) = fault? {
                observations.merge(other);
            }
            Ok(observations)
        })?;
        let table = with_services(self.verification, number_table::counts)?;
        Ok(Outcome::new(self.limit, observations, &table))
    }
}

/// Runs `work` in a scope with separate services, and shuts them down.
pub(crate) fn with_services<T>(
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
