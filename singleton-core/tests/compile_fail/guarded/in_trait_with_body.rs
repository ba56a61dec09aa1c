use singleton_core::{Error, guarded};

trait Sells {
    #[guarded]
    fn sell(&self, count: u32) -> Result<u32, Error> {
        Ok(count)
    }
}

fn main() {}
