use singleton_core::{Error, guarded};

#[guarded]
fn sell(count: u32) -> Result<u32, Error> {
    Ok(count)
}

fn main() {
    let _ = sell(1);
}
