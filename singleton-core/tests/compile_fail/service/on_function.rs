use singleton_core::service;

#[service]
fn shop() {}

fn main() {}
