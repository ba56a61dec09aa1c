//! One connection to either backend: opened, observed, queried, and in transactions.

mod establish;
mod instrumentation;
#[allow(
    missing_docs,
    reason = "the code that diesel's derive generates is not documented"
)]
mod multi;
#[cfg(feature = "postgres")]
mod parameter_types;
mod prepared;
mod query;
#[cfg(feature = "postgres")]
mod relayed;
mod transaction;

pub(crate) use establish::Connector;
pub(crate) use instrumentation::{StatementContext, is_measured, with_context, without_context};
pub use multi::{DbConnection as Connection, MultiBackend};
#[cfg(feature = "postgres")]
pub(crate) use query::execute_many;
pub(crate) use query::on_each;
pub use transaction::{Isolation, TransactionOptions};
