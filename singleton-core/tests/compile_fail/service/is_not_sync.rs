use std::cell::Cell;

use singleton_core::{Service, service};

#[service]
struct Shop {
    visitors: Cell<u32>,
}

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop { visitors: Cell::new(0) })
    }
}

fn main() {}
