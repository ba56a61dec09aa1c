//! The list of services in `#[requires(…)]`, which both `#[requires]` and `#[service]` read.

use proc_macro2::TokenStream;
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Attribute, Error, Result, Token, Type};

/// Parses the services between the parentheses. The list may be empty.
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

/// Removes the parentheses around a type, also the invisible ones of a macro.
fn bare(service: Type) -> Type {
    match service {
        Type::Group(group) => bare(*group.elem),
        Type::Paren(paren) => bare(*paren.elem),
        service => service,
    }
}

/// Replaces the list by the mark that `#[requires]` recognizes as read.
pub(crate) fn mark_as_read(attribute: &mut Attribute) {
    let path = attribute.path();
    *attribute = syn::parse_quote!(#[#path(@read)]);
}
