//! The services that a caller sees, for other threads and tasks.

use std::fmt;
use std::future::Future;
use std::io;
use std::thread;

use crate::engine::{self, ContainerId, Context, InContext};
use crate::threads;

/// The services that the caller sees: the process's, or those of a test [`Scope`](crate::testing::Scope).
///
/// A thread or task begins outside all scopes. Code that hands work to another one takes its context along, so that
/// tests of the code can run in a scope. Outside scopes, this costs nothing.
///
/// # Examples
///
/// ```
/// use singleton_core::testing::Scope;
/// use singleton_core::{ServiceContext, env};
///
/// # #[tokio::main]
/// # async fn main() {
/// async fn port() -> Option<String> {
///     let context = ServiceContext::current();
///     let read = context.wrap(|| env::var("PORT").ok());
///     tokio::task::spawn_blocking(read).await.expect("it does not panic")
/// }
///
/// let port = Scope::new().env("PORT", "8080").run_async(port());
/// assert_eq!(port.await.as_deref(), Some("8080"));
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceContext(Context);

impl ServiceContext {
    /// Returns the caller's context: its innermost scope, or outside scopes the process.
    pub fn current() -> Self {
        ServiceContext(Context::current())
    }

    /// Runs `work` in this context on the calling thread.
    ///
    /// After the end of a scope, guarded calls return [`ErrorKind::ShutDown`](crate::ErrorKind::ShutDown). The context
    /// of the process leaves all scopes.
    pub fn sync_scope<R>(&self, work: impl FnOnce() -> R) -> R {
        let _context = self.0.enter();
        work()
    }

    /// Returns a future that runs `future` in this context, on any thread that polls it.
    ///
    /// # Examples
    ///
    /// ```
    /// use singleton_core::testing::Scope;
    /// use singleton_core::{ServiceContext, env};
    ///
    /// # #[tokio::main]
    /// # async fn main() {
    /// let port = Scope::new().env("PORT", "8080").run_async(async {
    ///     let context = ServiceContext::current();
    ///     tokio::spawn(context.scope(async { env::var("PORT") })).await
    /// });
    /// assert_eq!(port.await.unwrap().as_deref(), Ok("8080"));
    /// # }
    /// ```
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        InContext::new(self.0.clone(), future)
    }

    /// Returns a closure that runs `work` in this context, for another thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// use singleton_core::testing::Scope;
    /// use singleton_core::{ServiceContext, env};
    ///
    /// let port = Scope::new().env("PORT", "8080").run(|| {
    ///     let context = ServiceContext::current();
    ///     thread::spawn(context.wrap(|| env::var("PORT"))).join()
    /// });
    /// assert_eq!(port.unwrap().as_deref(), Ok("8080"));
    /// ```
    pub fn wrap<R, W: FnOnce() -> R>(&self, work: W) -> impl FnOnce() -> R + use<R, W> {
        let context = self.0.clone();
        move || {
            let _context = context.enter();
            work()
        }
    }

    /// Runs `work` in this context on the calling thread.
    #[deprecated(note = "use `sync_scope`")]
    pub fn enter<R>(&self, work: impl FnOnce() -> R) -> R {
        self.sync_scope(work)
    }

    /// Starts a thread in this context.
    ///
    /// # Errors
    ///
    /// Returns an error if the operating system cannot start a thread.
    #[deprecated(note = "pass `wrap(work)` to `std::thread::spawn`")]
    pub fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<thread::JoinHandle<R>> {
        threads::spawn("scope", self.wrap(work))
    }

    /// Returns a future that runs `work` in this context.
    #[deprecated(note = "use `scope`")]
    pub fn carry<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        self.scope(work)
    }

    /// Returns the services of the context that are ready, in the order in which they became ready.
    #[deprecated(note = "use `Scope::initialized()` inside the scope")]
    pub fn initialized(&self) -> Vec<&'static str> {
        self.ready_services()
    }

    /// Asserts that exactly these services are ready in the context, and became ready in this order.
    ///
    /// # Panics
    ///
    /// Panics if others are ready, or if the order differs.
    #[deprecated(note = "compare `Scope::initialized()`")]
    #[track_caller]
    pub fn assert_initialized<'a>(&self, expected: impl AsRef<[&'a str]>) {
        let (initialized, expected) = (self.ready_services(), expected.as_ref());
        assert!(
            initialized == expected,
            "the services initialized in this scope are {initialized:?}, expected {expected:?}"
        );
    }

    pub(crate) fn ready_services(&self) -> Vec<&'static str> {
        let engine = engine::lock();
        let container = engine.container(self.0.container);
        let started = container
            .into_iter()
            .flat_map(|container| &container.started);
        started.map(|service| service.name()).collect()
    }
}

impl fmt::Debug for ServiceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0.container {
            ContainerId::PROCESS => "process",
            _ => "scope",
        };
        formatter
            .debug_tuple("ServiceContext")
            .field(&kind)
            .finish()
    }
}
