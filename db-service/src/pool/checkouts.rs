//! The current checkouts, and the warning about leaked connections.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::Holder;

/// The current checkouts, the oldest first.
#[derive(Debug)]
pub(crate) struct Checkouts {
    threshold: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    out: BTreeMap<u64, Outstanding>,
}

#[derive(Debug)]
struct Outstanding {
    location: &'static Location<'static>,
    since: Instant,
    /// Whether the leak was logged.
    is_reported: bool,
}

/// One checkout, until it is dropped.
#[derive(Debug)]
pub(crate) struct Checkout {
    number: u64,
    since: Instant,
    checkouts: Arc<Checkouts>,
}

impl Checkouts {
    pub(crate) fn new(threshold: Option<Duration>) -> Self {
        Checkouts {
            threshold,
            state: Mutex::default(),
        }
    }

    pub(crate) fn begin(
        checkouts: &Arc<Checkouts>,
        location: &'static Location<'static>,
    ) -> Checkout {
        let mut state = checkouts.state.lock();
        let number = state.next;
        state.next += 1;
        let since = Instant::now();
        let out = Outstanding {
            location,
            since,
            is_reported: false,
        };
        state.out.insert(number, out);
        Checkout {
            number,
            since,
            checkouts: Arc::clone(checkouts),
        }
    }

    /// Calls `ask` with the number of current checkouts, which does not change meanwhile.
    pub(crate) fn with_count<R>(&self, ask: impl FnOnce(usize) -> R) -> R {
        let state = self.state.lock();
        ask(state.out.len())
    }

    pub(crate) fn longest(&self) -> Option<Holder> {
        let state = self.state.lock();
        let (_, oldest) = state.out.first_key_value()?;
        Some(Holder {
            location: oldest.location,
            held: oldest.since.elapsed(),
        })
    }

    /// Logs each checkout that exceeds the leak threshold, once. Runs at each checkout and return.
    pub(crate) fn warn_of_leaks(&self) {
        let Some(threshold) = self.threshold else {
            return;
        };
        let mut told = Vec::new();
        for out in self.state.lock().out.values_mut() {
            let held = out.since.elapsed();
            if held < threshold {
                break;
            }
            if !std::mem::replace(&mut out.is_reported, true) {
                told.push((out.location, held));
            }
        }
        for (location, held) in told {
            log::warn!(
                "a connection has been held for {held:.1?}, checked out at {location}; it may have leaked"
            );
        }
    }
}

impl Checkout {
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.checkouts.warn_of_leaks();
        self.checkouts.state.lock().out.remove(&self.number);
    }
}
