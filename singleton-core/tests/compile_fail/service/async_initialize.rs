use singleton_core::{Service, service};

#[service]
struct Shop;

impl Service for Shop {
    async fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
