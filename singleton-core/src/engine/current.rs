//! The calling thread's state: its context, the attempts that it runs, and the service whose life it runs.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task;

use super::attempt::Attempt;
use super::container::ContainerId;
use super::scope_state::ScopeState;
use crate::service::{Descriptor, Instance};

/// A service whose `shutdown` or `run` the thread executes.
#[derive(Clone, Copy)]
struct OwnService {
    container: ContainerId,
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    is_shutting_down: bool,
}

#[cfg(not(loom))]
thread_local! {
    /// The container whose instances the thread sees. Apart from the scope, because it needs no destructor and so
    /// costs one load.
    static CURRENT_CONTAINER: Cell<ContainerId> = const { Cell::new(ContainerId::PROCESS) };
    /// The scope of that container, if it is one.
    static CURRENT_SCOPE: RefCell<Option<Arc<ScopeState>>> = const { RefCell::new(None) };
    /// The attempts that run on this thread, the innermost last.
    static ATTEMPTS: RefCell<Vec<Arc<Attempt>>> = const { RefCell::new(Vec::new()) };
    static OWN_SERVICE: Cell<Option<OwnService>> = const { Cell::new(None) };
}

#[cfg(loom)]
loom::thread_local! {
    static CURRENT_CONTAINER: Cell<ContainerId> = Cell::new(ContainerId::PROCESS);
    static CURRENT_SCOPE: RefCell<Option<Arc<ScopeState>>> = RefCell::new(None);
    static ATTEMPTS: RefCell<Vec<Arc<Attempt>>> = RefCell::new(Vec::new());
    static OWN_SERVICE: Cell<Option<OwnService>> = Cell::new(None);
}

/// A set of instances that code can run in: the process's, or a scope's.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) container: ContainerId,
    scope: Option<Arc<ScopeState>>,
}

impl Context {
    /// The process's instances.
    pub(crate) const PROCESS: Context = Context {
        container: ContainerId::PROCESS,
        scope: None,
    };

    pub(super) fn of_scope(container: ContainerId, scope: Arc<ScopeState>) -> Self {
        Context {
            container,
            scope: Some(scope),
        }
    }

    /// Returns the calling thread's context.
    pub(crate) fn current() -> Self {
        // Destructors of other thread-locals may call services after these are destroyed.
        let scope = CURRENT_SCOPE.try_with(|scope| scope.borrow().clone());
        match scope {
            Ok(Some(scope)) => Context::of_scope(current_container(), scope),
            _ => Context::PROCESS,
        }
    }

    /// Returns a reference that does not keep the scope's state.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn downgrade(&self) -> Option<std::sync::Weak<ScopeState>> {
        self.scope.as_ref().map(Arc::downgrade)
    }

    /// Keeps the calling thread in this context until the value is dropped.
    pub(crate) fn enter(&self) -> ContextGuard {
        if current_container() == self.container {
            return ContextGuard {
                entered: None,
                previous: None,
            };
        }
        if let Some(scope) = &self.scope {
            scope.enter();
        }
        let previous = Context::current();
        self.make_current();
        ContextGuard {
            entered: self.scope.clone(),
            previous: Some(previous),
        }
    }

    fn make_current(&self) {
        // An error means that the thread is ending; see `current`.
        let entered = CURRENT_SCOPE.try_with(|scope| scope.replace(self.scope.clone()));
        if entered.is_ok() {
            let _ = CURRENT_CONTAINER.try_with(|current| current.set(self.container));
        }
    }
}

/// Returns the container whose instances the calling thread sees.
#[inline]
pub(crate) fn current_container() -> ContainerId {
    CURRENT_CONTAINER
        .try_with(Cell::get)
        .unwrap_or(ContainerId::PROCESS)
}

/// Returns the service's instance if it is ready in the calling thread's scope. Takes no lock.
///
/// Returns `None` during an initialization, so that the slow path records the use.
pub(crate) fn ready_in_scope(service: &Descriptor) -> Option<&'static dyn Instance> {
    let is_initializing = ATTEMPTS.try_with(|attempts| !attempts.borrow().is_empty());
    if is_initializing.unwrap_or(true) {
        return None;
    }
    CURRENT_SCOPE
        .try_with(|scope| scope.borrow().as_ref()?.ready(service))
        .ok()
        .flatten()
}

/// Keeps the calling thread in a context; see [`Context::enter`].
pub(crate) struct ContextGuard {
    entered: Option<Arc<ScopeState>>,
    /// The context before; `None` if the thread was in the same one.
    previous: Option<Context>,
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        if let Some(previous) = &self.previous {
            previous.make_current();
        }
        if let Some(scope) = &self.entered {
            scope.leave();
        }
    }
}

/// Makes an attempt the thread's innermost one, in its container, until the value is dropped.
pub(crate) struct AttemptGuard {
    marked: bool,
    _context: ContextGuard,
}

impl AttemptGuard {
    pub(crate) fn enter(attempt: &Arc<Attempt>) -> Self {
        let context = attempt.context.enter();
        // Destructors of other thread-locals may start services after this one is destroyed. Then the attempt is not
        // recorded.
        let marked = ATTEMPTS.try_with(|attempts| attempts.borrow_mut().push(Arc::clone(attempt)));
        AttemptGuard {
            marked: marked.is_ok(),
            _context: context,
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

/// Lets the calling thread use a service that it shuts down or runs in the background, until the value is dropped.
pub(crate) struct OwnServiceGuard(Option<OwnService>);

impl OwnServiceGuard {
    /// Marks that the thread shuts the service down.
    pub(crate) fn shutdown(
        container: ContainerId,
        service: &'static Descriptor,
        instance: &'static dyn Instance,
    ) -> Self {
        Self::enter(OwnService {
            container,
            service,
            instance,
            is_shutting_down: true,
        })
    }

    /// Marks that the thread is the service's own.
    pub(crate) fn background(
        container: ContainerId,
        service: &'static Descriptor,
        instance: &'static dyn Instance,
    ) -> Self {
        Self::enter(OwnService {
            container,
            service,
            instance,
            is_shutting_down: false,
        })
    }

    fn enter(own: OwnService) -> Self {
        // An error means that the thread is ending; see `AttemptGuard`.
        OwnServiceGuard(
            OWN_SERVICE
                .try_with(|current| current.replace(Some(own)))
                .ok()
                .flatten(),
        )
    }
}

impl Drop for OwnServiceGuard {
    fn drop(&mut self) {
        let _ = OWN_SERVICE.try_with(|current| current.set(self.0));
    }
}

fn own_service() -> Option<OwnService> {
    OWN_SERVICE.try_with(Cell::get).ok().flatten()
}

/// Returns the instance of the service if the calling thread shuts it down or is its background thread.
pub(crate) fn own_instance(
    container: ContainerId,
    service: &Descriptor,
) -> Option<&'static dyn Instance> {
    own_service()
        .filter(|own| own.container == container && own.service == service)
        .map(|own| own.instance)
}

/// Returns whether the calling thread shuts a service down.
pub(crate) fn is_shutting_down() -> bool {
    own_service().is_some_and(|own| own.is_shutting_down)
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

    fn poll(mut self: Pin<&mut Self>, task: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        let InAttempt { attempt, inner } = &mut *self;
        let _attempt = AttemptGuard::enter(attempt);
        let _span = attempt.span.enter();
        inner.as_mut().poll(task)
    }
}

/// A future that is polled inside a context.
pub(crate) struct InContext<F> {
    context: Context,
    /// `None` while it is being dropped.
    inner: Option<Pin<Box<F>>>,
}

impl<F: Future> InContext<F> {
    pub(crate) fn new(context: Context, inner: F) -> Self {
        InContext {
            context,
            inner: Some(Box::pin(inner)),
        }
    }
}

impl<F> Drop for InContext<F> {
    fn drop(&mut self) {
        // The destructors of a cancelled future may call services.
        let _context = self.context.enter();
        self.inner = None;
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, task: &mut task::Context<'_>) -> task::Poll<Self::Output> {
        let InContext { context, inner } = &mut *self;
        let _context = context.enter();
        match inner {
            Some(inner) => inner.as_mut().poll(task),
            None => task::Poll::Pending,
        }
    }
}
