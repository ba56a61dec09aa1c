//! `#[requires(…)]`: the list of required services.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, DeriveInput, Error};

use crate::attributes::is_named;
use crate::service;

/// Expands `#[requires]`.
///
/// It runs first only if it is above `#[service]`, and then moves itself below. Otherwise `#[service]` has read the
/// list and left a mark. Without a `#[service]`, the item is expanded as if it had one, so that the compiler reports
/// only the missing attribute.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if arguments.to_string().replace(' ', "") == "@read" {
        return item;
    }
    let mut declaration: DeriveInput = match syn::parse2(item.clone()) {
        Ok(declaration) => declaration,
        Err(_) => {
            let error =
                Error::new_spanned(&item, "`#[requires]` belongs on a struct with `#[service]`")
                    .into_compile_error();
            return quote!(#error #item);
        }
    };
    let own: Attribute = syn::parse_quote!(#[::singleton_core::requires(#arguments)]);
    match declaration
        .attrs
        .iter()
        .position(|attribute| is_named(attribute, "service"))
    {
        Some(service) => {
            declaration.attrs.insert(service + 1, own);
            declaration.into_token_stream()
        }
        None => {
            let message = format!(
                "`#[requires]` has no effect without `#[service]`: add `#[service]` to `{}`",
                declaration.ident
            );
            let error = Error::new_spanned(&declaration.ident, message).into_compile_error();
            declaration.attrs.push(own);
            let expansion = service::expand(TokenStream::new(), declaration.into_token_stream());
            quote!(#expansion #error)
        }
    }
}
