use facade::anyhow;
use facade::singleton_core::{Service, service};

#[service(crate = "facade::singleton_core")]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
