use singleton_core::{Service, service};

#[service(init_timeout = "10")]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
