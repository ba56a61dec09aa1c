//! Databases for tests: one of its own for each test, removed when the test ends.

mod cluster;
mod database;

pub use database::{TestDatabase, cheap_passwords};

/// The README's code has to run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
