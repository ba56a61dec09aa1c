//! Faults between the load and the server: the network and a connection pooler.

use std::thread;

use anyhow::Context;
use tests::TestPgBouncer;

use crate::outcome::Outcome;
use crate::postgres_target::{FAULT_DURATION, REPEAT_INTERVAL, start_server, target_at};
use crate::tcp_proxy::TcpProxy;

pub(crate) fn resets() -> anyhow::Result<Outcome> {
    through_proxy(|proxy| {
        for _ in 0..5 {
            proxy.reset();
            thread::sleep(REPEAT_INTERVAL);
        }
        proxy.reset();
    })
}

pub(crate) fn black_hole() -> anyhow::Result<Outcome> {
    through_proxy(|proxy| {
        proxy.set_stalled(true);
        thread::sleep(FAULT_DURATION);
        proxy.set_stalled(false);
    })
}

fn through_proxy(fault: impl FnOnce(&TcpProxy)) -> anyhow::Result<Outcome> {
    let server = start_server()?;
    let proxy = TcpProxy::start(server.port())?;
    let address = format!("127.0.0.1:{}", proxy.port());
    target_at(&server, &address, "")?.run_under_load(|_| {
        fault(&proxy);
        Ok(())
    })
}

/// Restarts a PgBouncer in transaction mode, in which each transaction may run in another session of the server.
pub(crate) fn pgbouncer_restarts() -> anyhow::Result<Outcome> {
    let server = start_server()?;
    let bouncer = TestPgBouncer::start(&server, "pool_mode = transaction\nserver_idle_timeout = 1")
        .context("PgBouncer is not installed")?;
    let address = format!("127.0.0.1:{}", bouncer.port());
    let mut target = target_at(&server, &address, "")?;
    target.config.statement_cache_size = 0;
    target.run_under_load(|_| {
        for _ in 0..3 {
            bouncer.restart();
            thread::sleep(REPEAT_INTERVAL);
        }
        bouncer.restart();
        Ok(())
    })
}
