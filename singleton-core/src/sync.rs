//! The locks of the engine: those of std, or under `--cfg loom` those of the model checker.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::{Condvar, Mutex, MutexGuard};

use std::sync::PoisonError;
use std::time::Instant;

/// Locks; what a panic left behind is as good as ever, since no code of a user runs under a lock of ours.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, at the latest until `deadline`. Like any wait on a condition it may end early.
pub(crate) fn wait_until<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Option<Instant>,
) -> MutexGuard<'a, T> {
    match deadline {
        None => condition
            .wait(guard)
            .unwrap_or_else(PoisonError::into_inner),
        Some(deadline) => {
            let rest = deadline.saturating_duration_since(Instant::now());
            let waited = condition.wait_timeout(guard, rest);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
    }
}
