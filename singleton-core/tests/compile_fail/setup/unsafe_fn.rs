use singleton_core::setup;

#[setup]
unsafe fn configure() -> anyhow::Result<()> {
    Ok(())
}

fn main() {}
