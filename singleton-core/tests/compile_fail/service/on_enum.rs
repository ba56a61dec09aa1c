use singleton_core::{Service, service};

#[service]
enum Shop {
    Open,
}

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop::Open)
    }
}

fn main() {}
