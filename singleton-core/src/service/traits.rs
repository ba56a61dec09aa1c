//! The traits of a service: those that its author implements, and those that `#[service]` implements.

use std::future::{self, Future};

use super::descriptor::{Descriptor, Kind};
use super::erased::note_default_shutdown;
use super::ready::Ready;
use super::stop::Stop;

/// A service's life: how it initializes, how its health is checked, and how it shuts down.
///
/// The methods are not `async`. For `async fn initialize`, write `#[service(async)]` and implement [`AsyncService`].
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
    message = "the service `{Self}` has no `initialize`",
    label = "has no `impl Service`",
    note = "write `impl Service for {Self} {{ fn initialize() -> anyhow::Result<Self> {{ … }} }}`"
)]
pub trait Service: Sized + Send + Sync + 'static {
    /// Creates the instance. All services that `#[requires]` lists are ready.
    ///
    /// # Errors
    ///
    /// Any error. The caller receives it as the cause of an [`Error`](crate::Error), and the next call of the
    /// service tries again from the start.
    fn initialize() -> anyhow::Result<Self>;

    /// Checks that the instance works. Runs once after [`initialize`](Service::initialize), and later on demand.
    ///
    /// The default returns `Ok`.
    ///
    /// # Errors
    ///
    /// Any error. After `initialize`, an error prevents the service from becoming ready, except
    /// [`Degraded`](crate::Degraded).
    fn ping(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Releases the instance's resources. The service's dependents have shut down, and its dependencies are ready.
    ///
    /// This method can use the service's own guarded methods and those of its dependencies. Other callers get
    /// [`ErrorKind::ShutDown`](crate::ErrorKind::ShutDown). Calls in flight are not waited for and may run beside this
    /// method.
    ///
    /// The instance is never dropped, neither afterwards nor at exit, because guarded methods return `&'static` borrows
    /// of it. So this method must write out what a destructor would, such as the end of a
    /// [`BufWriter`](std::io::BufWriter). It also runs for an instance from `provide`.
    ///
    /// The default does nothing. A service without a `shutdown` of its own needs no thread for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::fs::File;
    /// use std::io::{BufWriter, Write};
    /// use std::sync::Mutex;
    ///
    /// use singleton_core::testing::Scope;
    /// use singleton_core::{Service, guarded, service};
    ///
    /// #[service]
    /// struct Journal {
    ///     file: Mutex<BufWriter<File>>,
    /// }
    ///
    /// impl Service for Journal {
    ///     fn initialize() -> anyhow::Result<Self> {
    ///         anyhow::bail!("the example provides it")
    ///     }
    ///
    ///     fn shutdown(&self) -> anyhow::Result<()> {
    ///         Journal::write("the end")?;
    ///         self.file.lock().unwrap().flush()?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// impl Journal {
    ///     #[guarded]
    ///     fn write(&self, line: &str) -> anyhow::Result<()> {
    ///         writeln!(self.file.lock().unwrap(), "{line}")?;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let path = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
    /// let file = Mutex::new(BufWriter::new(File::create(&path)?));
    /// Scope::new().provide(Journal { file }).run(|| Journal::write("the begin"))?;
    /// let text = std::fs::read_to_string(&path)?;
    /// std::fs::remove_file(&path)?;
    /// assert_eq!(text, "the begin\nthe end\n");
    /// # anyhow::Ok(())
    /// ```
    ///
    /// # Errors
    ///
    /// Any error. It is logged and reported.
    fn shutdown(&self) -> anyhow::Result<()> {
        note_default_shutdown::<Self>();
        Ok(())
    }
}

/// The life of a `#[service(async)]`, in place of [`Service`].
///
/// The tasks that await the service poll its initialization, on their own executor. It blocks no thread, and if the
/// task that began it is cancelled, another task continues it. It must not block; put blocking work into a [`Service`].
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
    message = "the asynchronous service `{Self}` has no `initialize`",
    label = "has no `impl AsyncService`",
    note = "write `impl AsyncService for {Self} {{ async fn initialize() -> anyhow::Result<Self> {{ … }} }}`"
)]
pub trait AsyncService: Sized + Send + Sync + 'static {
    /// Creates the instance. All services that `#[requires]` lists are ready.
    ///
    /// # Errors
    ///
    /// Any error, as in [`Service::initialize`].
    fn initialize() -> impl Future<Output = anyhow::Result<Self>> + Send;

    /// Checks that the instance works, as [`Service::ping`] does.
    ///
    /// # Errors
    ///
    /// Any error, as in [`Service::ping`].
    fn ping(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        future::ready(Ok(()))
    }

    /// Releases what the instance holds, as [`Service::shutdown`] does. The service can use itself while this future is
    /// polled.
    ///
    /// # Errors
    ///
    /// Any error, as in [`Service::shutdown`].
    fn shutdown(&self) -> impl Future<Output = anyhow::Result<()>> + Send {
        note_default_shutdown::<Self>();
        future::ready(Ok(()))
    }
}

/// The work of a `#[service(background)]` on its own thread, which has the service's name.
///
/// The thread starts when the service becomes ready. If `run` returns or panics before it was asked to stop, that is
/// logged and reported by [`ping_all`](crate::Registry::ping_all), and `run` is called again after a pause. The pause
/// is 100 ms at first, doubles each time up to 30 s, has jitter, and starts at 100 ms again after `run` has worked for
/// a minute. At shutdown, `run` is asked to stop and its end is awaited; then the service's `shutdown` runs.
#[diagnostic::on_unimplemented(
    message = "the background service `{Self}` has no `run`",
    label = "has no `impl BackgroundService`",
    note = "write `impl BackgroundService for {Self} {{ fn run(&self, stop: &Stop) -> anyhow::Result<()> {{ … }} }}`"
)]
pub trait BackgroundService: Send + Sync + 'static {
    /// Works until `stop` is requested. Until it returns, it can use the service's own guarded methods, although other
    /// callers cannot anymore.
    ///
    /// # Errors
    ///
    /// Any error. It is logged, and `run` is called again unless `stop` was requested.
    fn run(&self, stop: &Stop) -> anyhow::Result<()>;
}

/// A possible entry of `#[requires]`: a type with `#[service]`, or `dyn Trait` of a trait with `#[service]`.
///
/// Only the attribute implements this trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "put `#[service]` on the struct and write `impl Service` for it; for a `dyn Trait`, put `#[service]` on the trait"
)]
pub trait Requirement: 'static {
    /// The topological level: 1 for a service without dependencies, otherwise one more than its dependencies' maximum.
    ///
    /// A cycle among `#[requires]` does not compile.
    const RANK: usize;

    /// Whether the service or one of its dependencies initializes asynchronously.
    const ASYNC: bool;

    #[doc(hidden)]
    type Place;

    #[doc(hidden)]
    const PLACE: Self::Place;

    #[doc(hidden)]
    fn descriptor() -> &'static Descriptor;
}

/// A struct with `#[service]`. Only the attribute implements this trait.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "put `#[service]` on `{Self}` and write `impl Service for {Self}`",
    note = "a method with `#[guarded]` belongs in an inherent `impl` of the struct, not in a trait"
)]
pub trait Singleton: Requirement + Sized + Send + Sync {
    #[doc(hidden)]
    fn ready() -> &'static Ready<Self>;

    #[doc(hidden)]
    const KIND: Kind<Self>;
}
