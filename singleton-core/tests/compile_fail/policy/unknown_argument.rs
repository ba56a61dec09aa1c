use singleton_core::{Service, service};

#[service(lazy)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
