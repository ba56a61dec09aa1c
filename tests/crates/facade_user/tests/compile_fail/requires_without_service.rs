use facade::singleton_core::requires;

#[requires()]
struct Shop;

fn main() {}
