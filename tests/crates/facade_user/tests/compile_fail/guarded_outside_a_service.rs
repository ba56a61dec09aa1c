use facade::singleton_core::{Error, guarded};

struct Shop;

impl Shop {
    #[guarded]
    fn sell(&self, count: u32) -> Result<u32, Error> {
        Ok(count)
    }
}

fn main() {
    let _ = Shop::sell(1);
}
