use singleton_core::setup;

#[setup]
fn configure(path: &str) -> anyhow::Result<()> {
    anyhow::bail!("{path}")
}

fn main() {}
