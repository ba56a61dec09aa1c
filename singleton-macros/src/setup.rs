//! `#[setup]`: the function that runs before the first service of the process.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Error, ItemFn, Result, ReturnType, Safety};

use crate::policy;

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
    if let Err(error) = validate(&arguments, &function) {
        let error = error.into_compile_error();
        return quote!(#[allow(dead_code)] #function #error);
    }
    let name = &function.sig.ident;
    let result = match &function.sig.output {
        ReturnType::Default => name.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    // A `#[macro_export]` macro is always at the root of its crate, so a second `#[setup]` is a duplicate definition.
    let once = Ident::new("a_crate_has_one_setup_function", name.span());
    let registered = quote_spanned! {result=>
        ::singleton_core::__private::Setup::new(::core::concat!(::core::module_path!(), "::", ::core::stringify!(#name)), #name)
    };
    quote! {
        #function

        #[doc(hidden)]
        #[allow(non_local_definitions)] // In a function body too.
        #[macro_export]
        macro_rules! #once { () => {}; }

        ::singleton_core::__private::inventory::submit! { #registered }
    }
}

fn validate(arguments: &TokenStream, function: &ItemFn) -> Result<()> {
    let signature = &function.sig;
    let mut faults: Vec<Error> = policy::none(arguments, "`#[setup]` takes no arguments")
        .into_iter()
        .collect();
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
    let all = faults.into_iter().reduce(|mut all, fault| {
        all.combine(fault);
        all
    });
    all.map_or(Ok(()), Err)
}
