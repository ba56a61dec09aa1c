use singleton_core::setup;

#[setup]
async fn configure() -> anyhow::Result<()> {
    Ok(())
}

fn main() {}
