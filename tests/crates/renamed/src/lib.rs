//! A service of a package that renames its dependency on singleton-core.

use sc::{Error, Service, guarded, service};

/// A clock that shows a fixed hour.
#[service]
#[derive(Debug)]
pub struct Clock {
    hour: u32,
}

impl Service for Clock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Clock { hour: 9 })
    }
}

impl Clock {
    /// Returns the hour.
    ///
    /// # Errors
    ///
    /// Returns an error if the clock could not be initialized.
    #[guarded]
    pub fn hour(&self) -> Result<u32, Error> {
        Ok(self.hour)
    }
}
