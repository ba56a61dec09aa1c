use facade::anyhow;
use facade::singleton_core::setup;

#[setup]
fn configure() -> anyhow::Result<()> {
    Ok(())
}

fn main() {}
