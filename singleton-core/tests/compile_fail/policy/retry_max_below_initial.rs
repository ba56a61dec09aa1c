use singleton_core::{Service, service};

#[service(retry(attempts = 3, initial = "5s", max = "1s"))]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
