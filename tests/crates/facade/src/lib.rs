//! A library that re-exports singleton-core, so that its users need no dependency on it.

pub use {anyhow, singleton_core};
