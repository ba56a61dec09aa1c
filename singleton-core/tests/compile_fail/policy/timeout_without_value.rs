use singleton_core::{Service, service};

#[service(init_timeout)]
struct Mailer;

impl Service for Mailer {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Mailer)
    }
}

fn main() {}
