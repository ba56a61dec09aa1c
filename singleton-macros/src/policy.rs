//! The arguments of `#[service(…)]`.

use std::time::Duration;

use proc_macro2::{Group, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::{Error, Ident, LitInt, LitStr, Result, Token, parenthesized};

use crate::crate_path::{self, CratePath};

const ARGUMENTS: &str = "`async`, `background`, `crate = path::to::singleton_core`, `eager`, \
     `init_timeout = \"10s\"`, `retry(attempts = 5, initial = \"100ms\", max = \"5s\")`, \
     `shutdown_timeout = \"10s\"` and `tags(\"readiness\")`";

/// The parsed arguments.
#[derive(Default)]
pub(crate) struct Arguments {
    pub(crate) policy: Policy,
    pub(crate) crate_path: Option<CratePath>,
    /// The lists of each `#[requires(…)]` above `#[service]`.
    pub(crate) requirements: Vec<Group>,
}

/// The arguments that become a constant of `singleton_core`.
#[derive(Default)]
pub(crate) struct Policy {
    pub(crate) singleton_core: CratePath,
    pub(crate) asynchronous: bool,
    pub(crate) background: bool,
    eager: bool,
    init_timeout: Option<Duration>,
    shutdown_timeout: Option<Duration>,
    retry: Option<Retry>,
    tags: Vec<LitStr>,
}

struct Retry {
    attempts: usize,
    initial: Duration,
    max: Duration,
}

enum Argument {
    Async,
    Background,
    Crate(CratePath),
    Eager,
    InitTimeout(Duration),
    ShutdownTimeout(Duration),
    Retry(Retry),
    Tags(Vec<LitStr>),
    /// `@requires(…)`, which `#[requires]` adds.
    Requires(Group),
}

/// Parses the arguments. Returns the valid ones, and the errors of the others.
pub(crate) fn parse(tokens: TokenStream) -> (Arguments, Option<Error>) {
    let mut arguments = Arguments::default();
    let parsed = Punctuated::<Named, Token![,]>::parse_terminated.parse2(tokens);
    let named = match parsed {
        Ok(named) => named,
        Err(error) => return (arguments, Some(error)),
    };
    let mut known: Vec<Ident> = Vec::new();
    let mut errors: Option<Error> = None;
    for Named { name, argument } in named {
        if known.contains(&name) && !matches!(argument, Argument::Requires(_)) {
            let again = Error::new(name.span(), format!("`{name}` is set twice"));
            match &mut errors {
                Some(errors) => errors.combine(again),
                None => errors = Some(again),
            }
        }
        known.push(name);
        arguments.add(argument);
    }
    (arguments, errors)
}

struct Named {
    name: Ident,
    argument: Argument,
}

impl Parse for Named {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(Token![@]) {
            input.parse::<Token![@]>()?;
            let name = input.parse()?;
            let argument = Argument::Requires(input.parse()?);
            return Ok(Named { name, argument });
        }
        let Ok(name) = input.call(Ident::parse_any) else {
            let message = format!("`#[service]` takes {ARGUMENTS}");
            return Err(Error::new(input.span(), message));
        };
        let argument = match name.to_string().as_str() {
            "async" => alone(&name, input, Argument::Async)?,
            "background" => alone(&name, input, Argument::Background)?,
            "crate" => Argument::Crate(crate_path::value(&name, input)?),
            "eager" => alone(&name, input, Argument::Eager)?,
            "init_timeout" => Argument::InitTimeout(value(&name, input)?),
            "shutdown_timeout" => Argument::ShutdownTimeout(value(&name, input)?),
            "retry" => Argument::Retry(retry(&name, input)?),
            "tags" => Argument::Tags(tags(&name, input)?),
            _ => {
                let message = format!("no such argument; `#[service]` takes {ARGUMENTS}");
                return Err(Error::new(name.span(), message));
            }
        };
        Ok(Named { name, argument })
    }
}

impl Arguments {
    fn add(&mut self, argument: Argument) {
        match argument {
            Argument::Async => self.policy.asynchronous = true,
            Argument::Background => self.policy.background = true,
            Argument::Crate(path) => self.crate_path = Some(path),
            Argument::Eager => self.policy.eager = true,
            Argument::InitTimeout(limit) => self.policy.init_timeout = Some(limit),
            Argument::ShutdownTimeout(limit) => self.policy.shutdown_timeout = Some(limit),
            Argument::Retry(retry) => self.policy.retry = Some(retry),
            Argument::Tags(tags) => self.policy.tags = tags,
            Argument::Requires(list) => self.requirements.push(list),
        }
    }
}

/// Parses an argument without a value.
fn alone(name: &Ident, input: ParseStream<'_>, argument: Argument) -> Result<Argument> {
    if input.is_empty() || input.peek(Token![,]) {
        return Ok(argument);
    }
    let message = format!("`{name}` takes no value: write only `{name}`, or remove it");
    Err(Error::new(input.span(), message))
}

/// Parses a duration: `= "10s"`.
fn value(name: &Ident, input: ParseStream<'_>) -> Result<Duration> {
    if input.parse::<Token![=]>().is_err() {
        let message = format!("`{name}` needs a duration: write `{name} = \"10s\"`");
        return Err(Error::new(name.span(), message));
    }
    duration(input)
}

fn duration(input: ParseStream<'_>) -> Result<Duration> {
    let text: LitStr = input.parse().map_err(|error| {
        Error::new(
            error.span(),
            "a duration is written as a string, such as \"100ms\" or \"5s\"",
        )
    })?;
    match humantime::parse_duration(&text.value()) {
        Ok(duration) if duration.is_zero() => {
            Err(Error::new_spanned(&text, "a duration must be more than 0"))
        }
        Ok(duration) => Ok(duration),
        Err(error) => {
            let message =
                format!("not a duration such as \"100ms\", \"5s\" or \"1m 30s\": {error}");
            Err(Error::new_spanned(&text, message))
        }
    }
}

fn retry(name: &Ident, input: ParseStream<'_>) -> Result<Retry> {
    let content = list(
        name,
        input,
        "retry(attempts = 5, initial = \"100ms\", max = \"5s\")",
    )?;
    let (mut attempts, mut initial, mut max) = (None, None, None);
    while !content.is_empty() {
        let name: Ident = content.parse()?;
        content.parse::<Token![=]>()?;
        let is_again = match name.to_string().as_str() {
            "attempts" => attempts.is_some(),
            "initial" => initial.is_some(),
            "max" => max.is_some(),
            _ => false,
        };
        if is_again {
            return Err(Error::new(name.span(), format!("`{name}` is set twice")));
        }
        match name.to_string().as_str() {
            "attempts" => {
                let message = "`attempts` must be an integer, such as 5";
                let wrong = |error: Error| Error::new(error.span(), message);
                let literal: LitInt = content.parse().map_err(wrong)?;
                let number: usize = literal.base10_parse().map_err(wrong)?;
                if number < 2 {
                    let message =
                        "`attempts` must be at least 2, because it includes the first attempt";
                    return Err(Error::new_spanned(literal, message));
                }
                attempts = Some(number);
            }
            "initial" => initial = Some(duration(&content)?),
            "max" => max = Some(duration(&content)?),
            _ => {
                let message = "`retry` takes `attempts`, `initial` and `max`";
                return Err(Error::new(name.span(), message));
            }
        }
        if !content.is_empty() {
            content.parse::<Token![,]>()?;
        }
    }
    let Some(attempts) = attempts else {
        let message = "`retry` needs a number of attempts: write `retry(attempts = 5)`";
        return Err(Error::new(name.span(), message));
    };
    let initial = initial.unwrap_or(Duration::from_millis(100));
    let max = max.unwrap_or(initial.max(Duration::from_secs(5)));
    if max < initial {
        let message = "`max` is less than `initial`: the pauses grow from `initial` to `max`";
        return Err(Error::new(name.span(), message));
    }
    Ok(Retry {
        attempts,
        initial,
        max,
    })
}

fn tags(name: &Ident, input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let content = list(name, input, "tags(\"readiness\")")?;
    let tags = Punctuated::<LitStr, Token![,]>::parse_terminated(&content).map_err(|error| {
        Error::new(
            error.span(),
            "tags are strings: write `tags(\"readiness\")`",
        )
    })?;
    if tags.is_empty() {
        let message = "`tags` needs at least one tag: write `tags(\"readiness\")`";
        return Err(Error::new(name.span(), message));
    }
    let tags: Vec<LitStr> = tags.into_iter().collect();
    let mut numbered = tags.iter().enumerate();
    match numbered.find(|(position, tag)| tags[..*position].contains(tag)) {
        Some((_, again)) => Err(Error::new_spanned(again, "this tag is set twice")),
        None => Ok(tags),
    }
}

fn list<'a>(
    name: &Ident,
    input: ParseStream<'a>,
    example: &str,
) -> Result<syn::parse::ParseBuffer<'a>> {
    if !input.peek(syn::token::Paren) {
        return Err(Error::new(name.span(), format!("write `{example}`")));
    }
    let content;
    parenthesized!(content in input);
    Ok(content)
}

/// Writes the policy as a constant of `singleton_core`.
impl ToTokens for Policy {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        let singleton_core = &self.singleton_core;
        let policy = quote!(#singleton_core::__private::Policy);
        let (eager, tags) = (self.eager, &self.tags);
        let init_timeout = option(self.init_timeout.map(constant));
        let shutdown_timeout = option(self.shutdown_timeout.map(constant));
        let retry = option(self.retry.as_ref().map(|retry| {
            let (attempts, initial, max) =
                (retry.attempts, constant(retry.initial), constant(retry.max));
            quote! {
                #singleton_core::__private::Retry {
                    attempts: #attempts, initial: #initial, max: #max,
                }
            }
        }));
        tokens.extend(quote! {
            #policy {
                eager: #eager,
                init_timeout: #init_timeout,
                shutdown_timeout: #shutdown_timeout,
                retry: #retry,
                tags: &[#(#tags),*],
            }
        });
    }
}

fn constant(duration: Duration) -> TokenStream {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    quote!(::core::time::Duration::new(#seconds, #nanoseconds))
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
