use singleton_core::{Service, requires, service};

#[service]
#[requires(Narcissus)]
struct Narcissus;

impl Service for Narcissus {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Narcissus)
    }
}

fn main() {}
