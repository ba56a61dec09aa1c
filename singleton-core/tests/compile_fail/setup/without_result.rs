use singleton_core::setup;

#[setup]
fn configure() {}

fn main() {}
