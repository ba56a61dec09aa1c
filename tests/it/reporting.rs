//! Reports to the user: errors, log lines and statistics.

mod errors;
pub(crate) mod logs;
mod statistics;
