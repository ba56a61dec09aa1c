//! Names in SQLite's messages that may be values.
//!
//! SQLite reports `no such table: x` for `SELECT * FROM x` and for `SELECT * FROM pragma_integrity_check(:x)`. FTS5
//! reports `no such column: x` for `MATCH :x`. Such a name is shown only if the statement contains it as a name. The
//! statement is known only when diesel reports the failure, so a thread-local keeps the result until the error is
//! converted.

use std::cell::RefCell;
use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use crate::backend::Backend;
use crate::tokens::{Kind, Token, Tokens};

thread_local! {
    /// The message that was compared last, if its statement contains the name.
    static OF_STATEMENT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Compares the name in an error's message with the names in the failed statement.
pub(crate) fn remember_names_of_statement(error: &DieselError, query: &dyn fmt::Display) {
    let message = candidate(error)
        .filter(|(_, name)| contains_name(name, &statement_text(query)))
        .map(|(message, _)| message.to_owned());
    // A thread that ends runs no more statements.
    let _ = OF_STATEMENT.try_with(|of_statement| of_statement.replace(message));
}

/// Returns whether the error was compared last and its statement contains the name.
pub(super) fn is_of_statement(error: &DieselError) -> bool {
    let Some((message, _)) = candidate(error) else {
        return false;
    };
    let compared = OF_STATEMENT.try_with(RefCell::take).ok().flatten();
    compared.as_deref() == Some(message)
}

/// Returns the same as [`is_of_statement`], for a copy of the error.
pub(super) fn will_be_of_statement(error: &DieselError) -> bool {
    let Some((message, _)) = candidate(error) else {
        return false;
    };
    OF_STATEMENT
        .try_with(|compared| compared.borrow().as_deref() == Some(message))
        .unwrap_or(false)
}

/// Returns the message and its name, if the name may be a value.
fn candidate(error: &DieselError) -> Option<(&str, &str)> {
    const BEFORE: [&str; 2] = ["no such table: ", "no such column: "];
    const BEHIND: &str = " - should this be a string literal in single-quotes?";
    let DieselError::DatabaseError(DatabaseErrorKind::Unknown, information) = error else {
        return None;
    };
    let message = information.message();
    let name = BEFORE
        .iter()
        .find_map(|before| message.strip_prefix(before))?;
    Some((message, name.strip_suffix(BEHIND).unwrap_or(name)))
}

/// Returns whether a statement of SQLite has a name, qualified or not.
fn contains_name(name: &str, sql: &str) -> bool {
    let stands = |name: &str| {
        Tokens::new(sql, Backend::Sqlite).any(|Token { kind, text }| match kind {
            Kind::Word => text == name,
            // A text in single quotes is a value.
            Kind::Quoted if !text.starts_with('\'') => unquoted(text) == Some(name.to_owned()),
            _ => false,
        })
    };
    let name = name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
        .unwrap_or(name);
    stands(name)
        || name
            .split('.')
            .all(|part| ["main", "temp"].contains(&part) || stands(part))
}

fn unquoted(text: &str) -> Option<String> {
    let open = text.chars().next()?;
    let close = if open == '[' { ']' } else { open };
    let inside = text.strip_prefix(open)?.strip_suffix(close)?;
    Some(inside.replace(&format!("{close}{close}"), &close.to_string()))
}

/// Returns the text of a query, without the parameter values that diesel appends to it.
pub(crate) fn statement_text(query: &dyn fmt::Display) -> String {
    without_binds(query.to_string())
}

/// Removes the parameter values that diesel appends to a query's text.
pub(crate) fn without_binds(mut text: String) -> String {
    if let Some(binds) = text.find(" -- binds: ") {
        text.truncate(binds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ServerError;

    fn error(message: &str) -> DieselError {
        DieselError::DatabaseError(DatabaseErrorKind::Unknown, Box::new(message.to_owned()))
    }

    #[track_caller]
    fn shown(message: &str, sql: &str) -> String {
        remember_names_of_statement(&error(message), &sql);
        ServerError::from(error(message)).to_string()
    }

    #[test]
    fn name_is_shown_if_the_statement_contains_it_as_a_name() {
        for (message, sql) in [
            ("no such table: pets", "SELECT 1 FROM pets"),
            ("no such table: main.pets", "SELECT 1 FROM pets"),
            ("no such table: my pets", "SELECT 1 FROM \"my pets\""),
            ("no such table: a\"b", "SELECT 1 FROM \"a\"\"b\""),
            ("no such table: a]b", "SELECT 1 FROM `a]b`"),
            ("no such table: x.pets", "SELECT 1 FROM [x].[pets]"),
            ("no such column: p.legs", "SELECT p.legs FROM pets p"),
            (
                "no such column: \"legs\" - should this be a string literal in single-quotes?",
                "SELECT \"legs\" FROM pets",
            ),
        ] {
            assert_eq!(shown(message, sql), message, "{sql}");
        }
        let forged = shown("no such table: a\nb", "SELECT 1 FROM \"a\nb\"");
        assert_eq!(forged, r"no such table: a\nb");
    }

    #[test]
    fn value_is_never_shown_as_a_name() {
        for sql in [
            "SELECT * FROM pragma_integrity_check(:secret)",
            "SELECT * FROM pragma_integrity_check('secret')",
            "SELECT 1 -- secret",
            "SELECT ? -- binds: [\"secret\"]",
            "",
        ] {
            assert_eq!(shown("no such table: secret", sql), "no such table: …");
        }
        // Only the next error is that of the statement.
        let message = "no such table: secret";
        assert_eq!(shown(message, "SELECT 1 FROM secret"), message);
        assert_eq!(
            ServerError::from(error(message)).to_string(),
            "no such table: …"
        );
    }
}
