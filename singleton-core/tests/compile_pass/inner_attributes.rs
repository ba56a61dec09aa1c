//! Inner attributes of a guarded method, and a `#[setup]` function inside another function.
#![deny(warnings)]

use singleton_core::{Error, Service, guarded, service, setup};

#[service]
struct Clock;

impl Service for Clock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Clock)
    }
}

impl Clock {
    #[guarded]
    fn hour(&self) -> Result<u8, Error> {
        #![allow(unused_variables)]
        let unused = 0;
        Ok(7)
    }
}

pub(super) fn main() {
    #[setup]
    fn configure() -> anyhow::Result<()> {
        Ok(())
    }
    assert_eq!(Clock::hour().unwrap(), 7);
}
