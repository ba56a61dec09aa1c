//! The attributes of a guarded method, and which of its generated functions gets which.

use syn::{AttrStyle, Attribute, Error, Meta, parse_quote};

const FOR_CALLERS: [&str; 3] = ["doc", "must_use", "deprecated"];
pub(crate) const FOR_BOTH: [&str; 8] = [
    "cfg",
    "cfg_attr",
    "allow",
    "warn",
    "deny",
    "forbid",
    "track_caller",
    "target_feature",
];

/// Returns the attributes for the public function.
pub(crate) fn outer(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes
        .iter()
        .filter(|attribute| is_one_of(attribute, &FOR_CALLERS) || is_one_of(attribute, &FOR_BOTH))
        .collect()
}

/// Returns the attributes for the user's function.
pub(crate) fn inner(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes
        .iter()
        .filter(|attribute| !is_one_of(attribute, &FOR_CALLERS))
        .collect()
}

/// Returns whether an attribute has one of these names.
pub(crate) fn is_one_of(attribute: &Attribute, names: &[&str]) -> bool {
    names.iter().any(|name| is_named(attribute, name))
}

/// Converts inner attributes of a body, such as `#![allow(…)]`, to outer attributes of the function.
pub(crate) fn move_out(attributes: &mut [Attribute]) {
    for attribute in attributes {
        attribute.style = AttrStyle::Outer;
    }
}

/// Returns whether an attribute gives a function a symbol or a section, also in the form `#[unsafe(no_mangle)]`.
pub(crate) fn exports(attribute: &Attribute) -> bool {
    const EXPORTS: [&str; 3] = ["no_mangle", "export_name", "link_section"];
    if let (true, Meta::List(list)) = (is_named(attribute, "unsafe"), &attribute.meta) {
        let first = list.tokens.clone().into_iter().next();
        return first.is_some_and(|first| EXPORTS.contains(&first.to_string().as_str()));
    }
    is_one_of(attribute, &EXPORTS)
}

/// Returns an error at each attribute of a kind.
pub(crate) fn refused(
    attributes: &[Attribute],
    is_of_kind: impl Fn(&Attribute) -> bool,
    problem: &str,
) -> Vec<Error> {
    attributes
        .iter()
        .filter(|attribute| is_of_kind(attribute))
        .map(|attribute| Error::new_spanned(attribute, problem))
        .collect()
}

/// Converts `#[expect]` to `#[allow]`, because some of the generated functions do not fulfill the expectation.
pub(crate) fn expect_nothing(attributes: &mut [Attribute]) {
    for attribute in attributes
        .iter_mut()
        .filter(|attribute| is_named(attribute, "expect"))
    {
        if let Meta::List(list) = &mut attribute.meta {
            list.path = parse_quote!(allow);
        }
    }
}

/// Returns whether an attribute's path ends in `name`, as in `service` or `singleton_core::service`.
pub(crate) fn is_named(attribute: &Attribute, name: &str) -> bool {
    attribute
        .path()
        .segments
        .last()
        .is_some_and(|segment| segment.ident == name)
}
