//! The request to stop that a background thread receives.

use std::fmt;
use std::future::{self, Future};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::panics::catch_panic;
use crate::sync::{Condvar, Mutex, lock, wait_until};

/// The request to a [background service](crate::BackgroundService) to stop.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use singleton_core::{BackgroundService, Service, Stop, service};
///
/// #[service(background)]
/// struct Heartbeat;
///
/// impl Service for Heartbeat {
///     fn initialize() -> anyhow::Result<Self> {
///         Ok(Heartbeat)
///     }
/// }
///
/// impl BackgroundService for Heartbeat {
///     fn run(&self, stop: &Stop) -> anyhow::Result<()> {
///         while !stop.wait(Duration::from_secs(10)) {
///             log::info!("alive");
///         }
///         Ok(())
///     }
/// }
/// # use singleton_core::testing::Scope;
/// # Scope::new().run(|| Heartbeat::instance().map(|_| ()))?;
/// # Ok::<(), singleton_core::Error>(())
/// ```
pub struct Stop {
    state: Mutex<StopState>,
    changed: Condvar,
}

#[derive(Default)]
struct StopState {
    requested: bool,
    /// The tasks that wait for the request.
    wakers: Vec<Waker>,
}

impl Stop {
    pub(crate) fn new() -> Self {
        Stop {
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Returns whether the service was asked to stop.
    pub fn is_requested(&self) -> bool {
        lock(&self.state).requested
    }

    /// Waits for `duration`, or until the service is asked to stop. Returns whether it was asked to stop.
    #[must_use = "`true` means that the service must stop"]
    pub fn wait(&self, duration: Duration) -> bool {
        // A deadline that overflows is never reached.
        self.wait_until(Instant::now().checked_add(duration))
    }

    /// Waits until the service is asked to stop, without a timeout.
    pub fn wait_for_request(&self) {
        self.wait_until(None);
    }

    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> bool {
        let mut state = lock(&self.state);
        while !state.requested && deadline.is_none_or(|deadline| Instant::now() < deadline) {
            state = wait_until(&self.changed, state, deadline);
        }
        state.requested
    }

    /// Waits like [`wait_for_request`](Stop::wait_for_request), without blocking the thread.
    pub(crate) fn requested(&self) -> impl Future<Output = ()> + Unpin + '_ {
        future::poll_fn(|context| {
            let mut state = lock(&self.state);
            if state.requested {
                return Poll::Ready(());
            }
            let is_registered = |waker: &Waker| waker.will_wake(context.waker());
            if !state.wakers.iter().any(is_registered) {
                state.wakers.push(context.waker().clone());
            }
            Poll::Pending
        })
    }

    pub(crate) fn request(&self) {
        let wakers = {
            let mut state = lock(&self.state);
            state.requested = true;
            std::mem::take(&mut state.wakers)
        };
        self.changed.notify_all();
        for waker in wakers {
            let _ = catch_panic(|| waker.wake());
        }
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Stop")
            .field("is_requested", &self.is_requested())
            .finish()
    }
}
