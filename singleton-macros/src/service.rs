//! `#[service]`: registers a struct and gives it `instance`, `is_initialized` and `provide`.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, DeriveInput, Error, Result, Type};

use crate::crate_path::{self, CratePath};
use crate::policy::Policy;
use crate::{attributes, guarded, policy, requirements, trait_service};

/// Expands `#[service]`. Always emits the user's item, even after an error.
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
    let (arguments, error) = policy::parse(arguments);
    let names_no_crate = error.is_none() && arguments.crate_path.is_none();
    let mut errors: Vec<Error> = error.into_iter().collect();
    let mut requirements = Requirements::default();
    for list in arguments.requirements {
        errors.extend(requirements.add(list.span(), list.stream()).err());
    }
    errors.extend(take_requirements(&mut declaration.attrs, &mut requirements));
    errors.extend(check_kind(&declaration).err());
    let generic = check_generics(&declaration);
    let is_generic = generic.is_err();
    errors.extend(generic.err());
    // The hidden function is for a crate whose `#[guarded]` may not find singleton-core among its dependencies.
    let needs_function = arguments.crate_path.is_some();
    let mut policy = arguments.policy;
    let implementation = match arguments.crate_path.or_else(CratePath::of_dependency) {
        _ if is_generic => None,
        Some(singleton_core) => {
            let name = &declaration.ident;
            let function = needs_function.then(|| guarded::hidden_function(name, &singleton_core));
            policy.singleton_core = singleton_core;
            let implementation = implement(&declaration, &requirements, &policy);
            Some(quote!(#implementation #function))
        }
        None => {
            if names_no_crate {
                let example = "#[service(crate = path::to::singleton_core)]";
                errors.push(crate_path::no_dependency(example));
            }
            Some(guarded::stub_function(&declaration.ident))
        }
    };
    let errors = errors.into_iter().map(Error::into_compile_error);
    quote! {
        #declaration
        #implementation
        #(#errors)*
    }
}

/// The union of all `#[requires(…)]` of one item.
#[derive(Default)]
struct Requirements {
    services: Vec<Type>,
    /// The span of the last list, where a cycle is reported.
    span: Option<Span>,
}

impl Requirements {
    /// Adds the services of one list.
    fn add(&mut self, span: Span, list: TokenStream) -> Result<()> {
        self.span = Some(span);
        self.services.extend(requirements::parse(list)?);
        Ok(())
    }
}

/// Reads each `#[requires(…)]` of the item, and leaves a mark in its place, so that the attribute's import counts as
/// used. Returns the errors.
fn take_requirements(attributes: &mut [Attribute], requirements: &mut Requirements) -> Vec<Error> {
    let mut errors = Vec::new();
    for attribute in attributes
        .iter_mut()
        .filter(|attribute| attributes::is_named(attribute, "requires"))
    {
        let list = attribute.meta.require_list();
        let read = list
            .and_then(|list| requirements.add(list.delimiter.span().join(), list.tokens.clone()));
        errors.extend(read.err());
        requirements::mark_as_read(attribute);
    }
    errors
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
        "a service cannot be generic, because it has exactly one instance and so one type; \
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
    let singleton_core = &policy.singleton_core;
    let private = quote!(#singleton_core::__private);
    let services = &requirements.services;
    let own = policy.asynchronous;
    // A cycle is reported at the requirements.
    let span = requirements.span.unwrap_or_else(Span::call_site);
    let path = singleton_core.at(span);
    let check = quote_spanned!(span=> #path::__private::Node::check(__Place.node()));
    let descriptors = services
        .iter()
        .map(|service| member(service, singleton_core, quote!(descriptor)));
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
    let inherent = inherent(visibility, singleton_core);
    let descriptor = quote! {
        fn descriptor() -> &'static #private::Descriptor {
            // `cargo check` evaluates this too.
            static DESCRIPTOR: #private::Descriptor = {
                #check;
                #private::Descriptor::new::<#name>(
                    #text,
                    ::core::concat!(::core::module_path!(), "::", #text),
                    &[#(#descriptors),*],
                    #run,
                    #policy,
                )
            };
            &DESCRIPTOR
        }
    };
    let service = quote!(#name);
    let requirement = requirements::implement(
        &service,
        (&text, own),
        services,
        &descriptor,
        singleton_core,
    );
    quote! {
        #requirement

        impl #singleton_core::Singleton for #name {
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

        #[allow(dead_code)] // A macro of the user may define the struct; its functions need not all be used.
        impl #name {
            #inherent
        }
    }
}

fn inherent(visibility: &syn::Visibility, singleton_core: &CratePath) -> TokenStream {
    let private = quote!(#singleton_core::__private);
    quote! {
        /// Returns the instance. On first use, initializes the service and its dependencies.
        ///
        /// # Errors
        ///
        /// Returns an error if the service or one of its dependencies could not be initialized.
        #[inline]
        #visibility fn instance() -> ::core::result::Result<&'static Self, #singleton_core::Error> {
            #private::instance::<Self>()
        }

        /// Returns the instance, like `instance`, without blocking the thread.
        ///
        /// # Errors
        ///
        /// Returns the errors of `instance`.
        #visibility async fn instance_async() -> ::core::result::Result<&'static Self, #singleton_core::Error> {
            #private::instance_async::<Self>().await
        }

        /// Returns whether the service is ready, without initializing it.
        #visibility fn is_initialized() -> ::core::primitive::bool {
            #private::is_initialized::<Self>()
        }

        /// Provides an instance in place of `initialize`.
        ///
        /// On first use, the service's dependencies are initialized, and then `ping` checks the instance.
        ///
        /// # Errors
        ///
        /// Returns an error if the service was used or shut down before, or if an instance was provided before.
        #visibility fn provide(__instance: Self) -> ::core::result::Result<(), #singleton_core::Error> {
            #private::provide(__instance)
        }
    }
}

/// Refers to a member of `Requirement` with the span of the entry in `#[requires]`, so that an error points there.
fn member(service: &Type, singleton_core: &CratePath, member: TokenStream) -> TokenStream {
    let singleton_core = singleton_core.at(service.span());
    quote_spanned!(service.span()=> <#service as #singleton_core::Requirement>::#member)
}
