//! The user repository on top of the database service.

mod accounts;
mod fake_database;
mod python_program;
