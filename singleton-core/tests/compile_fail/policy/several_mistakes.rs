use singleton_core::{Service, service};

#[service(
    lazy,
    eager = true,
    init_timeout = 10,
    shutdown_timeout,
    retry(times = 3, initial = 100, max = "5"),
    tags(readiness, 7, "a", "a"),
)]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

fn main() {}
