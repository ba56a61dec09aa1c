//! Faults of the network to a server.

use std::thread;

use crate::outcome::Outcome;
use crate::postgres::{LASTING, PAUSE, place, server};
use crate::proxy::Proxy;

fn through_network(fault: impl FnOnce(&Proxy)) -> anyhow::Result<Outcome> {
    let server = server()?;
    let network = Proxy::start(server.port())?;
    let address = format!("127.0.0.1:{}", network.port());
    place(&server, &address, "")?.under_load(|_| {
        fault(&network);
        Ok(())
    })
}

pub(crate) fn resets() -> anyhow::Result<Outcome> {
    through_network(|network| {
        for _ in 0..5 {
            network.reset();
            thread::sleep(PAUSE);
        }
        network.reset();
    })
}

pub(crate) fn black_hole() -> anyhow::Result<Outcome> {
    through_network(|network| {
        network.swallow(true);
        thread::sleep(LASTING);
        network.swallow(false);
    })
}
