use singleton_core::service;

#[service(eager)]
trait Clock: Send + Sync + 'static {
    fn hour(&self) -> u32;
}

fn main() {}
