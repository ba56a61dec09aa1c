//! `#[setup]`: the function that runs before the first service of the process.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, Result, ReturnType, Safety};

use crate::crate_path::{self, CratePath};

/// Expands `#[setup]`. Always emits the user's function, even after an error.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let function: ItemFn = match syn::parse2(item.clone()) {
        Ok(function) => function,
        Err(_) => {
            let error =
                Error::new_spanned(&item, "`#[setup]` belongs on a function").into_compile_error();
            return quote!(#item #error);
        }
    };
    let singleton_core = match validate(&arguments, &function) {
        Ok(singleton_core) => singleton_core,
        Err(error) => {
            let error = error.into_compile_error();
            return quote!(#[allow(dead_code)] #function #error);
        }
    };
    let name = &function.sig.ident;
    let result = match &function.sig.output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    // A `#[macro_export]` macro is always at the root of its crate, so a second `#[setup]` is a duplicate definition.
    let once = Ident::new("a_crate_has_one_setup_function", name.span());
    let moved = singleton_core.at(result);
    let registered = quote_spanned! {result=>
        #moved::__private::Setup::new(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)), #name)
    };
    quote! {
        #function

        #[doc(hidden)]
        #[allow(non_local_definitions)] // In a function body too.
        #[macro_export]
        macro_rules! #once { () => {}; }

        #singleton_core::__private::inventory::submit! { #registered }
    }
}

fn validate(arguments: &TokenStream, function: &ItemFn) -> Result<CratePath> {
    let signature = &function.sig;
    let message = "`#[setup]` takes no arguments";
    let example = "#[setup(crate = path::to::singleton_core)]";
    let singleton_core = crate_path::only_argument(arguments, message, example);
    let mut faults = Vec::new();
    if let Some(asyncness) = &signature.asyncness {
        faults.push(Error::new_spanned(
            asyncness,
            "a `#[setup]` function cannot be `async`: it runs before there is an executor",
        ));
    }
    if let Safety::Unsafe(unsafety) = &signature.safety {
        faults.push(Error::new_spanned(
            unsafety,
            "a `#[setup]` function cannot be `unsafe`: put the `unsafe` block into its body",
        ));
    }
    if let Some(abi) = &signature.abi {
        faults.push(Error::new_spanned(
            abi,
            "a `#[setup]` function cannot be `extern`: call that one from a plain `fn`",
        ));
    }
    if !signature.inputs.is_empty() {
        faults.push(Error::new_spanned(
            &signature.inputs,
            "a `#[setup]` function has no arguments: nothing passes them",
        ));
    }
    if !signature.generics.params.is_empty() {
        faults.push(Error::new_spanned(
            &signature.generics,
            "a `#[setup]` function cannot be generic",
        ));
    }
    if let ReturnType::Default = signature.output {
        faults.push(Error::new_spanned(
            &signature.ident,
            "a `#[setup]` function returns `anyhow::Result<()>`",
        ));
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
