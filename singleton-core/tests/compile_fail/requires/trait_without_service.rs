use singleton_core::{Service, requires, service};

trait Clock: Send + Sync + 'static {
    fn hour(&self) -> u32;
}

#[service]
#[requires(dyn Clock)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
