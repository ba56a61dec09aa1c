//! One connection to either backend: opened, observed, queried, and in transactions.
//!
//! Each file uses only those above it in this list.

mod batch;
mod cursor;
mod diesel_traits;
mod establish;
mod execute;
mod instrumentation;
mod known_statements;
mod multi;
#[cfg(feature = "postgres")]
mod parameter_types;
mod query;
#[cfg(feature = "postgres")]
mod relayed;
mod reset;
mod session;
mod transaction;

pub use cursor::MultiCursor;
pub(crate) use establish::Connector;
#[cfg(feature = "sqlite")]
pub(crate) use execute::note_names;
pub(crate) use known_statements::KnownStatement;
pub use multi::Connection;
pub(crate) use multi::on_each;
pub(crate) use session::Purpose;
pub(crate) use transaction::transact;
pub use transaction::{Isolation, MultiTransactionManager, TransactionOptions};
