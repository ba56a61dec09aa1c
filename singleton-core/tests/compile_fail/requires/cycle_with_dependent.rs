use singleton_core::{Service, requires, service};

#[service]
#[requires(Egg)]
struct Farm;

impl Service for Farm {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Farm)
    }
}

#[service]
#[requires(Hen)]
struct Egg;

impl Service for Egg {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Egg)
    }
}

#[requires(Egg)]
#[service]
struct Hen;

impl Service for Hen {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Hen)
    }
}

fn main() {}
