use singleton_core::{requires, service};

#[service]
#[requires(Settings)]
trait Clock: Send + Sync + 'static {
    fn hour(&self) -> u32;
}

fn main() {}
