use singleton_core::{Service, service};

#[service(shutdown_timeout = "0s")]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
