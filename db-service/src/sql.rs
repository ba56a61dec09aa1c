//! The text of statements: parameters, side effects, names and scripts. Knows no connection.

mod identifier;
mod lists;
#[cfg(test)]
mod oracle;
mod parse;
mod placeholders;
mod script;
mod side_effects;

pub(crate) use identifier::{TableName, quote};
pub(crate) use lists::ListOperator;
pub(crate) use parse::{MAX_TEXT, ParsedStatement, Piece, TextFacts, facts, parse};
pub(crate) use script::{ScriptStatement, statements};
pub(crate) use side_effects::SideEffects;
