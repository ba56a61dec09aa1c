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

    #[guarded]
    #[unsafe(export_name = "minute_of_clock")]
    fn minute(&self) -> Result<u8, Error> {
        Ok(30)
    }

    #[guarded]
    #[unsafe(link_section = ".text.clock")]
    fn second(&self) -> Result<u8, Error> {
        Ok(0)
    }
}

fn main() {}
