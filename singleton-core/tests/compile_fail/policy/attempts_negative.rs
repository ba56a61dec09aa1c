use singleton_core::{Service, service};

#[service(retry(attempts = -1))]
struct Mailer;

impl Service for Mailer {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Mailer)
    }
}

fn main() {}
