use singleton_core::{Error, Service, guarded, service};

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

impl Shop {
    #[guarded]
    fn close(self) -> Result<(), Error> { Ok(()) }
}

fn main() {
    let _ = Shop::close();
}
