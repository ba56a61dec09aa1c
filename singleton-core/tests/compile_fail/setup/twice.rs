use singleton_core::setup;

#[setup]
fn configure() -> anyhow::Result<()> {
    Ok(())
}

mod elsewhere {
    #[singleton_core::setup]
    fn configure_again() -> anyhow::Result<()> {
        Ok(())
    }
}

fn main() {}
