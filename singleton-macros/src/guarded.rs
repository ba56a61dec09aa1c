//! `#[guarded]`: the associated function that initializes the service, and the method behind it.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::visit_mut::{self, VisitMut};
use syn::{
    Attribute, Error, FnArg, GenericParam, Ident, ImplItemFn, Lifetime, Pat, Receiver,
    ReceiverKind, Result, ReturnType, Safety, Signature, TraitItemFn, Type, parse_quote,
};

use crate::attributes;
use crate::crate_path::CratePath;

/// Expands `#[guarded]`. For an invalid method, emits a stub with the same signature, so that its callers cause no more
/// errors.
pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let mut method: ImplItemFn = match syn::parse2(item.clone()) {
        Ok(method) => method,
        Err(_) => {
            let message = match syn::parse2::<TraitItemFn>(item.clone()) {
                Ok(_) => {
                    "a method of a trait cannot be guarded: write the guarded method in an inherent `impl` of the \
                     service, and call it from the `impl` of the trait"
                }
                Err(_) => "`#[guarded]` belongs on a method of a service",
            };
            let error = Error::new_spanned(&item, message).into_compile_error();
            return quote!(#item #error);
        }
    };
    if let Some(error) = check_name(&method.sig.ident) {
        let error = error.into_compile_error();
        method.sig.ident = prefixed("__guarded_", &method.sig);
        return quote!(#[allow(dead_code)] #method #error);
    }
    attributes::expect_nothing(&mut method.attrs);
    attributes::move_out(&mut method.attrs);
    match validate(&arguments, &method) {
        Ok(()) => guard(method, &Engine::find()),
        Err(error) => {
            let (signature, _) = outer_signature(&method.sig);
            let (attributes, visibility) = (attributes::outer(&method.attrs), &method.vis);
            let error = error.into_compile_error();
            quote! {
                #(#attributes)*
                #[allow(unused_variables, unconditional_recursion, clippy::empty_loop)]
                #visibility #signature { #error; loop {} }
            }
        }
    }
}

fn validate(arguments: &TokenStream, method: &ImplItemFn) -> Result<()> {
    let signature = &method.sig;
    let mut faults = Vec::new();
    let is_guarded = |attribute: &Attribute| attributes::is_named(attribute, "guarded");
    let again = "this method already has `#[guarded]`";
    faults.extend(attributes::refused(&method.attrs, is_guarded, again));
    for input in &signature.inputs {
        let of_input = match input {
            FnArg::Receiver(receiver) => &receiver.attrs,
            FnArg::Typed(argument) => &argument.attrs,
        };
        let depends =
            |attribute: &Attribute| attributes::is_one_of(attribute, &["cfg", "cfg_attr"]);
        let problem =
            "an argument of a guarded method cannot depend on `cfg`: write the method twice";
        faults.extend(attributes::refused(of_input, depends, problem));
    }
    if !arguments.is_empty() {
        faults.push(Error::new_spanned(
            arguments,
            "`#[guarded]` takes no arguments",
        ));
    }
    if let Some(constness) = &signature.constness {
        faults.push(Error::new_spanned(
            constness,
            "a guarded method cannot be `const`: it may have to initialize the service",
        ));
    }
    if let Some(receiver) = signature.receiver() {
        faults.extend(check_receiver(receiver).err());
        let problem = "a guarded method cannot be exported: export a free function that calls it";
        faults.extend(attributes::refused(
            &method.attrs,
            attributes::exports,
            problem,
        ));
    }
    faults
        .into_iter()
        .reduce(|mut all, fault| {
            all.combine(fault);
            all
        })
        .map_or(Ok(()), Err)
}

/// Returns an error if the method has the name of a function that `#[service]` generates. Its own code would make the
/// compiler report both functions, and each call.
fn check_name(name: &Ident) -> Option<Error> {
    const GENERATED: [&str; 4] = ["instance", "instance_async", "is_initialized", "provide"];
    let is_generated = GENERATED.iter().any(|generated| name == generated);
    is_generated.then(|| {
        let message = format!(
            "`#[service]` already gives the struct a function `{name}`: rename this method"
        );
        Error::new(name.span(), message)
    })
}

fn check_receiver(receiver: &Receiver) -> Result<()> {
    let shared = match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_none(),
        ReceiverKind::Typed(_, ty) => is_shared_self(ty),
        _ => false,
    };
    if shared {
        return Ok(());
    }
    Err(Error::new_spanned(
        receiver,
        "a guarded method takes `&self`, or no receiver: the one instance is shared by all threads; \
         keep what changes in a `Mutex`, a `RwLock` or an atomic",
    ))
}

fn is_shared_self(ty: &Type) -> bool {
    matches!(ty, Type::Reference(reference) if reference.mutability.is_none()
        && matches!(&*reference.elem, Type::Path(path) if path.path.is_ident("Self")))
}

fn guard(method: ImplItemFn, engine: &Engine) -> TokenStream {
    if method.sig.receiver().is_some() {
        guard_method(method, engine)
    } else {
        guard_function(method, engine)
    }
}

/// Emits two functions: the public one without a receiver, and the user's one under a hidden name.
///
/// If the result type can be named, a third function takes the slow path with all arguments, so that the fast path
/// needs no registers or stack for it.
fn guard_method(method: ImplItemFn, engine: &Engine) -> TokenStream {
    let ImplItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = method;
    let (outer, arguments) = outer_signature(&sig);
    let mut inner = sig.clone();
    inner.ident = prefixed("__guarded_", &sig);
    let (outer_attributes, inner_attributes) =
        (attributes::outer(&attrs), attributes::inner(&attrs));
    let (service, initialize) = (local("__service"), local("__initialize"));
    let ready = call(&inner, quote!(#service, #(#arguments),*));
    let (body, first_use) = if sig.asyncness.is_some() || returns_opaque(&sig) {
        (
            guarded_body(&sig, engine, ready, service.to_token_stream()),
            None,
        )
    } else {
        let mut first_use = outer.clone();
        first_use.ident = prefixed("__first_use_of_", &sig);
        let (of_first_use, instance) = match engine.initialize() {
            Some((ty, value)) => {
                first_use.inputs.insert(0, parse_quote!(#initialize: #ty));
                (quote!(#value, #(#arguments),*), quote!(#initialize()))
            }
            None => (quote!(#(#arguments),*), engine.instance(&sig)),
        };
        let unready = call(&first_use, of_first_use);
        let is_ready = engine.ready();
        // The match is one of an `Option`: with a `Result`, the optimizer joins both paths again behind it.
        let body = quote! {
            match #is_ready {
                ::core::option::Option::Some(#service) => #ready,
                ::core::option::Option::None => #unready,
            }
        };
        let first_use_body =
            match_instance(&sig, engine, instance, ready, service.to_token_stream());
        let shared = attrs
            .iter()
            .filter(|attribute| attributes::is_one_of(attribute, &attributes::FOR_BOTH));
        let first_use = quote! {
            #(#shared)*
            #[cold]
            #[inline(never)]
            #[allow(dead_code, clippy::type_complexity, clippy::too_many_arguments)] // as above
            #first_use { #first_use_body }
        };
        (body, Some(first_use))
    };
    let marker = not_in_a_trait(&sig);
    quote! {
        #marker

        #(#outer_attributes)*
        #[inline]
        #vis #outer { #body }

        #first_use

        #(#inner_attributes)*
        #[doc(hidden)]
        // The compiler reports these for the public function, or this expansion causes them.
        #[allow(dead_code, clippy::type_complexity, clippy::too_many_arguments)]
        #[allow(clippy::missing_const_for_fn, clippy::unnecessary_wraps)]
        #inner #block
    }
}

/// Returns a constant whose name explains that an `impl` of a trait cannot contain a guarded method: there, the
/// compiler's first error is that this constant is not a member of the trait.
fn not_in_a_trait(signature: &Signature) -> TokenStream {
    let name = format_ident!(
        "__{}_is_guarded__write_it_in_an_inherent_impl__and_call_that_in_the_trait_impl",
        signature.ident,
        span = Span::call_site()
    );
    quote! {
        #[doc(hidden)]
        #[allow(dead_code, non_upper_case_globals)]
        const #name: () = ();
    }
}

/// Returns a name that matches no argument and no item of the user. A pattern with the name of a constant or unit
/// struct in scope would refer to that item, regardless of hygiene.
fn local(name: &str) -> Ident {
    Ident::new(name, Span::mixed_site())
}

fn prefixed(prefix: &str, signature: &Signature) -> Ident {
    format_ident!("{prefix}{}", signature.ident, span = signature.ident.span())
}

/// Returns a call of a function with the same generic parameters, asyncness and safety as the caller.
fn call(callee: &Signature, arguments: TokenStream) -> TokenStream {
    let (name, generics) = (&callee.ident, turbofish(callee));
    let awaiting = callee.asyncness.map(|_| quote!(.await));
    let call = quote!(Self::#name #generics (#arguments) #awaiting);
    if matches!(callee.safety, Safety::Unsafe(_)) {
        quote!(unsafe { #call })
    } else {
        call
    }
}

/// Returns whether the result contains an `impl Trait`, which is a different type in each function.
fn returns_opaque(signature: &Signature) -> bool {
    struct Search(bool);
    impl<'ast> Visit<'ast> for Search {
        fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
            self.0 = true;
        }
    }
    let mut search = Search(false);
    search.visit_return_type(&signature.output);
    search.0
}

/// Emits one function for a method without a receiver: the guard comes before the body.
fn guard_function(method: ImplItemFn, engine: &Engine) -> TokenStream {
    let ImplItemFn {
        attrs,
        vis,
        sig,
        block,
        ..
    } = method;
    let body = guarded_body(&sig, engine, quote!(#block), quote!(_));
    quote! {
        #(#attrs)*
        #vis #sig { #body }
    }
}

fn guarded_body(
    signature: &Signature,
    engine: &Engine,
    then: TokenStream,
    binding: TokenStream,
) -> TokenStream {
    match_instance(signature, engine, engine.instance(signature), then, binding)
}

fn match_instance(
    signature: &Signature,
    engine: &Engine,
    instance: TokenStream,
    then: TokenStream,
    binding: TokenStream,
) -> TokenStream {
    let result = match &signature.output {
        ReturnType::Default => signature.ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    let error = local("__error");
    let failed = engine.failed(result, &error);
    quote! {
        match #instance {
            ::core::result::Result::Ok(#binding) => #then,
            ::core::result::Result::Err(#error) => #failed,
        }
    }
}

/// How a guarded method reaches the functions that find the instance.
enum Engine {
    /// By a path to singleton-core, which is a dependency.
    Dependency(CratePath),
    /// Through the [`hidden_function`], which `#[service(crate = …)]` adds to the struct.
    HiddenFunction,
}

impl Engine {
    /// Prefers the path, because the compiler then explains a missing `#[service]` better.
    fn find() -> Self {
        CratePath::of_dependency().map_or(Engine::HiddenFunction, Engine::Dependency)
    }

    /// Returns an expression for the instance, or for the slow path as an error.
    fn ready(&self) -> TokenStream {
        let this = this();
        match self {
            Engine::Dependency(singleton_core) => {
                quote!(#singleton_core::__private::ready::<#this>())
            }
            Engine::HiddenFunction => quote!(#this::__service_attribute().ready()),
        }
    }

    /// Returns the type of the slow path and the slow path, if they can be named. The type is that of the function, not
    /// a pointer, so that passing it costs nothing.
    ///
    /// The path is in the same function as [`ready`](Engine::ready), so that the compiler reports a struct that is no
    /// service only once.
    fn initialize(&self) -> Option<(TokenStream, TokenStream)> {
        let this = this();
        match self {
            Engine::Dependency(singleton_core) => Some((
                quote! {
                    impl ::core::ops::FnOnce() -> ::core::result::Result<&'static Self, #singleton_core::Error>
                },
                quote!(#singleton_core::__private::initialize::<#this>),
            )),
            Engine::HiddenFunction => None,
        }
    }

    /// Returns an expression for the initialized instance, or for an error.
    fn instance(&self, signature: &Signature) -> TokenStream {
        let this = this();
        match (self, signature.asyncness) {
            (Engine::Dependency(singleton_core), Some(_)) => {
                quote!(#singleton_core::__private::instance_async::<#this>().await)
            }
            (Engine::Dependency(singleton_core), None) => {
                quote!(#singleton_core::__private::instance::<#this>())
            }
            (Engine::HiddenFunction, Some(_)) => {
                quote!(#this::__service_attribute().instance_async().await)
            }
            (Engine::HiddenFunction, None) => {
                quote!(#this::__service_attribute().instance())
            }
        }
    }

    /// Converts an error to the result of the guarded method, whose type is at `result`.
    fn failed(&self, result: Span, error: &Ident) -> TokenStream {
        match self {
            Engine::Dependency(singleton_core) => {
                let singleton_core = singleton_core.at(result);
                quote_spanned!(result=> #singleton_core::__private::failed(#error))
            }
            Engine::HiddenFunction => {
                let (this, call) = (this(), quote_spanned!(result=> failed(#error)));
                quote!(#this::__service_attribute().#call)
            }
        }
    }
}

/// Returns the function through which a guarded method of `service` works without a path to singleton-core.
///
/// If the struct has no `#[service]`, the compiler reports that this function is missing.
pub(crate) fn hidden_function(service: &Ident, singleton_core: &CratePath) -> TokenStream {
    let private = quote!(#singleton_core::__private);
    quote! {
        #[doc(hidden)]
        #[allow(dead_code)]
        impl #service {
            #[inline(always)]
            pub(crate) fn __service_attribute() -> #private::Guard<Self> {
                #private::Guard::NEW
            }
        }
    }
}

/// Returns the [`hidden_function`] of a service that has no path to singleton-core, so that its guarded methods cause
/// no more errors.
pub(crate) fn stub_function(service: &Ident) -> TokenStream {
    quote! {
        #[allow(dead_code, clippy::empty_loop)]
        const _: () = {
            pub(crate) struct __Guard;
            impl __Guard {
                pub(crate) fn ready(self) -> ::core::option::Option<&'static #service> { loop {} }
                pub(crate) fn instance(self) -> ::core::result::Result<&'static #service, ()> { loop {} }
                pub(crate) async fn instance_async(self) -> ::core::result::Result<&'static #service, ()> { loop {} }
                pub(crate) fn failed<__Result>(self, _: ()) -> __Result { loop {} }
            }
            impl #service {
                pub(crate) fn __service_attribute() -> __Guard { loop {} }
            }
        };
    }
}

/// Returns `Self` with the attribute's span. Outside an `impl`, the compiler reports the misplaced attribute.
fn this() -> TokenStream {
    quote_spanned!(Span::call_site()=> Self)
}

/// Returns the signature without the receiver, and the names of its arguments.
fn outer_signature(signature: &Signature) -> (Signature, Vec<TokenStream>) {
    let mut outer = signature.clone();
    if signature.receiver().is_none() {
        return (outer, Vec::new());
    }
    outer.inputs = signature.inputs.iter().skip(1).cloned().collect();
    let mut names = Vec::new();
    for (position, input) in outer.inputs.iter_mut().enumerate() {
        if let FnArg::Typed(argument) = input {
            let name = match &*argument.pat {
                Pat::Ident(pattern) => pattern.ident.clone(),
                _ => local(&format!("__argument_{position}")),
            };
            *argument.pat = parse_quote!(#name);
            argument.attrs.clear();
            names.push(name.into_token_stream());
        }
    }
    if let ReturnType::Type(_, ty) = &mut outer.output {
        Lifetimes.visit_type_mut(ty);
    }
    (outer, names)
}

/// Returns the type and constant parameters, which a call cannot always infer. Lifetimes are always inferred.
fn turbofish(signature: &Signature) -> Option<TokenStream> {
    let parameters: Vec<_> = signature
        .generics
        .params
        .iter()
        .filter_map(|parameter| match parameter {
            GenericParam::Type(parameter) => Some(&parameter.ident),
            GenericParam::Const(parameter) => Some(&parameter.ident),
            GenericParam::Lifetime(_) => None,
        })
        .collect();
    (!parameters.is_empty()).then(|| quote!(::<#(#parameters),*>))
}

/// Replaces elided lifetimes in the result, which are those of `&self`, by `'static`: the instance is never dropped.
struct Lifetimes;

impl Lifetimes {
    fn forever(span: Span) -> Lifetime {
        Lifetime::new("'static", span)
    }
}

impl VisitMut for Lifetimes {
    fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
        reference
            .lifetime
            .get_or_insert_with(|| Self::forever(reference.and_token.span()));
        visit_mut::visit_type_reference_mut(self, reference);
    }

    fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
        if lifetime.ident == "_" {
            *lifetime = Self::forever(lifetime.span());
        }
    }

    // A function type has its own lifetime elision.
    fn visit_type_fn_ptr_mut(&mut self, _: &mut syn::TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments_mut(
        &mut self,
        _: &mut syn::ParenthesizedGenericArguments,
    ) {
    }
}
