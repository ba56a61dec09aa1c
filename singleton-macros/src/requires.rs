//! `#[requires(…)]`: the list of services that `#[service]` reads.

use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, DeriveInput, Error, Result, Token, Type};

use crate::attributes::is_named;
use crate::service;

/// Parses the services named between the parentheses; none at all is allowed.
pub(crate) fn parse(arguments: TokenStream) -> Result<Vec<Type>> {
    const FORM: &str = "`#[requires]` lists services by their types, such as `#[requires(Config, Database, dyn Clock)]`";
    let services = Punctuated::<Type, Token![,]>::parse_terminated
        .parse2(arguments)
        .map_err(|error| Error::new(error.span(), FORM))?;
    let services: Vec<Type> = services.into_iter().map(bare).collect();
    let named = |service: &&Type| !matches!(service, Type::Path(_) | Type::TraitObject(_));
    if let Some(unnamed) = services.iter().find(named) {
        return Err(Error::new_spanned(unnamed, FORM));
    }
    match services
        .iter()
        .enumerate()
        .find(|(position, service)| services[..*position].contains(service))
    {
        Some((_, again)) => Err(Error::new_spanned(again, "this service is listed already")),
        None => Ok(services),
    }
}

/// The type without the parentheses around it, which a macro may have put there without a sign of them.
fn bare(service: Type) -> Type {
    match service {
        Type::Group(group) => bare(*group.elem),
        Type::Paren(paren) => bare(*paren.elem),
        service => service,
    }
}

/// Replaces the list by the mark that `expand` knows.
pub(crate) fn mark_as_read(attribute: &mut Attribute) {
    let path = attribute.path();
    *attribute = syn::parse_quote!(#[#path(@read)]);
}

/// Runs first only where `#[requires]` stands above `#[service]`, which otherwise has read it already and left a mark:
/// moves itself below. Without a `#[service]` the item is treated as if it had one, so that the
/// missing attribute is the only thing reported.
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
