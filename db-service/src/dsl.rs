//! A diesel backend for both databases: diesel builds a query for [`MultiBackend`], and the connection that runs it
//! decides at run time which SQL and which values the query becomes.
//!
//! diesel's trait for backends is public only with the feature
//! `i-implement-a-third-party-backend-and-opt-into-breaking-changes`.

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
