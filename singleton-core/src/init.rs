//! The slow path of a guarded call: finds the instance, waits for it, or makes it.

mod asynchronous;
mod blocking;
mod provide;
mod steps;

pub(crate) use asynchronous::{obtain as obtain_async, resolve as resolve_async};
#[cfg(all(test, loom))]
pub(crate) use blocking::conduct;
pub(crate) use blocking::{conclude, obtain, resolve};
pub use provide::{bind, provide, provide_chosen};
pub(crate) use steps::remember_cycle;
