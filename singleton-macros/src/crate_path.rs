//! The path by which an expansion refers to `singleton_core`.

use std::env;

use proc_macro_crate::{Error as ManifestError, FoundCrate, crate_name};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, LitStr, Path, Result, Token};

/// A path to the crate `singleton_core` or to a re-export of it.
#[derive(Clone)]
pub(crate) enum CratePath {
    /// The name of a dependency.
    Dependency(Ident),
    /// A path that the user wrote.
    Written(TokenStream),
}

/// The name that the crate has if no manifest renames it.
impl Default for CratePath {
    fn default() -> Self {
        CratePath::Dependency(format_ident!("singleton_core"))
    }
}

impl CratePath {
    /// Returns the path of the dependency, which the manifest may rename. `None` if singleton-core is no dependency.
    ///
    /// Returns the default without a manifest of cargo, and in a build script, because `proc-macro-crate` does not read
    /// `build-dependencies`.
    pub(crate) fn of_dependency() -> Option<Self> {
        match crate_name("singleton-core") {
            Ok(FoundCrate::Name(name)) => Some(CratePath::Dependency(format_ident!("{name}"))),
            Err(ManifestError::CrateNotFound { .. }) if !is_build_script() => None,
            Ok(FoundCrate::Itself) | Err(_) => Some(CratePath::default()),
        }
    }

    /// Returns the path with the location of `span`, so that an error points there. A path that the user wrote resolves
    /// where it was written.
    pub(crate) fn at(&self, span: Span) -> TokenStream {
        match self {
            CratePath::Dependency(name) => {
                let name = Ident::new(&name.to_string(), span);
                quote_spanned!(span=> ::#name)
            }
            CratePath::Written(path) => {
                let moved = path.clone().into_iter().map(|mut token: TokenTree| {
                    token.set_span(token.span().located_at(span));
                    token
                });
                moved.collect()
            }
        }
    }
}

impl ToTokens for CratePath {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        tokens.extend(match self {
            CratePath::Dependency(name) => quote!(::#name),
            CratePath::Written(path) => path.clone(),
        });
    }
}

fn is_build_script() -> bool {
    env::var("CARGO_CRATE_NAME").is_ok_and(|name| name.starts_with("build_script_"))
}

/// Parses the value of the argument `crate`: `= path::to::singleton_core`.
pub(crate) fn value(name: &Ident, input: ParseStream<'_>) -> Result<CratePath> {
    let missing = || {
        let message = "`crate` needs a path: write `crate = path::to::singleton_core`";
        Error::new(name.span(), message)
    };
    input.parse::<Token![=]>().map_err(|_| missing())?;
    if input.is_empty() {
        return Err(missing());
    }
    if let Ok(text) = input.parse::<LitStr>() {
        let message = format!(
            "`crate` is a path, not a string: write `crate = {}`",
            text.value()
        );
        return Err(Error::new_spanned(text, message));
    }
    let path = input.call(Path::parse_mod_style).map_err(|error| {
        let message = "`crate` is a path: write `crate = path::to::singleton_core`";
        Error::new(error.span(), message)
    })?;
    Ok(CratePath::Written(path.into_token_stream()))
}

/// Parses the arguments of an attribute that takes only `crate = …`. Any other argument is an error with `message`.
///
/// # Errors
///
/// Also returns an error if the argument is missing and singleton-core is no dependency. `example` is the attribute
/// with the argument.
pub(crate) fn only_argument(
    arguments: &TokenStream,
    message: &str,
    example: &str,
) -> Result<CratePath> {
    if arguments.is_empty() {
        return CratePath::of_dependency().ok_or_else(|| no_dependency(example));
    }
    let parse = |input: ParseStream<'_>| {
        let mut path = None;
        while !input.is_empty() {
            let start = input.span();
            match input.call(Ident::parse_any) {
                Ok(name) if name == "crate" && path.is_some() => {
                    return Err(Error::new(start, "`crate` is set twice"));
                }
                Ok(name) if name == "crate" => path = Some(value(&name, input)?),
                _ => return Err(Error::new(start, message)),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(path.unwrap_or_default())
    };
    parse.parse2(arguments.clone())
}

/// Returns the error for a package that does not depend on singleton-core.
pub(crate) fn no_dependency(example: &str) -> Error {
    let message = format!(
        "this package does not depend on singleton-core: add it to `[dependencies]`, or name a re-export of it: `{example}`"
    );
    Error::new(Span::call_site(), message)
}
