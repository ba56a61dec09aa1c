//! All faults, and the errors that callers may get from each.

use crate::file_faults::{FULL, LOCKED};
use crate::outcome::{Allowed, Outcome};
use crate::postgres::{BROKEN, BROKEN_FOR_LONG, SILENT};
use crate::{bouncer_faults, caller_faults, file_faults, network_faults, server_faults};

/// A row of the matrix.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    run: fn() -> anyhow::Result<Outcome>,
    allowed: Allowed,
}

impl Fault {
    const fn new(
        name: &'static str,
        run: fn() -> anyhow::Result<Outcome>,
        errors: &'static [&'static str],
    ) -> Self {
        let allowed = Allowed {
            errors,
            unnoticed: false,
        };
        Fault { name, run, allowed }
    }

    const fn that_may_go_unnoticed(mut self) -> Self {
        self.allowed.unnoticed = true;
        self
    }

    /// Causes the fault. Returns its outcome, and the promises that were not kept.
    pub(crate) fn outcome(&self) -> anyhow::Result<(Outcome, Vec<String>)> {
        let outcome = (self.run)()?;
        let broken = outcome.broken_promises(self.allowed);
        Ok((outcome, broken))
    }
}

pub(crate) const FAULTS: [Fault; 16] = [
    Fault::new("TCP reset, six times", network_faults::resets, BROKEN),
    Fault::new("black hole, 5 s", network_faults::black_hole, SILENT),
    Fault::new(
        "SIGSTOP of four backends, 5 s",
        server_faults::stopped_backends,
        SILENT,
    ),
    Fault::new(
        "SIGSTOP of the server, 5 s",
        server_faults::stopped_server,
        SILENT,
    ),
    Fault::new(
        "kill -9 of a backend, three times",
        server_faults::killed_backends,
        BROKEN,
    ),
    Fault::new(
        "kill -9 of the server, start after 5 s",
        server_faults::killed_server,
        BROKEN_FOR_LONG,
    ),
    Fault::new(
        "restart, three times",
        server_faults::restarts,
        BROKEN_FOR_LONG,
    ),
    Fault::new(
        "`pg_terminate_backend` of all, five times",
        server_faults::terminated_backends,
        BROKEN,
    ),
    Fault::new(
        "kill -9 of the primary, promotion of its standby",
        server_faults::failover,
        BROKEN_FOR_LONG,
    ),
    Fault::new(
        "restart of PgBouncer, four times",
        bouncer_faults::restarts,
        BROKEN,
    ),
    Fault::new(
        "`ALTER TABLE`, forty times",
        server_faults::changed_table,
        &[],
    )
    .that_may_go_unnoticed(),
    Fault::new("panic in a closure", caller_faults::panics, &["panic"]),
    Fault::new(
        "pool exhausted, 5 s",
        caller_faults::exhausted,
        &["PoolTimeout"],
    ),
    Fault::new("SQLite: disk full, 5 s", file_faults::full_disk, FULL),
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
    .that_may_go_unnoticed(),
];
