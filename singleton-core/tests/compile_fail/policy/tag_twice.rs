use singleton_core::{Service, service};

#[service(tags("readiness", "liveness", "readiness"))]
struct Mailer;

impl Service for Mailer {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Mailer)
    }
}

fn main() {}
