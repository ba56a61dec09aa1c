use singleton_core::{Error, Service, guarded, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

trait Sells {
    fn sell(&self, count: u32) -> Result<u32, Error>;
}

impl Sells for Shop {
    #[guarded]
    fn sell(&self, count: u32) -> Result<u32, Error> {
        Ok(count)
    }
}

fn main() {}
