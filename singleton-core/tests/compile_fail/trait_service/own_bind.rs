use singleton_core::service;

#[service]
trait Clock: Send + Sync {
    fn hour(&self) -> u32;
}

impl dyn Clock {
    fn bind(port: u32) -> u32 {
        port
    }
}

fn main() {}
