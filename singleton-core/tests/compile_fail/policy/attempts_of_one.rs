use singleton_core::{Service, service};

#[service(retry(attempts = 1))]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
