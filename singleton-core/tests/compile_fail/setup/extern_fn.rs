use singleton_core::setup;

#[setup]
extern "C" fn configure() -> anyhow::Result<()> {
    Ok(())
}

fn main() {}
