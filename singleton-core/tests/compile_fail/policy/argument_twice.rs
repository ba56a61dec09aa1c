use singleton_core::{Service, service};

#[service(eager, eager)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
