//! The engine's locks: from std, or with `--cfg loom` from the model checker.

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

/// Locks a mutex. Poisoning is ignored: no user code runs under these locks, so a panic leaves the data intact.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification until `deadline`. Like any wait on a condition variable, it can end early.
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
