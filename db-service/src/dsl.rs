#![doc = include_str!("../DIESEL.md")]

mod backend;
mod binds;
mod delegated;
mod rows;
mod syntax;
mod types;

pub use backend::{MultiBackend, MultiTypeMetadata, MultiValue};
pub use binds::{MultiBindCollector, MultiBindValue, MultiQueryBuilder};
pub(crate) use delegated::{ByReference, Delegated};
pub use rows::{MultiField, MultiRow};
#[doc(hidden)]
pub use types::__private;
