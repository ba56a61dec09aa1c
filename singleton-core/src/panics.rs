//! Panics of users' code, as values.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// Runs `work`, which is a user's, and gives the message of its panic if it panics.
pub(crate) fn catch_panic<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(panic_message)
}

/// The message of a panic, whose payload is dropped.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "with a value that is no text".to_owned()
    };
    // The payload is the user's as well, and so is its destructor; a second panic is not worth more than the first.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}
