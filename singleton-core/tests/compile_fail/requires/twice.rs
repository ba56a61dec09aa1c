use singleton_core::{Service, requires, service};

#[service]
struct Settings;

impl Service for Settings {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Settings)
    }
}

#[service]
#[requires(Settings, Settings)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
