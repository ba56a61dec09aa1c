//! `#[requires(…)]`: the list of required services.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::{Attribute, DeriveInput, Error, Meta, parse_quote};

use crate::attributes::is_named;
use crate::crate_path::CratePath;
use crate::service;

/// Expands `#[requires]`.
///
/// It runs first only if it is above `#[service]`, and then adds its list to the arguments of that attribute. Otherwise
/// `#[service]` has read the list and left a mark. Without a `#[service]`, the item is expanded as if it had one, so that
/// the compiler reports only the missing attribute.
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
    let list = quote!(@requires(#arguments));
    let is_service = |attribute: &&mut Attribute| is_named(attribute, "service");
    match declaration.attrs.iter_mut().find(is_service) {
        Some(service) => {
            add_argument(service, list);
            declaration.into_token_stream()
        }
        None => {
            let message = format!(
                "`#[requires]` has no effect without `#[service]`: add `#[service]` to `{}`",
                declaration.ident
            );
            let error = Error::new_spanned(&declaration.ident, message).into_compile_error();
            // Without a path, the expansion would add the error of a missing dependency.
            let expansion = match CratePath::of_dependency() {
                Some(_) => service::expand(list, item),
                None => item,
            };
            quote!(#expansion #error)
        }
    }
}

/// Adds an argument before those of an attribute.
fn add_argument(attribute: &mut Attribute, argument: TokenStream) {
    let path = attribute.path();
    let present = match &attribute.meta {
        Meta::List(list) => list.tokens.clone(),
        _ => TokenStream::new(),
    };
    attribute.meta = parse_quote!(#path(#argument, #present));
}
