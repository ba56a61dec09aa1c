//! Environment variables, which a test scope can replace.

use std::env;
pub use std::env::VarError;
use std::ffi::{OsStr, OsString};

use crate::engine;

/// Returns the value of an environment variable, like [`std::env::var`].
///
/// Inside a [`Scope`](crate::testing::Scope), the scope's variables replace those of the process. So a service that
/// reads its settings with this function can be tested with different settings in parallel, without changes to the
/// process's environment.
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

/// Returns the value of an environment variable, like [`std::env::var_os`]; `None` if it is not set.
///
/// Inside a [`Scope`](crate::testing::Scope), the scope's variables replace those of the process, as in [`var`].
pub fn var_os(name: impl AsRef<OsStr>) -> Option<OsString> {
    let name = name.as_ref();
    let scoped = {
        let engine = engine::lock();
        // A scope that has ended has no variables, and it must not see the process's.
        let container = engine.container(engine::current_container())?;
        container.environment.get(name).cloned()
    };
    scoped.unwrap_or_else(|| env::var_os(name))
}

/// Returns the names of all environment variables, in no particular order. Their values are left out, because they may
/// be secrets.
///
/// Inside a [`Scope`](crate::testing::Scope), the scope's variables are among them, and those that it removes are not.
///
/// # Examples
///
/// ```
/// use singleton_core::{env, testing::Scope};
///
/// let names = Scope::new().env("PORT", "8080").run(env::names);
/// assert!(names.iter().any(|name| name == "PORT"));
/// ```
pub fn names() -> Vec<OsString> {
    let scoped = {
        let engine = engine::lock();
        let Some(container) = engine.container(engine::current_container()) else {
            return Vec::new();
        };
        container.environment.clone()
    };
    let process = env::vars_os().map(|(name, _)| name);
    let inherited = process.filter(|name| !scoped.contains_key(name));
    let set = scoped.iter().filter(|(_, value)| value.is_some());
    inherited.chain(set.map(|(name, _)| name.clone())).collect()
}
