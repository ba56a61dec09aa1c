use singleton_core::setup;

#[setup]
fn configure() -> Result<(), String> {
    Ok(())
}

fn main() {}
