//! Faults of a connection pooler in front of the server.

use std::thread;

use anyhow::Context;
use tests::TestPgBouncer;

use crate::outcome::Outcome;
use crate::postgres::{PAUSE, place, server};

/// In transaction mode, where each transaction of a client may run in another server session.
pub(crate) fn restarts() -> anyhow::Result<Outcome> {
    let server = server()?;
    let bouncer = TestPgBouncer::start(&server, "pool_mode = transaction\nserver_idle_timeout = 1")
        .context("PgBouncer is not installed")?;
    let address = format!("127.0.0.1:{}", bouncer.port());
    let mut place = place(&server, &address, "")?;
    place.config.statement_cache_size = 0;
    place.under_load(|_| {
        for _ in 0..3 {
            bouncer.restart();
            thread::sleep(PAUSE);
        }
        bouncer.restart();
        Ok(())
    })
}
