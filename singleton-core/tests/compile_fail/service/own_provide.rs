use singleton_core::{Service, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

impl Shop {
    fn provide(goods: u32) -> u32 {
        goods
    }
}

fn main() {}
