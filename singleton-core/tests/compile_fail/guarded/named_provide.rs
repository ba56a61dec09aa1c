use singleton_core::{Error, Service, guarded, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

impl Shop {
    #[guarded]
    fn provide(&self, goods: u32) -> Result<u32, Error> {
        Ok(goods)
    }
}

fn main() {}
