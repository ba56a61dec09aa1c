//! Names and words in the server's messages that may be values.
//!
//! SQLite reports `no such table: x` for `SELECT * FROM x` and for `SELECT * FROM pragma_integrity_check(:x)`. FTS5
//! reports `no such column: x` for `MATCH :x`. A syntax error quotes a token, which is a literal as often as a keyword.
//! Such a name or word is shown only if the statement contains it, outside of literals. The statement is known only when
//! the driver reports the failure, so a thread-local keeps the result until the error is converted.

use std::cell::RefCell;
use std::fmt;

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::patterns::NEAR;
use crate::backend::Backend;
use crate::tokens::{Kind, Token, Tokens};

thread_local! {
    /// The message that was compared last, and what its statement reveals about it.
    static COMPARED: RefCell<Option<(String, Comparison)>> = const { RefCell::new(None) };
}

/// The facts of a statement that decide which words of its error are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Comparison {
    /// Whether the statement contains the name or word, so that the whole message may be shown.
    pub(super) is_of_statement: bool,
    /// The position of a syntax error that SQLite reports, in characters from 1.
    pub(super) position: Option<usize>,
}

/// Compares the name in an error's message with the names in the failed statement.
pub(crate) fn remember_names_of_statement(error: &DieselError, query: &dyn fmt::Display) {
    remember(candidate(error).map(|(message, quoted)| {
        let is_of_statement = quoted.is_in(&statement_text(query));
        (
            message,
            Comparison {
                is_of_statement,
                position: None,
            },
        )
    }));
}

/// Does the same for a statement whose text is the caller's, and finds the position of SQLite's syntax errors.
pub(crate) fn remember_place_in_statement(error: &DieselError, sql: &str) {
    remember(candidate(error).map(|(message, quoted)| {
        let is_of_statement = quoted.is_in(sql);
        let position = quoted.position_in(sql);
        (
            message,
            Comparison {
                is_of_statement,
                position,
            },
        )
    }));
}

fn remember(compared: Option<(&str, Comparison)>) {
    let compared = compared.map(|(message, comparison)| (message.to_owned(), comparison));
    // A thread that ends runs no more statements.
    let _ = COMPARED.try_with(|cell| cell.replace(compared));
}

/// Returns the comparison of the error, if it was compared last.
pub(super) fn take_comparison(error: &DieselError) -> Comparison {
    let Some((message, _)) = candidate(error) else {
        return Comparison::default();
    };
    let compared = COMPARED.try_with(RefCell::take).ok().flatten();
    of_message(compared.as_ref(), message)
}

/// Returns the same as [`take_comparison`], for a copy of the error.
pub(super) fn copy_comparison(error: &DieselError) -> Comparison {
    let Some((message, _)) = candidate(error) else {
        return Comparison::default();
    };
    COMPARED
        .try_with(|compared| of_message(compared.borrow().as_ref(), message))
        .unwrap_or_default()
}

fn of_message(compared: Option<&(String, Comparison)>, message: &str) -> Comparison {
    match compared {
        Some((compared, comparison)) if compared == message => *comparison,
        _ => Comparison::default(),
    }
}

/// The quoted parts of a message that may be values.
enum Quoted<'a> {
    /// A name, reported by SQLite.
    Name(&'a str),
    /// The token at a syntax error.
    Token(&'a str, Backend),
    /// SQLite reports that the text ends too early.
    End,
}

impl Quoted<'_> {
    fn is_in(&self, sql: &str) -> bool {
        match *self {
            Quoted::Name(name) => contains_name(name, sql),
            Quoted::Token(token, backend) => contains_token(token, sql, backend),
            Quoted::End => false,
        }
    }

    /// Returns the position of SQLite's token, if it occurs once. PostgreSQL reports the position itself.
    fn position_in(&self, sql: &str) -> Option<usize> {
        let end = match *self {
            Quoted::Token(text, Backend::Sqlite) => {
                let mut end = 0;
                let mut places = Tokens::new(sql, Backend::Sqlite).filter_map(|token| {
                    let place = end;
                    end += token.text.len();
                    (token.text == text).then_some(place)
                });
                let first = places.next()?;
                if places.next().is_some() {
                    return None;
                }
                first
            }
            Quoted::End => sql.len(),
            _ => return None,
        };
        Some(sql[..end].chars().count() + 1)
    }
}

/// Returns whether a statement has a token that is a keyword, a name or a sign, and no value.
///
/// A word may be a part of a value that was written into the text without its quotes being doubled, as in `'O'Brien'`.
/// So a word that directly follows a literal, or that a literal contains, is not shown.
fn contains_token(sought: &str, sql: &str, backend: Backend) -> bool {
    let mut is_found = false;
    let mut follows_literal = false;
    for Token { kind, text } in Tokens::new(sql, backend) {
        let is_word = kind == Kind::Word;
        let is_harmless = match kind {
            Kind::Word => {
                !follows_literal
                    && text.starts_with(|first: char| first.is_alphabetic() || first == '_')
            }
            Kind::Semicolon | Kind::Open | Kind::Close | Kind::Other => true,
            _ => false,
        };
        follows_literal = kind == Kind::Quoted;
        if text == sought {
            if is_word && !is_harmless {
                return false;
            }
            is_found |= is_harmless;
        } else if follows_literal && text.contains(sought) && sought.len() > 1 {
            return false;
        }
    }
    is_found
}

/// Returns the message and what it quotes, if that may be a value.
fn candidate(error: &DieselError) -> Option<(&str, Quoted<'_>)> {
    const BEFORE: [&str; 2] = ["no such table: ", "no such column: "];
    const BEHIND: &str = " - should this be a string literal in single-quotes?";
    let DieselError::DatabaseError(DatabaseErrorKind::Unknown, information) = error else {
        return None;
    };
    let message = information.message();
    let between = |before: &str, behind: &str| message.strip_prefix(before)?.strip_suffix(behind);
    let quoted = if let Some(name) = BEFORE
        .iter()
        .find_map(|before| message.strip_prefix(before))
    {
        Quoted::Name(name.strip_suffix(BEHIND).unwrap_or(name))
    } else if let Some(token) = between("near \"", "\": syntax error") {
        Quoted::Token(token, Backend::Sqlite)
    } else if let Some(token) = between("unrecognized token: \"", "\"") {
        Quoted::Token(token, Backend::Sqlite)
    } else if message == "incomplete input" {
        Quoted::End
    } else {
        let (problem, token) = message.strip_suffix('"')?.split_once(" at or near \"")?;
        if !NEAR.contains(&problem) {
            return None;
        }
        Quoted::Token(token, Backend::Postgres)
    };
    Some((message, quoted))
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
    fn token_at_a_syntax_error_is_shown_if_it_is_a_word_of_the_statement() {
        for (message, sql) in [
            ("near \"SELEC\": syntax error", "SELEC 1"),
            ("near \"größe\": syntax error", "SELECT a b größe"),
            ("near \")\": syntax error", "SELECT )"),
            ("near \",\": syntax error", "SELECT ',' ,"),
            ("syntax error at or near \"SELEC\"", "SELEC 1"),
            ("syntax error at or near \")\"", "SELECT )"),
        ] {
            assert_eq!(shown(message, sql), message, "{sql}");
        }
        for (token, sql) in [
            ("'secret'", "SELECT 1 'secret'"),
            ("secret", "SELECT 1 'secret'"),
            ("secret", "SELECT 1 \"secret\""),
            ("secret", "SELECT 1 -- secret"),
            ("secret", "SELECT :secret"),
            ("secret", "SELECT secrets"),
            ("secret", "SELECT 'secret' AS a secret"),
            ("secret", "SELECT 'my secret' AS a secret"),
            ("secret", "SELECT 'my'secret'"),
            ("secret", "SELECT secret AS a, 'my'secret"),
            ("4711", "SELECT 1 4711"),
            ("4711secret", "SELECT 4711secret"),
            ("'secret", "SELECT 'secret"),
            ("secret\" at or near \"1", "SELECT secret"),
            ("", "SELECT"),
        ] {
            for (before, behind) in [
                ("near \"", "\": syntax error"),
                ("unrecognized token: \"", "\""),
                ("syntax error at or near \"", "\""),
            ] {
                let message = format!("{before}{token}{behind}");
                assert_eq!(shown(&message, sql), format!("{before}…{behind}"), "{sql}");
            }
        }
        // The values of other parsers.
        let of_fts = "fts5: syntax error near \"secret\"";
        let of_fts = shown(of_fts, "SELECT secret");
        assert_eq!(of_fts, "fts5: syntax error near \"…\"");
    }

    #[test]
    fn position_is_known_if_the_token_of_sqlite_occurs_once() {
        for (message, sql, position) in [
            ("near \"SELEC\": syntax error", "SELEC 1", Some(1)),
            ("near \"b\": syntax error", "SELECT 'ß' a b", Some(14)),
            ("near \"b\": syntax error", "SELECT 'b' a b", Some(14)),
            ("near \"b\": syntax error", "SELECT b a b", None),
            ("near \"'b'\": syntax error", "SELECT a 'b'", Some(10)),
            ("near \"?\": syntax error", "SELECT a :b", None),
            ("unrecognized token: \"1b\"", "SELECT 1b", Some(8)),
            ("incomplete input", "SELECT (", Some(9)),
            ("no such column: b", "SELECT b", None),
            ("syntax error at or near \"b\"", "SELECT a b", None),
        ] {
            let error = || error(message);
            remember_place_in_statement(&error(), sql);
            let copied = ServerError::from_copy(None, error()).position();
            assert_eq!(copied, position, "{sql}");
            assert_eq!(ServerError::from(error()).position(), position, "{sql}");
            assert_eq!(ServerError::from(error()).position(), None, "only once");
            // In a text that is not the caller's.
            remember_names_of_statement(&error(), &sql);
            assert_eq!(ServerError::from(error()).position(), None, "{sql}");
        }
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
