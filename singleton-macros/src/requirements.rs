//! The list of services in `#[requires(…)]`, which both `#[requires]` and `#[service]` read.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Result, Token, Type};

use crate::crate_path::CratePath;

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

/// Implements `Requirement` for a service. `descriptor` is its function of that name.
///
/// The place in the graph is a value of a type of its own, whose function returns the node. A constant cannot be the
/// node, because the compiler reads the statics to which a constant refers.
pub(crate) fn implement(
    service: &TokenStream,
    (name, asynchronous): (&str, bool),
    required: &[Type],
    descriptor: &TokenStream,
    singleton_core: &CratePath,
) -> TokenStream {
    let private = quote!(#singleton_core::__private);
    let nodes = required.iter().map(|required| {
        let path = singleton_core.at(required.span());
        quote_spanned!(required.span()=> <#required as #path::Requirement>::PLACE.node())
    });
    quote! {
        #[allow(missing_debug_implementations, missing_docs, unreachable_pub)]
        const _: () = {
            pub struct __Place;

            impl __Place {
                pub const fn node(self) -> &'static #private::Node {
                    static NODE: #private::Node = #private::Node::new(
                        (#name, ::core::concat!(::core::module_path!(), "::", #name)),
                        (::core::file!(), ::core::line!(), ::core::column!()),
                        #asynchronous,
                        &[#(#nodes),*],
                        &FACTS,
                    );
                    static FACTS: #private::Facts = #private::Facts::of(&NODE);
                    &NODE
                }
            }

            impl #singleton_core::Requirement for #service {
                const RANK: ::core::primitive::usize = __Place.node().rank();
                const ASYNC: ::core::primitive::bool = __Place.node().is_async();
                type Place = __Place;
                const PLACE: __Place = __Place;

                #descriptor
            }
        };
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
