//! Databases for tests: one of its own for each test, removed when the test ends.

mod cluster;
mod database;
mod pgbouncer;
mod server;
mod shop;
mod unprivileged;

pub use database::{TestDatabase, cheap_passwords};
pub use pgbouncer::TestPgBouncer;
pub use server::{Frozen, TestServer};
pub use shop::{ENDLESS_MIGRATIONS, QUICK_MIGRATIONS, SHOP_MIGRATIONS};

/// The README's code has to run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
