use singleton_core::service;

#[service]
trait Clock: Send {}

fn main() {}
