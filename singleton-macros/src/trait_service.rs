//! `#[service]` on a trait: its implementation is chosen in `main` or in a test.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::{Error, ItemTrait, Result};

use crate::crate_path::{self, CratePath};
use crate::{attributes, requirements};

/// Expands `#[service]` on a trait. Always emits the trait, even after an error.
pub(crate) fn expand(arguments: &TokenStream, mut declaration: ItemTrait) -> TokenStream {
    let result = validate(arguments, &declaration)
        .map(|singleton_core| implement(&declaration, &singleton_core));
    for attribute in &mut declaration.attrs {
        if attributes::is_named(attribute, "requires") {
            requirements::mark_as_read(attribute);
        }
    }
    let expansion = result.unwrap_or_else(Error::into_compile_error);
    quote!(#declaration #expansion)
}

fn validate(arguments: &TokenStream, declaration: &ItemTrait) -> Result<CratePath> {
    let message = "`#[service]` on a trait takes no arguments: write them on the service that implements the trait";
    let example = "#[service(crate = path::to::singleton_core)]";
    let singleton_core = crate_path::only_argument(arguments, message, example);
    let mut faults = Vec::new();
    if !declaration.generics.params.is_empty() {
        let message =
            "a trait service cannot be generic, because it has exactly one implementation";
        faults.push(Error::new_spanned(&declaration.generics, message));
    }
    let requires = |attribute: &&syn::Attribute| attributes::is_named(attribute, "requires");
    if let Some(requires) = declaration.attrs.iter().find(requires) {
        let message =
            "a trait cannot have `#[requires]`: write it on the service that implements the trait";
        faults.push(Error::new_spanned(requires, message));
    }
    let all = singleton_core
        .as_ref()
        .err()
        .cloned()
        .into_iter()
        .chain(faults);
    let all = all.reduce(|mut all, fault| {
        all.combine(fault);
        all
    });
    all.map_or(singleton_core, Err)
}

fn implement(declaration: &ItemTrait, singleton_core: &CratePath) -> TokenStream {
    let (name, visibility) = (&declaration.ident, &declaration.vis);
    let text = format!("dyn {}", name.unraw());
    let private = quote!(#singleton_core::__private);
    let descriptor = quote! {
        fn descriptor() -> &'static #private::Descriptor {
            static DESCRIPTOR: #private::Descriptor = #private::describe::<dyn #name>(
                #text,
                ::core::concat!(::core::module_path!(), "::", #text),
            );
            &DESCRIPTOR
        }
    };
    let service = quote!(dyn #name);
    let requirement =
        requirements::implement(&service, (&text, false), &[], &descriptor, singleton_core);
    quote! {
        #requirement

        impl #private::TraitService for dyn #name {
            fn ready() -> &'static #private::Ready<#private::Chosen<Self>> {
                static READY: #private::Ready<#private::Chosen<dyn #name>> = #private::Ready::new();
                &READY
            }
        }

        #private::inventory::submit! {
            #private::Registration::of::<dyn #name>()
        }

        impl dyn #name {
            /// Returns the chosen implementation. Initializes it on first use.
            ///
            /// # Errors
            ///
            /// Returns an error if no implementation was chosen, or if it could not be initialized.
            #visibility fn instance() -> ::core::result::Result<&'static Self, #singleton_core::Error> {
                #private::chosen::<Self>()
            }

            /// Returns the chosen implementation, like `instance`, without blocking the thread. Also works for a
            /// service that initializes asynchronously.
            ///
            /// # Errors
            ///
            /// Returns an error in the same cases as `instance`.
            #visibility async fn instance_async() -> ::core::result::Result<&'static Self, #singleton_core::Error> {
                #private::chosen_async::<Self>().await
            }

            /// Returns whether the implementation is ready, without initializing it.
            #visibility fn is_initialized() -> ::core::primitive::bool {
                #private::is_ready::<Self>()
            }

            /// Chooses a value as the implementation.
            ///
            /// # Errors
            ///
            /// Returns an error if an implementation was chosen before, or if this trait's service was already used or shut
            /// down.
            #visibility fn provide(__implementation: impl #name + 'static) -> ::core::result::Result<(), #singleton_core::Error> {
                #private::provide_chosen::<Self>(::std::boxed::Box::new(__implementation))
            }

            /// Chooses a service as the implementation. It is initialized when the implementation is first used.
            ///
            /// # Errors
            ///
            /// Returns an error in the same cases as `provide`.
            #visibility fn bind<__Service: #singleton_core::Singleton + #name>() -> ::core::result::Result<(), #singleton_core::Error> {
                #private::bind::<Self, __Service>(|__implementation| __implementation)
            }
        }
    }
}
