//! One connection to either backend: opened, observed, queried, and in transactions.
//!
//! From bottom to top, each file calls only methods of those before it:
//!
//! 1. `multi`: the enum
//! 2. `session`, with `transaction_state`, `attempt`, `known_statements` and `instrumentation`: what is known of the connection
//! 3. `execute`: statements, run once
//! 4. `transaction`: begin, commit, rollback, retries
//! 5. `parameter_types`, `query`, `batch`: statements with parameters
//! 6. `reset`, `establish` with `relayed` and `sqlite_path`: the begin and the end of a checkout
//! 7. `diesel_traits` with `cursor`: the connection as one of diesel

mod attempt;
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
#[cfg(feature = "sqlite")]
mod sqlite_path;
mod transaction;
mod transaction_state;

pub use cursor::MultiCursor;
pub(crate) use establish::{Closing, Connector};
#[cfg(feature = "sqlite")]
pub(crate) use execute::note_names;
pub(crate) use known_statements::KnownStatement;
pub use multi::Connection;
pub(crate) use multi::on_each;
pub(crate) use session::Purpose;
pub(crate) use transaction::transact;
pub use transaction::{Isolation, MultiTransactionManager, TransactionOptions};
