//! One run of a service's initialisation, and how others wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};

use super::container::ContainerId;
use super::state;
use crate::error::Error;
use crate::panics::catch_panic;
use crate::service::{Descriptor, Instance};
use crate::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, lock, wait_until};
use crate::telemetry;

/// The outcome of an attempt: everyone who waited for it gets the same.
pub(crate) type Outcome = Result<&'static dyn Instance, Error>;

/// When a service was made, requirements not included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) started_at: Instant,
    pub(crate) own_time: Duration,
}

/// A future that everyone who waits for an attempt polls.
pub(crate) type AttemptFuture = Shared<BoxFuture<'static, Outcome>>;

/// One run of a service's initialisation, its requirements included; or of its shutdown before it starts anew.
pub(crate) struct Attempt {
    pub(crate) id: u64,
    pub(crate) container: ContainerId,
    pub(crate) service: &'static Descriptor,
    /// When callers stop waiting; none where the service has no `init_timeout`.
    pub(crate) deadline: Option<Instant>,
    /// Whether something takes the place of `initialize`.
    pub(crate) is_provided: bool,
    /// What the service requires and was not ready; to what was, it holds on.
    pub(crate) missing: Vec<&'static Descriptor>,
    pub(crate) outcome: OnceLock<Outcome>,
    /// The first cycle that `initialize` or `ping` ran into.
    pub(crate) cycle: OnceLock<Box<Error>>,
    pub(crate) timing: OnceLock<Timing>,
    /// What carries on an asynchronous service's attempt, whoever polls it.
    future: Mutex<Option<AttemptFuture>>,
    pub(crate) span: telemetry::Span,
    /// Set, under the engine's lock, when those who began the attempt have given it up.
    abandoned: AtomicBool,
    /// How many threads wait; changed under the engine's lock.
    waiting: AtomicUsize,
    done: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

impl Attempt {
    pub(crate) fn new(
        id: u64,
        container: ContainerId,
        service: &'static Descriptor,
        is_provided: bool,
        missing: Vec<&'static Descriptor>,
    ) -> Self {
        Attempt {
            id,
            container,
            service,
            // Too far away to be told is as good as never.
            deadline: service
                .policy
                .init_timeout
                .and_then(|limit| Instant::now().checked_add(limit)),
            is_provided,
            missing,
            outcome: OnceLock::new(),
            cycle: OnceLock::new(),
            timing: OnceLock::new(),
            future: Mutex::new(None),
            span: telemetry::Span::default(),
            abandoned: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            done: Condvar::new(),
            wakers: Mutex::new(Vec::new()),
        }
    }

    /// Ends the attempt; called with the engine locked, so that no thread that waits can miss it.
    pub(crate) fn set_outcome(&self, outcome: &Outcome) {
        // Nobody else sets it: an attempt ends once.
        let _ = self.outcome.set(outcome.clone());
        // A notification is a call of the system, also if nobody waits.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.done.notify_all();
        }
    }

    /// Has the attempt carried on by a future.
    pub(crate) fn set_future(&self, future: AttemptFuture) {
        *lock(&self.future) = Some(future);
    }

    /// What carries the attempt on; none if that is a thread.
    pub(crate) fn future(&self) -> Option<AttemptFuture> {
        lock(&self.future).clone()
    }

    /// Takes away the future that carries the attempt on if nobody polls it, for it to be dropped.
    pub(crate) fn take_unpolled(&self) -> Option<AttemptFuture> {
        let mut future = lock(&self.future);
        let is_unpolled = |future: &AttemptFuture| future.strong_count() == Some(1);
        if future.as_ref().is_some_and(is_unpolled) {
            future.take()
        } else {
            None
        }
    }

    /// Gives the attempt up, so that an instance that comes late is released; or takes it up again.
    pub(crate) fn abandon(&self, abandoned: bool) {
        self.abandoned.store(abandoned, Ordering::Relaxed);
    }

    /// How long the service's own `initialize` and `ping` took; zero if the attempt did not come to them.
    pub(crate) fn own_time(&self) -> Duration {
        self.timing
            .get()
            .map_or(Duration::ZERO, |time| time.own_time)
    }

    /// Tells whether callers wait for it no longer.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Wakes the tasks that wait for the end; called with the engine unlocked, for a waker is foreign code.
    pub(crate) fn wake_tasks(&self) {
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        for waker in wakers {
            let _ = catch_panic(|| waker.wake());
        }
    }

    /// Waits until the attempt has ended, on whatever thread it runs, or is overdue: then there is no outcome.
    pub(crate) fn wait(&self) -> Option<&Outcome> {
        self.wait_until(self.deadline)
    }

    /// The same with a deadline of the caller's.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Option<&Outcome> {
        if self.outcome.get().is_none() {
            let mut engine = state::lock();
            self.waiting.fetch_add(1, Ordering::Relaxed);
            while self.outcome.get().is_none()
                && deadline.is_none_or(|deadline| Instant::now() < deadline)
            {
                engine = wait_until(&self.done, engine, deadline);
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.outcome.get()
    }

    /// The same as [`wait`](Attempt::wait), for a task.
    pub(crate) fn completion(self: &Arc<Self>) -> Completion {
        Completion {
            attempt: Arc::clone(self),
            timer: self.deadline.map(|deadline| {
                futures_timer::Delay::new(deadline.saturating_duration_since(Instant::now()))
            }),
        }
    }
}

/// Ready when an attempt on another thread has ended, or with `None` when it is overdue.
pub(crate) struct Completion {
    attempt: Arc<Attempt>,
    timer: Option<futures_timer::Delay>,
}

impl Future for Completion {
    type Output = Option<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // First the waker, then the look: who ends the attempt does it the other way round.
        {
            let mut wakers = lock(&self.attempt.wakers);
            if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
                wakers.push(context.waker().clone());
            }
        }
        if let Some(outcome) = self.attempt.outcome.get() {
            return Poll::Ready(Some(outcome.clone()));
        }
        match &mut self.timer {
            Some(timer) => Pin::new(timer).poll(context).map(|()| None),
            None => Poll::Pending,
        }
    }
}
