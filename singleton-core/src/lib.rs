#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

mod descriptor;
mod engine;
mod error;
mod initialization;
mod ready;
mod registry;
mod service;
pub mod testing;

#[doc(hidden)]
pub mod __private;

pub use error::Error;
pub use registry::{Registry, ServiceInfo, State, registry};
pub use service::{Service, Singleton};
pub use singleton_macros::{guarded, requires, service};
