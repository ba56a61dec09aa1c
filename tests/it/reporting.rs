//! Reports to the user: errors, log lines and statistics.

pub(crate) mod errors;
pub(crate) mod logs;
mod statistics;
