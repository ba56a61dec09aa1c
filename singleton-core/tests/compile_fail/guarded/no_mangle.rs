use singleton_core::{Error, Service, guarded, service};

#[service]
struct Clock;

impl Service for Clock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Clock)
    }
}

impl Clock {
    #[guarded]
    #[unsafe(no_mangle)]
    fn hour(&self) -> Result<u8, Error> {
        Ok(7)
    }
}

fn main() {}
