//! Two crates in one program, each with a `#[setup]` function.

use singleton_core::__private::{Setup, inventory};
use singleton_core::{Service, service, setup};

#[setup]
fn configure() -> anyhow::Result<()> {
    panic!("neither setup function may run")
}

// The expansion of the attribute in another crate. A second `#[setup]` in this crate would not compile.
inventory::submit! { Setup::new("another::configure", || Ok(())) }

#[service]
struct Shop;

impl Service for Shop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Shop)
    }
}

#[test]
fn two_setup_functions_are_both_named() {
    assert_eq!(
        Shop::instance().err().unwrap().to_string(),
        "two setup functions: another::configure and two_setups::configure; keep #[setup] on one of them"
    );
}
