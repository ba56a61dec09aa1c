//! Environment variables as the services of a test scope see them.

use std::env;
pub use std::env::VarError;
use std::ffi::{OsStr, OsString};

use crate::engine;

/// Reads an environment variable as [`std::env::var`] does, except that inside a
/// [`Scope`](crate::testing::Scope) what the scope says of the variable comes first.
///
/// A service that reads its settings this way can be tested with other settings, in parallel, without
/// changing the process's environment.
///
/// # Errors
///
/// The variable is not set, or its value is not Unicode.
///
/// # Examples
///
/// ```
/// use singleton_core::{env, testing::Scope};
///
/// let port = Scope::new().env("PORT", "8080").run(|| env::var("PORT"));
/// assert_eq!(port.as_deref(), Ok("8080"));
/// assert!(env::var("PORT").is_err(), "the process has no such variable");
/// ```
pub fn var(name: impl AsRef<OsStr>) -> Result<String, VarError> {
    match var_os(name) {
        Some(value) => value.into_string().map_err(VarError::NotUnicode),
        None => Err(VarError::NotPresent),
    }
}

/// The same for any value, as [`std::env::var_os`] reads it; none if the variable is not set.
pub fn var_os(name: impl AsRef<OsStr>) -> Option<OsString> {
    let name = name.as_ref();
    let scoped = {
        let engine = engine::lock();
        // Of a scope that has ended nothing is known any more, and the process's variables are not for it.
        let container = engine.container(engine::current_container())?;
        container.environment.get(name).cloned()
    };
    scoped.unwrap_or_else(|| env::var_os(name))
}
