//! `#[service]`: registers a struct and gives it `instance` and `is_initialized`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, DeriveInput, Error, Path, Result};

use crate::{attributes, requires};

/// Expands `#[service]`; the user's item is emitted whatever is wrong with it.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut declaration: DeriveInput = match syn::parse2(item.clone()) {
        Ok(declaration) => declaration,
        Err(_) => {
            let error =
                Error::new_spanned(&item, "`#[service]` belongs on a struct").into_compile_error();
            return quote!(#error #item);
        }
    };
    let (requirements, mut errors) = take_requirements(&mut declaration.attrs);
    if !arguments.is_empty() {
        errors.push(Error::new_spanned(
            &arguments,
            "`#[service]` takes no arguments; write `#[service]`",
        ));
    }
    if let Err(error) = check_kind(&declaration) {
        errors.push(error);
    }
    let generic = check_generics(&declaration);
    let implementation = generic
        .is_ok()
        .then(|| implement(&declaration, &requirements));
    errors.extend(generic.err());
    let errors = errors.into_iter().map(Error::into_compile_error);
    quote! {
        #declaration
        #implementation
        #(#errors)*
    }
}

/// What the `#[requires(…)]` of one item say together.
#[derive(Default)]
struct Requirements {
    services: Vec<Path>,
    /// Where the last list stands: what a cycle is reported at.
    span: Option<Span>,
}

/// Reads every `#[requires(…)]` of the item and leaves a mark that it was read, so that its import counts as used.
fn take_requirements(attributes: &mut [Attribute]) -> (Requirements, Vec<Error>) {
    let mut requirements = Requirements::default();
    let mut errors = Vec::new();
    for attribute in attributes
        .iter_mut()
        .filter(|attribute| attributes::is_named(attribute, "requires"))
    {
        let read = attribute.meta.require_list().and_then(|list| {
            requirements.span = Some(list.delimiter.span().join());
            requires::parse(list.tokens.clone())
        });
        match read {
            Ok(services) => requirements.services.extend(services),
            Err(error) => errors.push(error),
        }
        requires::mark_as_read(attribute);
    }
    (requirements, errors)
}

fn check_kind(declaration: &DeriveInput) -> Result<()> {
    let (keyword, kind) = match &declaration.data {
        syn::Data::Struct(_) => return Ok(()),
        syn::Data::Enum(data) => (data.enum_token.span(), "an enum"),
        syn::Data::Union(data) => (data.union_token.span(), "a union"),
    };
    let message = format!(
        "a service must be a struct, and this is {kind}: put it into a field of a struct and annotate that"
    );
    Err(Error::new(keyword, message))
}

fn check_generics(declaration: &DeriveInput) -> Result<()> {
    if declaration.generics.params.is_empty() {
        return Ok(());
    }
    Err(Error::new_spanned(
        &declaration.generics,
        "a service cannot be generic: there is one instance of it in a process, of one type; \
         name the concrete types, or write `'static` in place of a lifetime",
    ))
}

fn implement(declaration: &DeriveInput, requirements: &Requirements) -> TokenStream {
    let (name, visibility) = (&declaration.ident, &declaration.vis);
    let text = name.unraw().to_string();
    let rank = rank(&requirements.services);
    // The constants are what a cycle goes through: they lie where the requirements are written.
    let rank = quote_spanned! {requirements.span.unwrap_or_else(Span::call_site)=> const RANK: usize = #rank; };
    let descriptors = requirements
        .services
        .iter()
        .map(|path| member(path, quote!(descriptor)));
    quote! {
        impl ::singleton_core::Singleton for #name {
            #rank

            #[inline(always)]
            fn ready() -> &'static ::singleton_core::__private::Ready<Self> {
                static READY: ::singleton_core::__private::Ready<#name> = ::singleton_core::__private::Ready::new();
                &READY
            }

            fn descriptor() -> &'static ::singleton_core::__private::Descriptor {
                // Evaluated by `cargo check` as well, and with it every rank.
                static DESCRIPTOR: ::singleton_core::__private::Descriptor =
                    ::singleton_core::__private::Descriptor::new::<#name>(
                        #text,
                        ::core::concat!(::core::module_path!(), "::", #text),
                        &[#(#descriptors),*],
                    );
                &DESCRIPTOR
            }
        }

        ::singleton_core::__private::inventory::submit! {
            ::singleton_core::__private::Registration::of::<#name>()
        }

        impl #name {
            /// Returns the one instance, initialising the service and all it requires on first use.
            ///
            /// # Errors
            ///
            /// The service, or one that it requires, could not be initialised.
            #[inline]
            #visibility fn instance() -> ::core::result::Result<&'static Self, ::singleton_core::Error> {
                ::singleton_core::__private::instance::<Self>()
            }

            /// Tells whether the service is ready, without initialising it.
            #visibility fn is_initialized() -> bool {
                ::singleton_core::__private::is_initialized::<Self>()
            }
        }
    }
}

/// Nested calls rather than a slice: rustc explains a cycle in far fewer notes.
fn rank(requirements: &[Path]) -> TokenStream {
    let highest = requirements.iter().fold(quote!(0), |highest, path| {
        let rank = member(path, quote!(RANK));
        quote_spanned!(path.span()=> ::singleton_core::__private::max(#highest, #rank))
    });
    quote!(1 + #highest)
}

/// Refers to a member of `Singleton` so that an error about it points at the entry in `#[requires]`.
fn member(path: &Path, member: TokenStream) -> TokenStream {
    let path = path.to_token_stream();
    quote_spanned!(path.span()=> <#path as ::singleton_core::Singleton>::#member)
}
