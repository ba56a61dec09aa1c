use singleton_core::setup;

#[setup(first)]
fn configure() -> anyhow::Result<()> {
    Ok(())
}

fn main() {}
