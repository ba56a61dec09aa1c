use singleton_core::{Service, service};

#[service(retry(initial = "1s"))]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
