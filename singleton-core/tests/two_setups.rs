//! Two crates with a set-up function each, in one program.

use singleton_core::__private::{Setup, inventory};
use singleton_core::{Service, service, setup};

#[setup]
fn configure() -> anyhow::Result<()> {
    panic!("which of the two should come first?")
}

// What the attribute makes of a function in another crate; in this one a second is no longer compiled.
inventory::submit! { Setup::new("another::configure", || Ok(())) }

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

#[test]
fn both_are_named() {
    assert_eq!(
        Shop::instance().err().unwrap().to_string(),
        "two setup functions: another::configure and two_setups::configure; keep #[setup] on one of them"
    );
}
