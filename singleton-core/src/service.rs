//! The two traits of a service: the one its author writes, and the one `#[service]` writes.

use crate::descriptor::Descriptor;
use crate::ready::Ready;

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

/// A type with `#[service]`; the attribute implements it, and nothing else should.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service",
    label = "not a service",
    note = "put `#[service]` on `{Self}` and write `impl Service for {Self}`"
)]
pub trait Singleton: Service {
    /// The topological level: 1 without requirements, else one more than the highest among them.
    ///
    /// A cycle among `#[requires]` is a cycle in the definition of these constants, so it does not compile.
    const RANK: usize;

    #[doc(hidden)]
    fn ready() -> &'static Ready<Self>;

    #[doc(hidden)]
    fn descriptor() -> &'static Descriptor;
}
