use singleton_core::{Service, guarded, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

impl Shop {
    #[guarded]
    fn visitors(&self) -> u32 { 1 }
}

fn main() {
    let _ = Shop::visitors();
}
