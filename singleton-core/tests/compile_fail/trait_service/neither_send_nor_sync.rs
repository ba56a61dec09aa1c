use singleton_core::service;

#[service]
trait Clock: 'static {
    fn hour(&self) -> u32;
}

fn main() {}
