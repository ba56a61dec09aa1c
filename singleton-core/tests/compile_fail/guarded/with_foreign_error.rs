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
    fn visit(&self) -> Result<(), String> { Ok(()) }
}

fn main() {
    let _ = Shop::visit();
}
