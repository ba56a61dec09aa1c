use singleton_core::{Service, service};

#[service]
struct Shop<T> {
    goods: Vec<T>,
}

impl<T: Send + Sync + 'static> Service for Shop<T> {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop { goods: Vec::new() })
    }
}

fn main() {}
