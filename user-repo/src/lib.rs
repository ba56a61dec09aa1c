#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

mod error;
mod migrations;
mod password;
mod repository;
mod user;
mod validation;

pub use error::{UserError, ValidationFault};
pub use migrations::MIGRATIONS;
pub use password::{Argon2Params, PasswordService};
pub use repository::UserRepository;
pub use user::{ListUsers, User, UserStats, UserUpdate};
