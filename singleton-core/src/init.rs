//! The slow path of a `#[guarded]` call: returns the instance, waits for another thread that creates it, or creates it.

mod asynchronous;
mod blocking;
mod provide;
mod steps;

pub(crate) use asynchronous::{get_or_init as get_or_init_async, resolve as resolve_async};
#[cfg(all(test, loom))]
pub(crate) use blocking::run_attempt;
pub(crate) use blocking::{finish, get_or_init, resolve};
pub use provide::{bind, provide, provide_chosen};
pub(crate) use steps::record_cycle;
