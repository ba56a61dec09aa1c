use singleton_core::{Service, requires, service};

#[service]
#[requires(Scissors)]
struct Rock;

impl Service for Rock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Rock)
    }
}

#[service]
#[requires(Paper)]
struct Scissors;

impl Service for Scissors {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Scissors)
    }
}

#[service]
#[requires(Rock)]
struct Paper;

impl Service for Paper {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Paper)
    }
}

fn main() {}
