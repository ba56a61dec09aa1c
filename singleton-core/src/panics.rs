//! Panics of user code, as values.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};

/// Runs `work`, which is user code. Returns the panic message if it panics.
pub(crate) fn catch_panic<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(panic_message)
}

/// Returns the message of a panic, and drops its payload.
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let message = if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "with a value that is no text".to_owned()
    };
    // The payload's destructor is user code too. A panic in it is ignored, because the first one is reported.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    message
}
