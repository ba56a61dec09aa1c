//! One run of `start_all` or a part of it, as the attempts that belong to it see it.

use std::sync::Arc;

use super::current::Context;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// A start, for as long as one of its attempts runs.
pub(crate) struct StartRun {
    pub(crate) context: Context,
    /// The number of attempts that have begun and not ended. Changed under the engine's lock.
    running: AtomicUsize,
    /// Whether the start has failed. Changed under the engine's lock.
    has_failed: AtomicBool,
    /// Shuts down what a failed start had started.
    pub(crate) take_back: fn(&Arc<StartRun>),
}

impl StartRun {
    pub(crate) fn new(context: Context, take_back: fn(&Arc<StartRun>)) -> Self {
        StartRun {
            context,
            running: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            take_back,
        }
    }

    pub(super) fn attempt_begins(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt out. Returns whether it was the last one of a failed start, so that the caller must take back
    /// what is left.
    pub(super) fn attempt_ends(&self) -> bool {
        let was_last = self.running.fetch_sub(1, Ordering::Relaxed) == 1;
        was_last && self.has_failed.load(Ordering::Relaxed)
    }

    /// Marks the start as failed. The engine must be locked.
    pub(super) fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
    }
}
