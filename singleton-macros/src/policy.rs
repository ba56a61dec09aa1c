//! The arguments of `#[service(…)]`.

use std::time::Duration;

use proc_macro2::{Group, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
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
    attempts: u32,
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
    let mut known: Vec<Ident> = Vec::new();
    let argument = |input: ParseStream<'_>| {
        arguments.add(parse_argument(input, &mut known)?);
        Ok(())
    };
    let parser = |input: ParseStream<'_>| each(input, argument);
    let error = parser.parse2(tokens).err();
    (arguments, error)
}

/// Parses items that are separated by commas. Continues after an invalid one, so that all errors are reported at once.
fn each(input: ParseStream<'_>, mut item: impl FnMut(ParseStream<'_>) -> Result<()>) -> Result<()> {
    let mut result = Ok(());
    while !input.is_empty() {
        let at_end = |()| {
            if input.is_empty() || input.peek(Token![,]) {
                Ok(())
            } else {
                Err(input.error("expected `,`"))
            }
        };
        combine(&mut result, item(input).and_then(at_end));
        while !input.is_empty() && !input.peek(Token![,]) {
            input.parse::<TokenTree>()?;
        }
        if !input.is_empty() {
            input.parse::<Token![,]>()?;
        }
    }
    result
}

/// Adds the errors of `other` to those of `result`.
fn combine(result: &mut Result<()>, other: Result<()>) {
    match (result, other) {
        (Err(all), Err(other)) => all.combine(other),
        (Err(_), Ok(())) => {}
        (result, other) => *result = other,
    }
}

/// Parses an argument that is not one of the `known` ones.
fn parse_argument(input: ParseStream<'_>, known: &mut Vec<Ident>) -> Result<Argument> {
    if input.peek(Token![@]) {
        input.parse::<Token![@]>()?;
        input.parse::<Ident>()?;
        return Ok(Argument::Requires(input.parse()?));
    }
    let Ok(name) = input.call(Ident::parse_any) else {
        let message = format!("`#[service]` takes {ARGUMENTS}");
        return Err(Error::new(input.span(), message));
    };
    once(&name, known)?;
    match name.to_string().as_str() {
        "async" => alone(&name, input, Argument::Async),
        "background" => alone(&name, input, Argument::Background),
        "crate" => crate_path::value(&name, input).map(Argument::Crate),
        "eager" => alone(&name, input, Argument::Eager),
        "init_timeout" => value(&name, input).map(Argument::InitTimeout),
        "shutdown_timeout" => value(&name, input).map(Argument::ShutdownTimeout),
        "retry" => retry(&name, input).map(Argument::Retry),
        "tags" => tags(&name, input).map(Argument::Tags),
        _ => {
            let message = format!("no such argument; `#[service]` takes {ARGUMENTS}");
            Err(Error::new(name.span(), message))
        }
    }
}

/// Adds a name to the `known` ones, or returns an error if it is one of them.
fn once(name: &Ident, known: &mut Vec<Ident>) -> Result<()> {
    if known.contains(name) {
        return Err(Error::new(name.span(), format!("`{name}` is set twice")));
    }
    known.push(name.clone());
    Ok(())
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
    const FIELDS: [&str; 3] = ["attempts", "initial", "max"];
    let content = list(
        name,
        input,
        "retry(attempts = 5, initial = \"100ms\", max = \"5s\")",
    )?;
    let (mut attempts, mut initial, mut max) = (None, None, None);
    let mut known: Vec<Ident> = Vec::new();
    let mut result = each(&content, |input| {
        let at = input.span();
        let name = input.call(Ident::parse_any);
        let name = name
            .ok()
            .filter(|name| FIELDS.iter().any(|field| name == field));
        let Some(name) = name else {
            let message = "`retry` takes `attempts`, `initial` and `max`";
            return Err(Error::new(at, message));
        };
        once(&name, &mut known)?;
        if name == "attempts" {
            attempts = Some(number(&name, input)?);
        } else if name == "initial" {
            initial = Some(value(&name, input)?);
        } else {
            max = Some(value(&name, input)?);
        }
        Ok(())
    });
    if !known.iter().any(|name| name == "attempts") {
        let message = "`retry` needs a number of attempts: write `retry(attempts = 5)`";
        combine(&mut result, Err(Error::new(name.span(), message)));
    }
    let initial = initial.unwrap_or(Duration::from_millis(100));
    let max = max.unwrap_or(initial.max(Duration::from_secs(5)));
    if max < initial {
        let message = "`max` is less than `initial`: the pauses grow from `initial` to `max`";
        combine(&mut result, Err(Error::new(name.span(), message)));
    }
    result.map(|()| Retry {
        attempts: attempts.unwrap_or_default(),
        initial,
        max,
    })
}

/// Parses the number of attempts: `= 5`.
fn number(name: &Ident, input: ParseStream<'_>) -> Result<u32> {
    if input.parse::<Token![=]>().is_err() {
        let message = format!("`{name}` needs a number: write `{name} = 5`");
        return Err(Error::new(name.span(), message));
    }
    let message = "`attempts` must be an integer, such as 5";
    let wrong = |error: Error| Error::new(error.span(), message);
    let literal: LitInt = input.parse().map_err(wrong)?;
    let number: u32 = literal.base10_parse().map_err(wrong)?;
    if number < 2 {
        let message = "`attempts` must be at least 2, because it includes the first attempt";
        return Err(Error::new_spanned(literal, message));
    }
    Ok(number)
}

fn tags(name: &Ident, input: ParseStream<'_>) -> Result<Vec<LitStr>> {
    let content = list(name, input, "tags(\"readiness\")")?;
    if content.is_empty() {
        let message = "`tags` needs at least one tag: write `tags(\"readiness\")`";
        return Err(Error::new(name.span(), message));
    }
    let mut tags: Vec<LitStr> = Vec::new();
    let result = each(&content, |input| {
        let tag: LitStr = input.parse().map_err(|error| {
            let message = "tags are strings: write `tags(\"readiness\")`";
            Error::new(error.span(), message)
        })?;
        if tags.contains(&tag) {
            return Err(Error::new_spanned(tag, "this tag is set twice"));
        }
        tags.push(tag);
        Ok(())
    });
    result.map(|()| tags)
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
        let policy = quote!(#singleton_core::__private::ServicePolicy);
        let (eager, tags) = (self.eager, &self.tags);
        let init_timeout = option(self.init_timeout.map(constant));
        let shutdown_timeout = option(self.shutdown_timeout.map(constant));
        let retry = option(self.retry.as_ref().map(|retry| {
            let (attempts, initial, max) =
                (retry.attempts, constant(retry.initial), constant(retry.max));
            quote! {
                #singleton_core::__private::Retry::new(#attempts).initial(#initial).max(#max)
            }
        }));
        tokens.extend(quote! {
            #policy {
                eager: #eager,
                init_timeout: #init_timeout,
                shutdown_timeout: #shutdown_timeout,
                retry: #retry,
                tags: ::std::borrow::Cow::Borrowed(&[#(#tags),*]),
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
