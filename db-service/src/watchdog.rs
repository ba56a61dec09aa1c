//! Timeouts for servers that do not answer, and for calls of a driver that may never return.

mod bounded;
#[cfg(feature = "postgres")]
mod deadline;
#[cfg(feature = "postgres")]
mod relay;

pub(crate) use bounded::{CallError, CallLimit, run_with_timeout};
#[cfg(feature = "postgres")]
pub(crate) use deadline::{AnswerTimeout, Watchdog, WatchedConnection};
#[cfg(feature = "postgres")]
pub(crate) use relay::{Destination, Keepalive, Link, Relay};
