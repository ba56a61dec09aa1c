#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

mod attributes;
mod guarded;
mod policy;
mod requires;
mod service;
mod setup;
mod trait_service;

use proc_macro::TokenStream;

/// Makes a struct a service, a type of which the process has exactly one instance; or makes a trait one
/// whose implementation is chosen elsewhere.
///
/// See `singleton_core`'s documentation; use it from there.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), item.into()).into()
}

/// Names the services that must be ready before this one initialises.
///
/// See `singleton_core`'s documentation; use it from there.
#[proc_macro_attribute]
pub fn requires(arguments: TokenStream, item: TokenStream) -> TokenStream {
    requires::expand(arguments.into(), item.into()).into()
}

/// Makes a method of a service an associated function that initialises the service first.
///
/// See `singleton_core`'s documentation; use it from there.
#[proc_macro_attribute]
pub fn guarded(arguments: TokenStream, item: TokenStream) -> TokenStream {
    guarded::expand(arguments.into(), item.into()).into()
}

/// Marks the function that runs once, before the first service of the process.
///
/// Everyone who uses a service waits for it, so it must not wait for a thread that does.
///
/// See `singleton_core`'s documentation; use it from there.
#[proc_macro_attribute]
pub fn setup(arguments: TokenStream, item: TokenStream) -> TokenStream {
    setup::expand(arguments.into(), item.into()).into()
}
