//! Whose work the calling thread does: which realm it is in, and which attempt it carries on.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::attempt::Attempt;
use super::container::RealmId;
use super::state::lock;

#[cfg(not(loom))]
thread_local! {
    /// The realm whose instances the thread sees.
    static CURRENT_REALM: Cell<RealmId> = const { Cell::new(RealmId::PROCESS) };
    /// The attempts that run on this thread, the innermost last.
    static RUNNING: RefCell<Vec<Arc<Attempt>>> = const { RefCell::new(Vec::new()) };
    /// Whether it shuts a service down.
    static STOPPING: Cell<bool> = const { Cell::new(false) };
}

#[cfg(loom)]
loom::thread_local! {
    static CURRENT_REALM: Cell<RealmId> = Cell::new(RealmId::PROCESS);
    static RUNNING: RefCell<Vec<Arc<Attempt>>> = RefCell::new(Vec::new());
    static STOPPING: Cell<bool> = Cell::new(false);
}

/// The realm whose instances the calling thread sees.
pub(crate) fn current_realm() -> RealmId {
    // Destructors of other thread-locals may call services when this one is gone.
    CURRENT_REALM
        .try_with(Cell::get)
        .unwrap_or(RealmId::PROCESS)
}

/// Makes `realm` the calling thread's until the value is dropped.
pub(crate) struct Entered {
    realm: RealmId,
    previous: RealmId,
}

pub(crate) fn enter(realm: RealmId) -> Entered {
    if realm != RealmId::PROCESS {
        lock().divert();
    }
    let previous = CURRENT_REALM.try_with(|current| current.replace(realm));
    Entered {
        realm,
        previous: previous.unwrap_or(RealmId::PROCESS),
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // As in `current_realm`.
        let _ = CURRENT_REALM.try_with(|current| current.set(self.previous));
        if self.realm != RealmId::PROCESS {
            lock().undivert();
        }
    }
}

/// Marks an attempt as the innermost of this thread, in its realm, until the value is dropped.
pub(crate) struct Running {
    marked: bool,
    _realm: Option<Entered>,
}

impl Running {
    pub(crate) fn enter(attempt: &Arc<Attempt>) -> Self {
        let foreign = current_realm() != attempt.realm;
        // Destructors of other thread-locals may start services when ours is gone; then nothing is marked.
        let marked = RUNNING.try_with(|running| running.borrow_mut().push(Arc::clone(attempt)));
        Running {
            marked: marked.is_ok(),
            _realm: foreign.then(|| enter(attempt.realm)),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.marked {
            let ended = RUNNING.try_with(|running| running.borrow_mut().pop());
            drop(ended);
        }
    }
}

/// The attempt that the calling thread carries on, if it is within one.
pub(crate) fn innermost() -> Option<Arc<Attempt>> {
    RUNNING
        .try_with(|running| running.borrow().last().cloned())
        .ok()
        .flatten()
}

/// Marks that the calling thread shuts a service down, until the value is dropped.
pub(crate) struct Stopping(bool);

impl Stopping {
    pub(crate) fn enter() -> Self {
        // As in `Running`.
        Stopping(
            STOPPING
                .try_with(|stopping| stopping.replace(true))
                .unwrap_or(false),
        )
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        let _ = STOPPING.try_with(|stopping| stopping.set(self.0));
    }
}

/// Tells whether the calling thread shuts a service down.
pub(crate) fn is_stopping() -> bool {
    STOPPING.try_with(Cell::get).unwrap_or(false)
}

/// A future that is polled as part of an attempt.
pub(crate) struct PartOf<F> {
    attempt: Arc<Attempt>,
    inner: Pin<Box<F>>,
}

impl<F: Future> PartOf<F> {
    pub(crate) fn new(attempt: &Arc<Attempt>, inner: F) -> Self {
        PartOf {
            attempt: Arc::clone(attempt),
            inner: Box::pin(inner),
        }
    }
}

impl<F: Future> Future for PartOf<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let PartOf { attempt, inner } = &mut *self;
        let _running = Running::enter(attempt);
        let _span = attempt.span.enter();
        inner.as_mut().poll(context)
    }
}

/// A future that is polled inside a realm.
pub(crate) struct Inside<F> {
    realm: RealmId,
    inner: Pin<Box<F>>,
}

impl<F: Future> Inside<F> {
    pub(crate) fn new(realm: RealmId, inner: F) -> Self {
        Inside {
            realm,
            inner: Box::pin(inner),
        }
    }
}

impl<F: Future> Future for Inside<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let _entered = enter(self.realm);
        self.inner.as_mut().poll(context)
    }
}
