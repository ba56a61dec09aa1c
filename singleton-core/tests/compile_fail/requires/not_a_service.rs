use singleton_core::{Service, requires, service};

struct Settings;

#[service]
#[requires(Settings)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
