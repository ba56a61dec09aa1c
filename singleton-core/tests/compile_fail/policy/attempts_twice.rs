use singleton_core::{Service, service};

#[service(retry(attempts = 2, attempts = 3))]
struct Mailer;

impl Service for Mailer {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Mailer)
    }
}

fn main() {}
