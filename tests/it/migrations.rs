//! Migrations: applying them, their history, and processes that are killed.

mod apply;
mod history;
mod killed_process;
