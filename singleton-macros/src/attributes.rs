//! Which attributes of a guarded method go to which of the functions that it becomes.

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

/// What goes to the function that callers see.
pub(crate) fn outer(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes
        .iter()
        .filter(|attribute| is_one_of(attribute, &FOR_CALLERS) || is_one_of(attribute, &FOR_BOTH))
        .collect()
}

/// What goes to the user's own function.
pub(crate) fn inner(attributes: &[Attribute]) -> Vec<&Attribute> {
    attributes
        .iter()
        .filter(|attribute| !is_one_of(attribute, &FOR_CALLERS))
        .collect()
}

/// Tells whether an attribute goes by one of these names.
pub(crate) fn is_one_of(attribute: &Attribute, names: &[&str]) -> bool {
    names.iter().any(|name| is_named(attribute, name))
}

/// Writes the attributes that stood inside a body, as `#![allow(…)]` does, as ones in front of the function.
pub(crate) fn move_out(attributes: &mut [Attribute]) {
    for attribute in attributes {
        attribute.style = AttrStyle::Outer;
    }
}

/// Tells whether an attribute gives a function a symbol or a section, also as `#[unsafe(no_mangle)]`.
pub(crate) fn exports(attribute: &Attribute) -> bool {
    const EXPORTS: [&str; 3] = ["no_mangle", "export_name", "link_section"];
    if let (true, Meta::List(list)) = (is_named(attribute, "unsafe"), &attribute.meta) {
        let first = list.tokens.clone().into_iter().next();
        return first.is_some_and(|first| EXPORTS.contains(&first.to_string().as_str()));
    }
    is_one_of(attribute, &EXPORTS)
}

/// An error at each attribute of a kind.
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

/// Turns `#[expect]` into `#[allow]`: of the functions that we make of one, some do not fulfil it.
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

/// Tells whether an attribute's path ends in `name`, as in `service` or `singleton_core::service`.
pub(crate) fn is_named(attribute: &Attribute, name: &str) -> bool {
    attribute
        .path()
        .segments
        .last()
        .is_some_and(|segment| segment.ident == name)
}
