//! Many rows in, many rows out.

mod bulk;
#[cfg(feature = "postgres")]
mod copy;
#[cfg(feature = "postgres")]
mod cursor;
#[cfg(feature = "sqlite")]
mod sqlite_insert;
mod stream;

pub(crate) use stream::{Each, stop_on_error};
