use singleton_core::{Service, requires, service};

#[service]
#[requires(Hen)]
struct Egg;

impl Service for Egg {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Egg)
    }
}

#[service]
#[requires(Egg)]
struct Hen;

impl Service for Hen {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Hen)
    }
}

fn main() {}
