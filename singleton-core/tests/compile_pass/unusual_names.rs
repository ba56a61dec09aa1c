//! Names of users that are also names in the expansions.
#![allow(non_camel_case_types, non_upper_case_globals, dead_code)]

use singleton_core::{Error, Service, guarded, requires, service};

type usize = u8;
type bool = u16;
struct Result;
struct Option;
struct Box;
const DESCRIPTOR: u8 = 0;
const READY: u8 = 0;
static instance: u8 = 0;
static implementation: u8 = 0;
static service: u8 = 0;

/// A trait with the most common name of a type parameter, and without `'static`.
#[service]
trait T: Send + Sync {
    fn hour(&self) -> u8;
}

macro_rules! alarm {
    ($name:ident requires $service:ty) => {
        #[service]
        #[requires($service, (dyn T))]
        struct $name;
    };
}

#[service]
struct Clock(usize);

impl T for Clock {
    fn hour(&self) -> u8 {
        self.0
    }
}

alarm!(Alarm requires Clock);

impl Service for Clock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Clock(7))
    }
}

impl Service for Alarm {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Alarm)
    }
}

impl Alarm {
    #[guarded]
    fn rings_at(&self) -> std::result::Result<u8, Error> {
        Ok(<dyn T>::instance()?.hour())
    }
}

pub(super) fn main() {
    <dyn T>::bind::<Clock>().unwrap();
    assert_eq!(Alarm::rings_at().unwrap(), 7);
}
