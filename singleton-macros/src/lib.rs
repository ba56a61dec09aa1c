#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

mod attributes;
mod crate_path;
mod guarded;
mod policy;
mod requirements;
mod requires;
mod service;
mod setup;
mod trait_service;

use proc_macro::TokenStream;

/// Makes a struct a service with exactly one instance per process, or a trait a service whose implementation is chosen
/// elsewhere.
///
/// It gives a struct the functions `instance`, `instance_async`, `is_initialized` and `provide`, and a `dyn Trait` also
/// `bind`. A function of your own with one of these names is a duplicate definition, so give it another name.
///
/// Use it through `singleton_core`, whose documentation describes it.
#[proc_macro_attribute]
pub fn service(arguments: TokenStream, item: TokenStream) -> TokenStream {
    service::expand(arguments.into(), item.into()).into()
}

/// Lists the services that must be ready before this one initializes.
///
/// Use it through `singleton_core`, whose documentation describes it.
#[proc_macro_attribute]
pub fn requires(arguments: TokenStream, item: TokenStream) -> TokenStream {
    requires::expand(arguments.into(), item.into()).into()
}

/// Makes a method of a service an associated function that initializes the service first.
///
/// Use it through `singleton_core`, whose documentation describes it.
#[proc_macro_attribute]
pub fn guarded(arguments: TokenStream, item: TokenStream) -> TokenStream {
    guarded::expand(arguments.into(), item.into()).into()
}

/// Marks the function that runs once, before the first service of the process.
///
/// All callers of services wait for it, so it must not wait for a thread that calls a service.
///
/// Use it through `singleton_core`, whose documentation describes it.
#[proc_macro_attribute]
pub fn setup(arguments: TokenStream, item: TokenStream) -> TokenStream {
    setup::expand(arguments.into(), item.into()).into()
}
