//! Transactions: commit, rollback, savepoints and conflicts.

mod commit_and_rollback;
mod conflicts;
mod ended;
mod model;
mod outcomes;
