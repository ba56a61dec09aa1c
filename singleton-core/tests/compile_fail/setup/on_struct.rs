use singleton_core::setup;

#[setup]
struct Configure;

fn main() {}
