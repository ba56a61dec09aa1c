//! A library with a service that no code refers to.

use singleton_core::{Service, service};

#[service(eager)]
struct Plugin;

impl Service for Plugin {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Plugin)
    }
}
