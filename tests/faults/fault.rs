//! The list of faults, and the effects that each may have on callers.

use crate::file_faults::{DISK_FULL, LOCKED};
use crate::outcome::{AllowedEffects, Outcome};
use crate::postgres_target::{LOST, LOST_AND_UNREACHABLE, LOST_OR_LATE, UNRESPONSIVE};
use crate::{caller_faults, file_faults, network_faults, server_faults};

/// A row of the table.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    scenario: fn() -> anyhow::Result<Outcome>,
    allowed: AllowedEffects,
}

impl Fault {
    const fn new(
        name: &'static str,
        scenario: fn() -> anyhow::Result<Outcome>,
        errors: &'static [&'static str],
    ) -> Self {
        let allowed = AllowedEffects {
            errors,
            none: false,
        };
        Fault {
            name,
            scenario,
            allowed,
        }
    }

    const fn that_may_have_no_effect(mut self) -> Self {
        self.allowed.none = true;
        self
    }

    /// Runs the load while the fault happens, and returns the outcome and a description of each failed check.
    pub(crate) fn run(&self) -> anyhow::Result<(Outcome, Vec<String>)> {
        let outcome = (self.scenario)()?;
        let failed_checks = outcome.failed_checks(self.allowed);
        Ok((outcome, failed_checks))
    }
}

pub(crate) const FAULTS: [Fault; 17] = [
    Fault::new("TCP reset, six times", network_faults::resets, LOST),
    Fault::new("black hole, 5 s", network_faults::black_hole, UNRESPONSIVE),
    Fault::new(
        "SIGSTOP of four backends, 5 s",
        server_faults::stopped_backends,
        UNRESPONSIVE,
    ),
    Fault::new(
        "SIGSTOP of the server, 5 s",
        server_faults::stopped_server,
        UNRESPONSIVE,
    ),
    Fault::new(
        "kill -9 of a backend, three times",
        server_faults::killed_backends,
        LOST,
    ),
    Fault::new(
        "kill -9 of the server, started again after 5 s",
        server_faults::killed_server,
        LOST_AND_UNREACHABLE,
    ),
    Fault::new(
        "restart of the server, three times",
        server_faults::restarts,
        LOST_AND_UNREACHABLE,
    ),
    Fault::new(
        "`pg_terminate_backend` of all backends, five times",
        server_faults::terminated_backends,
        LOST,
    ),
    Fault::new(
        "the same with diesel's DSL",
        server_faults::terminated_backends_of_dsl,
        LOST_OR_LATE,
    ),
    Fault::new(
        "kill -9 of the primary, promotion of its standby",
        server_faults::failover,
        LOST_AND_UNREACHABLE,
    ),
    Fault::new(
        "restart of PgBouncer, four times",
        network_faults::pgbouncer_restarts,
        LOST,
    ),
    Fault::new(
        "`ALTER TABLE`, forty times",
        server_faults::altered_table,
        &[],
    )
    .that_may_have_no_effect(),
    Fault::new("panics in transactions", caller_faults::panics, &["panic"]),
    Fault::new(
        "pool exhausted, 5 s",
        caller_faults::exhausted_pool,
        &["PoolTimeout"],
    ),
    Fault::new("SQLite: disk full, 5 s", file_faults::full_disk, DISK_FULL),
    Fault::new(
        "SQLite: file locked by another process, 5 s",
        file_faults::locked_file,
        LOCKED,
    ),
    Fault::new(
        "SQLite: two processes on one file, 5 s",
        file_faults::two_processes,
        LOCKED,
    )
    .that_may_have_no_effect(),
];
