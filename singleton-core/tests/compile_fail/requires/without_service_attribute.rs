use singleton_core::{Service, requires, service};

#[service]
struct Settings;

impl Service for Settings {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Settings)
    }
}

#[requires(Settings)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {
    let _ = Shop::instance();
}
