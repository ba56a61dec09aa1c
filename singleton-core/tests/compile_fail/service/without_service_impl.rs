use singleton_core::service;

#[service]
struct Shop;

fn main() {}
