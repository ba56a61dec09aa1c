//! An error prints its causes and does not return them from `source()`, so no report prints a message twice.

use std::error::Error as StdError;
use std::iter;

use db_service::{ConfigFault, DbError, MigrationError};
use user_repo::UserError;

/// Returns the errors below an error: those that `cause()` returns, and those that other crates return from
/// `source()`.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(below(error), |error| below(*error))
}

fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    None.or_else(|| error.downcast_ref::<DbError>()?.cause())
        .or_else(|| error.downcast_ref::<MigrationError>()?.cause())
        .or_else(|| error.downcast_ref::<ConfigFault>()?.cause())
        .or_else(|| error.downcast_ref::<UserError>()?.cause())
        .or_else(|| error.source())
}
