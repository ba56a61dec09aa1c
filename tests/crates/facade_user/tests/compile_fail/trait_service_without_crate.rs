use facade::singleton_core::service;

#[service]
trait Clock: Send + Sync {
    fn hour(&self) -> u32;
}

fn main() {}
