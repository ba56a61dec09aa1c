use facade::anyhow;
use facade::singleton_core::{Error, Service, guarded, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

impl Shop {
    #[guarded]
    fn sell(&self, count: u32) -> Result<u32, Error> {
        Ok(count)
    }
}

fn main() {
    let _ = Shop::sell(1);
}
