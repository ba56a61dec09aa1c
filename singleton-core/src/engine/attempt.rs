//! One attempt to initialize a service, and the ways to wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{self, Poll, Waker};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Shared};

use super::container::ContainerId;
use super::current::Context;
use super::start_run::StartRun;
use super::state;
use crate::error::Error;
use crate::panics::catch_panic;
use crate::service::{DEFAULT_SHUTDOWN_TIMEOUT, Descriptor, Instance, Retry, ServicePolicy};
use crate::sync::{AtomicBool, AtomicUsize, Condvar, Mutex, Ordering, lock, wait_until};
use crate::telemetry;

/// The outcome of an attempt. All waiters get the same one.
pub(crate) type Outcome = Result<&'static dyn Instance, Error>;

/// The time that a service's own initialization took, without its dependencies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) started_at: Instant,
    pub(crate) own_time: Duration,
}

/// On whose behalf an attempt begins.
#[derive(Clone, Default)]
pub(crate) struct Origin {
    /// The retries of the dependent, which count for a service without its own.
    pub(crate) retry: Option<Retry>,
    /// The start that the attempt is part of.
    pub(crate) start: Option<Arc<StartRun>>,
    /// Whether not the dependent itself requires the service, but one of its dependencies.
    pub(crate) is_indirect: bool,
}

/// A future that all waiters of an attempt poll.
pub(crate) type AttemptFuture = Shared<BoxFuture<'static, Outcome>>;

/// One initialization of a service, its dependencies included; or one shutdown that must end before the service can
/// start again.
pub(crate) struct Attempt {
    pub(crate) id: u64,
    pub(crate) container: ContainerId,
    pub(crate) context: Context,
    pub(crate) service: &'static Descriptor,
    pub(crate) init_timeout: Option<Duration>,
    /// When callers stop waiting; `None` without an `init_timeout`.
    pub(crate) deadline: Option<Instant>,
    /// The timeout of the shutdown of an instance that comes too late.
    pub(crate) shutdown_timeout: Duration,
    /// Whether the service has retries of its own.
    pub(crate) has_own_retry: bool,
    retry: Mutex<Option<Retry>>,
    start: Mutex<Option<Arc<StartRun>>>,
    /// Whether `provide` or `bind` replaces `initialize`.
    pub(crate) is_provided: bool,
    /// The required services that were not ready when the attempt began. The ready ones are the service's dependencies
    /// already.
    pub(crate) missing: Vec<&'static Descriptor>,
    pub(crate) outcome: OnceLock<Outcome>,
    /// The first cycle that a call in `initialize` or `ping` returned.
    pub(crate) cycle: OnceLock<Box<Error>>,
    pub(crate) timing: OnceLock<Timing>,
    /// The future that runs an asynchronous service's attempt. Any waiter may poll it.
    future: Mutex<Option<AttemptFuture>>,
    pub(crate) span: telemetry::Span,
    /// Whether the callers that began the attempt have given it up. Changed under the engine's lock.
    abandoned: AtomicBool,
    /// The number of threads that wait. Changed under the engine's lock.
    waiting: AtomicUsize,
    done: Condvar,
    wakers: Mutex<Vec<Waker>>,
}

impl Attempt {
    pub(crate) fn new(
        id: u64,
        context: Context,
        service: &'static Descriptor,
        policy: &ServicePolicy,
        is_provided: bool,
        missing: Vec<&'static Descriptor>,
        origin: Origin,
    ) -> Self {
        if let Some(start) = &origin.start {
            start.attempt_begins();
        }
        Attempt {
            id,
            container: context.container,
            context,
            service,
            init_timeout: policy.init_timeout,
            // A deadline that overflows is never reached.
            deadline: policy
                .init_timeout
                .and_then(|limit| Instant::now().checked_add(limit)),
            shutdown_timeout: policy.shutdown_timeout.unwrap_or(DEFAULT_SHUTDOWN_TIMEOUT),
            has_own_retry: policy.retry.is_some(),
            retry: Mutex::new(policy.retry.or(origin.retry)),
            start: Mutex::new(origin.start),
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

    /// Ends the attempt. The engine must be locked, so that no waiting thread misses it.
    pub(crate) fn set_outcome(&self, outcome: &Outcome) {
        // An attempt ends once, so the outcome is not set yet.
        let _ = self.outcome.set(outcome.clone());
        // A notification is a system call even without waiters.
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.done.notify_all();
        }
    }

    /// Returns the origin of an attempt that begins because this one needs its service.
    ///
    /// The retries count for declared dependencies. A service that `initialize` calls is retried together with
    /// `initialize`.
    pub(crate) fn origin_for(&self, dependency: &Descriptor) -> Origin {
        let is_declared = self.missing.contains(&dependency);
        Origin {
            retry: self.retry().filter(|_| is_declared),
            start: lock(&self.start).clone(),
            is_indirect: false,
        }
    }

    /// Returns the retries: the service's own, or the most patient ones of the callers that wait for the attempt.
    pub(crate) fn retry(&self) -> Option<Retry> {
        *lock(&self.retry)
    }

    /// Adds the retries of another caller, unless the service has its own.
    pub(super) fn add_retry(&self, retry: Option<Retry>) {
        if !self.has_own_retry {
            let mut own = lock(&self.retry);
            *own = Retry::most_patient(*own, retry);
        }
    }

    /// Takes the attempt out of its start.
    pub(super) fn take_start(&self) -> Option<Arc<StartRun>> {
        lock(&self.start).take()
    }

    /// Makes a future run the attempt.
    pub(crate) fn set_future(&self, future: AttemptFuture) {
        *lock(&self.future) = Some(future);
    }

    /// Returns the future that runs the attempt, or `None` if a thread runs it.
    pub(crate) fn future(&self) -> Option<AttemptFuture> {
        lock(&self.future).clone()
    }

    /// Removes and returns the future that runs the attempt if no task polls it, so that the caller can drop it.
    pub(crate) fn take_unpolled(&self) -> Option<AttemptFuture> {
        let mut future = lock(&self.future);
        let is_unpolled = |future: &AttemptFuture| future.strong_count() == Some(1);
        if future.as_ref().is_some_and(is_unpolled) {
            future.take()
        } else {
            None
        }
    }

    /// Gives the attempt up: a late instance is shut down.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Takes back that the attempt was given up, because another caller waits for it.
    pub(crate) fn adopt(&self) {
        if self.abandoned.swap(false, Ordering::Relaxed)
            && let Some(start) = self.take_start()
        {
            start.attempt_ends();
        }
    }

    /// Returns the duration of the service's own `initialize` and `ping`, or zero if they did not run.
    pub(crate) fn own_time(&self) -> Duration {
        self.timing
            .get()
            .map_or(Duration::ZERO, |time| time.own_time)
    }

    /// Returns whether the deadline has passed.
    pub(crate) fn is_overdue(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Wakes the tasks that wait for the attempt. The engine must be unlocked, because a waker is foreign code.
    pub(crate) fn wake_tasks(&self) {
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        for waker in wakers {
            let _ = catch_panic(|| waker.wake());
        }
    }

    /// Blocks until the attempt has ended. Returns `None` if the deadline passes first.
    pub(crate) fn wait(&self) -> Option<&Outcome> {
        self.wait_until(self.deadline)
    }

    /// Blocks like [`wait`](Attempt::wait), with the caller's deadline.
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

    /// Waits like [`wait`](Attempt::wait), without blocking the thread.
    pub(crate) fn completion(self: &Arc<Self>) -> Completion {
        Completion {
            attempt: Arc::clone(self),
            timer: self.deadline.map(|deadline| {
                futures_timer::Delay::new(deadline.saturating_duration_since(Instant::now()))
            }),
        }
    }
}

/// A future that is ready when an attempt on a thread has ended, or with `None` when its deadline has passed.
pub(crate) struct Completion {
    attempt: Arc<Attempt>,
    timer: Option<futures_timer::Delay>,
}

impl Future for Completion {
    type Output = Option<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        // Register the waker before reading the outcome: the thread that ends the attempt sets the outcome before it
        // wakes.
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
