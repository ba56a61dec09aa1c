//! `#[service]`: registers a struct and gives it `instance`, `is_initialized` and `provide`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, DeriveInput, Error, Result, Type};

use crate::policy::Policy;
use crate::{attributes, policy, requires, trait_service};

/// Expands `#[service]`; the user's item is emitted whatever is wrong with it.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Ok(declaration) = syn::parse2(item.clone()) {
        return trait_service::expand(&arguments, declaration);
    }
    let mut declaration: DeriveInput = match syn::parse2(item.clone()) {
        Ok(declaration) => declaration,
        Err(_) => {
            let error =
                Error::new_spanned(&item, "`#[service]` belongs on a struct").into_compile_error();
            return quote!(#error #item);
        }
    };
    let (requirements, mut errors) = take_requirements(&mut declaration.attrs);
    let (policy, error) = policy::parse(arguments);
    errors.extend(error);
    if let Err(error) = check_kind(&declaration) {
        errors.push(error);
    }
    let generic = check_generics(&declaration);
    let implementation = generic
        .is_ok()
        .then(|| implement(&declaration, &requirements, &policy));
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
    services: Vec<Type>,
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

fn implement(
    declaration: &DeriveInput,
    requirements: &Requirements,
    policy: &Policy,
) -> TokenStream {
    let (name, visibility) = (&declaration.ident, &declaration.vis);
    let text = name.unraw().to_string();
    let private = quote!(::singleton_core::__private);
    let services = &requirements.services;
    // The constants are what a cycle goes through: they lie where the requirements are written.
    let span = requirements.span.unwrap_or_else(Span::call_site);
    let rank = rank(services);
    let rank = quote_spanned! {span=> const RANK: ::core::primitive::usize = #rank; };
    let own = policy.asynchronous;
    let asynchronous = services
        .iter()
        .map(|service| member(service, quote!(ASYNC)));
    let asynchronous = quote! { const ASYNC: ::core::primitive::bool = #own #(|| #asynchronous)*; };
    let descriptors = services
        .iter()
        .map(|service| member(service, quote!(descriptor)));
    let kind = if own {
        quote!(asynchronous)
    } else {
        quote!(blocking)
    };
    let run = if policy.background {
        quote!(::core::option::Option::Some(#private::run::<#name>()))
    } else {
        quote!(::core::option::Option::None)
    };
    let inherent = inherent(visibility);
    quote! {
        impl ::singleton_core::Requirement for #name {
            #rank
            #asynchronous

            fn descriptor() -> &'static #private::Descriptor {
                // Evaluated by `cargo check` as well, and with it every rank.
                static DESCRIPTOR: #private::Descriptor = #private::Descriptor::new::<#name>(
                    #text,
                    ::core::concat!(::core::module_path!(), "::", #text),
                    &[#(#descriptors),*],
                    #run,
                    #policy,
                );
                &DESCRIPTOR
            }
        }

        impl ::singleton_core::Singleton for #name {
            const KIND: #private::Kind<Self> = #private::#kind::<#name>();

            #[inline(always)]
            fn ready() -> &'static #private::Ready<Self> {
                static READY: #private::Ready<#name> = #private::Ready::new();
                &READY
            }

        }

        #private::inventory::submit! {
            #private::Registration::of::<#name>()
        }

        impl #name {
            #inherent
        }
    }
}

fn inherent(visibility: &syn::Visibility) -> TokenStream {
    let private = quote!(::singleton_core::__private);
    quote! {
        /// Returns the one instance, initialising the service and all it requires on first use.
        ///
        /// # Errors
        ///
        /// The service, or one that it requires, could not be initialised.
        #[inline]
        #visibility fn instance() -> ::core::result::Result<&'static Self, ::singleton_core::Error> {
            #private::instance::<Self>()
        }

        /// The same for a task, which waits without blocking its thread.
        ///
        /// # Errors
        ///
        /// As those of `instance`.
        #visibility async fn instance_async() -> ::core::result::Result<&'static Self, ::singleton_core::Error> {
            #private::instance_async::<Self>().await
        }

        /// Tells whether the service is ready, without initialising it.
        #visibility fn is_initialized() -> ::core::primitive::bool {
            #private::is_initialized::<Self>()
        }

        /// Takes what is given in the place of what `initialize` would make; on first use it is checked by `ping`
        /// as that would be, and what the service requires is initialised before it.
        ///
        /// # Errors
        ///
        /// The service is in use already, an instance was provided already, or the service was shut down.
        #visibility fn provide(__instance: Self) -> ::core::result::Result<(), ::singleton_core::Error> {
            #private::provide(__instance)
        }
    }
}

/// Nested calls rather than a slice: rustc explains a cycle in far fewer notes.
fn rank(requirements: &[Type]) -> TokenStream {
    let highest = requirements.iter().fold(quote!(0), |highest, service| {
        let rank = member(service, quote!(RANK));
        quote_spanned!(service.span()=> ::singleton_core::__private::max(#highest, #rank))
    });
    quote!(1 + #highest)
}

/// Refers to a member of `Requirement` so that an error about it points at the entry in `#[requires]`.
fn member(service: &Type, member: TokenStream) -> TokenStream {
    let service_tokens = service.to_token_stream();
    quote_spanned!(service.span()=> <#service_tokens as ::singleton_core::Requirement>::#member)
}
