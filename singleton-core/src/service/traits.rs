//! The traits of a service: those its author writes, and those `#[service]` writes.

use std::future::{self, Future};

use super::descriptor::{Descriptor, Kind};
use super::ready::Ready;
use super::stop::Stop;

/// What the author of a service says about it: how it starts, how it is checked and how it stops.
///
/// # Examples
///
/// ```
/// use singleton_core::{Error, Service, guarded, service};
///
/// #[service]
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Service for Greeter {
///     fn initialize() -> anyhow::Result<Self> {
///         Ok(Greeter { greeting: "Hello".to_owned() })
///     }
/// }
///
/// impl Greeter {
///     #[guarded]
///     fn greet(&self, name: &str) -> Result<String, Error> {
///         Ok(format!("{}, {name}!", self.greeting))
///     }
/// }
///
/// assert_eq!(Greeter::greet("Ada")?, "Hello, Ada!");
/// # Ok::<(), Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "the service `{Self}` does not say how it is initialised",
    label = "has no `impl Service`",
    note = "write `impl Service for {Self} {{ fn initialize() -> anyhow::Result<Self> {{ … }} }}`"
)]
pub trait Service: Sized + Send + Sync + 'static {
    /// Makes the instance; whatever `#[requires]` lists is ready when this runs.
    ///
    /// # Errors
    ///
    /// Any: the caller gets it as the cause of an [`Error`](crate::Error), and the next use of the
    /// service tries again from the start.
    fn initialize() -> anyhow::Result<Self>;

    /// Checks that the instance works; runs once after [`initialize`](Service::initialize), and on
    /// demand later. The default finds nothing wrong.
    ///
    /// # Errors
    ///
    /// Any; on the first run it keeps the service from becoming ready.
    fn ping(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Releases what the instance holds; nobody calls the service afterwards. The default does nothing.
    ///
    /// # Errors
    ///
    /// Any; it is logged.
    fn shutdown(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What the author of a `#[service(async)]` says about it, in the place of [`Service`].
///
/// The initialisation is carried on by the tasks that await it, on whatever executor they run: it
/// needs none of its own, nobody's thread is blocked, and when the task that began it is cancelled
/// another goes on where it stopped. It must not block; what does belongs into a [`Service`].
///
/// # Examples
///
/// ```
/// use singleton_core::{AsyncService, Error, guarded, service};
///
/// #[service(async)]
/// struct Session {
///     token: String,
/// }
///
/// impl AsyncService for Session {
///     async fn initialize() -> anyhow::Result<Self> {
///         Ok(Session { token: log_in().await? })
///     }
/// }
///
/// impl Session {
///     #[guarded]
///     async fn get(&self, path: &str) -> Result<String, Error> {
///         Ok(format!("{path} as {}", self.token))
///     }
/// }
/// # async fn log_in() -> anyhow::Result<String> { Ok("ada".to_owned()) }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Error> {
/// assert_eq!(Session::get("/").await?, "/ as ada");
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "the asynchronous service `{Self}` does not say how it is initialised",
    label = "has no `impl AsyncService`",
    note = "write `impl AsyncService for {Self} {{ async fn initialize() -> anyhow::Result<Self> {{ … }} }}`"
)]
pub trait AsyncService: Sized + Send + Sync + 'static {
    /// Makes the instance; whatever `#[requires]` lists is ready when this runs.
    ///
    /// # Errors
    ///
    /// As those of [`Service::initialize`].
    fn initialize() -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Checks that the instance works, as [`Service::ping`] does.
    ///
    /// # Errors
    ///
    /// As those of [`Service::ping`].
    fn ping(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        future::ready(Ok(()))
    }

    /// Releases what the instance holds, as [`Service::shutdown`] does.
    ///
    /// # Errors
    ///
    /// As those of [`Service::shutdown`].
    fn shutdown(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        future::ready(Ok(()))
    }
}

/// What a `#[service(background)]` does on a thread of its own, which bears its name.
///
/// The thread begins when the service has become ready. If `run` returns or panics before it was
/// asked to stop that is logged, counted in [`ping_all`](crate::Registry::ping_all), and `run` is
/// called again after a pause: 100 ms at first, twice as long each time, at most 30 s, with jitter,
/// and from the beginning again once it has run for a minute. At shutdown it is asked to stop and
/// waited for; `shutdown` of the service comes after that.
#[diagnostic::on_unimplemented(
    message = "the background service `{Self}` does not say what it does",
    label = "has no `impl BackgroundService`",
    note = "write `impl BackgroundService for {Self} {{ fn run(&self, stop: &Stop) -> anyhow::Result<()> {{ … }} }}`"
)]
pub trait BackgroundService: Send + Sync + 'static {
    /// Works until `stop` says to end.
    ///
    /// # Errors
    ///
    /// Any; it is logged, and unless the service is to end `run` is called again.
    fn run(&self, stop: &Stop) -> anyhow::Result<()>;
}

/// What `#[requires]` may list: a type with `#[service]`, or `dyn Trait` of a trait with `#[service]`.
///
/// The attribute implements it, and nothing else should.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "put `#[service]` on the struct and write `impl Service` for it; of a `dyn Trait`, put `#[service]` on the trait"
)]
pub trait Requirement: 'static {
    /// The topological level: 1 without requirements, else one more than the highest among them.
    ///
    /// A cycle among `#[requires]` is a cycle in the definition of these constants, so it does not compile.
    const RANK: usize;

    /// Whether it, or anything that it requires, initialises asynchronously.
    const ASYNC: bool;

    #[doc(hidden)]
    fn descriptor() -> &'static Descriptor;
}

/// A struct with `#[service]`; the attribute implements it, and nothing else should.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "put `#[service]` on `{Self}` and write `impl Service for {Self}`"
)]
pub trait Singleton: Requirement + Sized + Send + Sync {
    #[doc(hidden)]
    fn ready() -> &'static Ready<Self>;

    #[doc(hidden)]
    const KIND: Kind<Self>;
}
