//! Statements in the log.

use std::fmt::Display;
use std::time::Duration;

use crate::escaped::Escaped;

/// Logs a query as it begins, with the values of its parameters only where they are asked for.
pub(crate) fn echo(query: &dyn Display, with_parameters: bool) {
    if with_parameters {
        log::info!("{}", Escaped(query));
    } else {
        log::info!("{}", Escaped(text_of(query)));
    }
}

pub(crate) fn tell_of_slow(text: &str, took: Duration) {
    log::warn!("a statement took {took:.1?}: {}", Escaped(text));
}

/// The text of a query without what diesel writes behind it: the values of its parameters.
pub(crate) fn text_of(query: &dyn Display) -> String {
    without_binds(query.to_string())
}

pub(crate) fn without_binds(mut text: String) -> String {
    if let Some(binds) = text.find(" -- binds: ") {
        text.truncate(binds);
    }
    text
}
