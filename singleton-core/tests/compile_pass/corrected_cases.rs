//! The compile-fail cases without their mistakes.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs)]
#![allow(unreachable_pub, reason = "a library would export these items")]

use std::sync::atomic::{AtomicU32, Ordering};

use singleton_core::{Error, Service, guarded, requires, service};

/// Settings.
#[service]
pub struct Settings;

impl Service for Settings {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Settings)
    }
}

/// A shop.
#[requires(Settings)]
#[service]
#[derive(Debug, Default)]
pub struct Shop {
    visitors: AtomicU32,
}

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop::default())
    }
}

impl Shop {
    /// Counts a visitor.
    #[guarded]
    pub fn visit(&self) -> Result<u32, Error> {
        Ok(self.visitors.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Sells.
    #[guarded]
    pub fn sell(count: u32) -> Result<u32, Error> {
        Ok(count)
    }
}

pub(super) fn main() {
    assert_eq!(Shop::visit().unwrap() + Shop::sell(1).unwrap(), 2);
}
