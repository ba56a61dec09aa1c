//! The calling thread's state: its container, and the attempts that it runs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::attempt::Attempt;
use super::container::ContainerId;
use super::state::lock;

#[cfg(not(loom))]
thread_local! {
    /// The container whose instances the thread sees.
    static CURRENT_CONTAINER: Cell<ContainerId> = const { Cell::new(ContainerId::PROCESS) };
    /// The attempts that run on this thread, the innermost last.
    static ATTEMPTS: RefCell<Vec<Arc<Attempt>>> = const { RefCell::new(Vec::new()) };
    /// Whether the thread shuts a service down.
    static SHUTTING_DOWN: Cell<bool> = const { Cell::new(false) };
}

#[cfg(loom)]
loom::thread_local! {
    static CURRENT_CONTAINER: Cell<ContainerId> = Cell::new(ContainerId::PROCESS);
    static ATTEMPTS: RefCell<Vec<Arc<Attempt>>> = RefCell::new(Vec::new());
    static SHUTTING_DOWN: Cell<bool> = Cell::new(false);
}

/// Returns the container whose instances the calling thread sees.
pub(crate) fn current_container() -> ContainerId {
    // Destructors of other thread-locals may call services after this one is destroyed.
    CURRENT_CONTAINER
        .try_with(Cell::get)
        .unwrap_or(ContainerId::PROCESS)
}

/// Keeps the calling thread in a container until the value is dropped.
pub(crate) struct ContainerGuard {
    container: ContainerId,
    previous: ContainerId,
}

pub(crate) fn enter(container: ContainerId) -> ContainerGuard {
    if container != ContainerId::PROCESS {
        lock().enter_scope();
    }
    let previous = CURRENT_CONTAINER.try_with(|current| current.replace(container));
    ContainerGuard {
        container,
        previous: previous.unwrap_or(ContainerId::PROCESS),
    }
}

impl Drop for ContainerGuard {
    fn drop(&mut self) {
        // An error means that the thread is ending; see `current_container`.
        let _ = CURRENT_CONTAINER.try_with(|current| current.set(self.previous));
        if self.container != ContainerId::PROCESS {
            lock().leave_scope();
        }
    }
}

/// Makes an attempt the thread's innermost one, in its container, until the value is dropped.
pub(crate) struct AttemptGuard {
    marked: bool,
    _container: Option<ContainerGuard>,
}

impl AttemptGuard {
    pub(crate) fn enter(attempt: &Arc<Attempt>) -> Self {
        let is_other = current_container() != attempt.container;
        // Destructors of other thread-locals may start services after this one is destroyed. Then the attempt is not
        // recorded.
        let marked = ATTEMPTS.try_with(|attempts| attempts.borrow_mut().push(Arc::clone(attempt)));
        AttemptGuard {
            marked: marked.is_ok(),
            _container: is_other.then(|| enter(attempt.container)),
        }
    }
}

impl Drop for AttemptGuard {
    fn drop(&mut self) {
        if self.marked {
            let attempt = ATTEMPTS.try_with(|attempts| attempts.borrow_mut().pop());
            drop(attempt);
        }
    }
}

/// Returns the innermost attempt that the calling thread runs.
pub(crate) fn current_attempt() -> Option<Arc<Attempt>> {
    ATTEMPTS
        .try_with(|attempts| attempts.borrow().last().cloned())
        .ok()
        .flatten()
}

/// Marks that the calling thread shuts a service down, until the value is dropped.
pub(crate) struct ShutdownGuard(bool);

impl ShutdownGuard {
    pub(crate) fn enter() -> Self {
        // An error means that the thread is ending; see `AttemptGuard`.
        ShutdownGuard(
            SHUTTING_DOWN
                .try_with(|shutting_down| shutting_down.replace(true))
                .unwrap_or(false),
        )
    }
}

impl Drop for ShutdownGuard {
    fn drop(&mut self) {
        let _ = SHUTTING_DOWN.try_with(|shutting_down| shutting_down.set(self.0));
    }
}

/// Returns whether the calling thread shuts a service down.
pub(crate) fn is_shutting_down() -> bool {
    SHUTTING_DOWN.try_with(Cell::get).unwrap_or(false)
}

/// A future that is polled as part of an attempt.
pub(crate) struct InAttempt<F> {
    attempt: Arc<Attempt>,
    inner: Pin<Box<F>>,
}

impl<F: Future> InAttempt<F> {
    pub(crate) fn new(attempt: &Arc<Attempt>, inner: F) -> Self {
        InAttempt {
            attempt: Arc::clone(attempt),
            inner: Box::pin(inner),
        }
    }
}

impl<F: Future> Future for InAttempt<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let InAttempt { attempt, inner } = &mut *self;
        let _attempt = AttemptGuard::enter(attempt);
        let _span = attempt.span.enter();
        inner.as_mut().poll(context)
    }
}

/// A future that is polled inside a container.
pub(crate) struct InContainer<F> {
    container: ContainerId,
    inner: Pin<Box<F>>,
}

impl<F: Future> InContainer<F> {
    pub(crate) fn new(container: ContainerId, inner: F) -> Self {
        InContainer {
            container,
            inner: Box::pin(inner),
        }
    }
}

impl<F: Future> Future for InContainer<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _container = enter(self.container);
        self.inner.as_mut().poll(context)
    }
}
