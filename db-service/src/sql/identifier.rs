//! Table names, parsed as in statements.

use crate::backend::Backend;
use crate::error::DbError;

/// A table's name, optionally with its schema.
#[derive(Debug, PartialEq)]
pub(crate) struct TableName {
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl TableName {
    /// Parses `name` and `schema.name`, where each part may be quoted. Folds unquoted parts as the backend does.
    pub(crate) fn parse(text: &str, backend: Backend) -> Result<Self, DbError> {
        let (first, rest) = part(text, backend).map_err(|problem| invalid(text, problem))?;
        let Some(rest) = rest else {
            return Ok(TableName {
                schema: None,
                name: first,
            });
        };
        match part(rest, backend).map_err(|problem| invalid(text, problem))? {
            (name, None) => Ok(TableName {
                schema: Some(first),
                name,
            }),
            _ => Err(invalid(text, "it has more than two parts")),
        }
    }

    /// Returns the name for use in a statement.
    pub(crate) fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quote(schema), quote(&self.name)),
            None => quote(&self.name),
        }
    }

    /// Returns the name in a form that [`parse`](Self::parse) accepts, with quotes only where necessary.
    pub(crate) fn listed(&self) -> String {
        match &self.schema {
            Some(schema) => format!(
                "{}.{}",
                quote_if_needed(schema),
                quote_if_needed(&self.name)
            ),
            None => quote_if_needed(&self.name),
        }
    }
}

/// Quotes a name as in standard SQL, which both backends support.
pub(crate) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a name if necessary, like PostgreSQL's `quote_ident` without its list of reserved words.
fn quote_if_needed(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    match name.bytes().next() {
        Some(first) if !first.is_ascii_digit() && name.bytes().all(is_plain) => name.to_owned(),
        _ => quote(name),
    }
}

/// Parses a name up to a dot. Returns the name and the text after the dot.
fn part(text: &str, backend: Backend) -> Result<(String, Option<&str>), &'static str> {
    // Neither a table name nor a statement can contain a NUL.
    if text.contains('\0') {
        return Err("it contains a NUL");
    }
    if text.starts_with(|first: char| first.is_ascii_digit() || first == '$') {
        return Err("it begins with a digit or a dollar sign");
    }
    let quoted = text.strip_prefix('"');
    let (name, rest) = match quoted {
        Some(quoted) => unquote(quoted).ok_or("a quote is not closed")?,
        None => {
            let end = text.find(|next| !is_plain(next)).unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            (fold(name, backend), rest)
        }
    };
    // SQLite accepts an empty name in quotes.
    let may_be_empty = quoted.is_some() && backend == Backend::Sqlite;
    match rest.strip_prefix('.') {
        None if !rest.is_empty() => Err("it contains a character that must be quoted"),
        _ if name.is_empty() && !may_be_empty => Err("it is empty, or a part of it is"),
        rest => Ok((name, rest)),
    }
}

/// Folds a name to lower case. SQLite ignores the case of names.
fn fold(name: &str, backend: Backend) -> String {
    match backend {
        Backend::Postgres => name.to_ascii_lowercase(),
        Backend::Sqlite => name.to_owned(),
    }
}

/// Returns the text before the closing quote, unescaped, and the text after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (before, behind) = rest.split_once('"')?;
        name.push_str(before);
        match behind.strip_prefix('"') {
            Some(more) => {
                name.push('"');
                rest = more;
            }
            None => return Some((name, behind)),
        }
    }
}

fn is_plain(next: char) -> bool {
    next.is_ascii_alphanumeric() || next == '_' || next == '$' || !next.is_ascii()
}

fn invalid(table: &str, problem: &'static str) -> DbError {
    DbError::InvalidTableName {
        table: table.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, backend: Backend) -> Option<(Option<String>, String)> {
        let found = TableName::parse(text, backend).ok()?;
        Some((found.schema, found.name))
    }

    fn name(schema: Option<&str>, name: &str) -> Option<(Option<String>, String)> {
        Some((schema.map(str::to_owned), name.to_owned()))
    }

    #[test]
    fn names_are_parsed_as_in_statements() {
        let postgres = |text| read(text, Backend::Postgres);
        assert_eq!(postgres("Users"), name(None, "users"));
        assert_eq!(postgres("Public.\"Users\""), name(Some("public"), "Users"));
        assert_eq!(
            postgres("\"my.schema\".\"my \"\"table\""),
            name(Some("my.schema"), "my \"table")
        );
        assert_eq!(postgres("_a$1.Größe"), name(Some("_a$1"), "größe"));
        assert_eq!(
            read("Main.Users", Backend::Sqlite),
            name(Some("Main"), "Users")
        );
    }

    #[test]
    fn invalid_names_are_refused() {
        for text in [
            "", ".", "a.", ".a", "a..b", "a.b.c", "\"", "\"a", "\"a\"\"", "\"a\"b", "a\"b\"", " ",
            "a ", "a . b", "1a", "$a", "'a'", "a;b", "a\0", "\"a\0\"", "a-b", "[a]", "`a`",
        ] {
            for backend in [Backend::Postgres, Backend::Sqlite] {
                assert_eq!(read(text, backend), None, "{text:?}");
            }
        }
        assert_eq!(read("\"\"", Backend::Postgres), None);
        assert_eq!(read("\"\"", Backend::Sqlite), name(None, ""));
    }

    #[test]
    fn listed_names_parse_again() {
        for (schema, table) in [
            (None, "users"),
            (None, "Users"),
            (None, "a.b"),
            (Some("s"), "1"),
            (Some("\""), "\"."),
            (None, "größe"),
        ] {
            let name = TableName {
                schema: schema.map(str::to_owned),
                name: table.to_owned(),
            };
            for backend in [Backend::Postgres, Backend::Sqlite] {
                for text in [name.listed(), name.quoted()] {
                    assert_eq!(
                        TableName::parse(&text, backend).ok().as_ref(),
                        Some(&name),
                        "{text}"
                    );
                }
            }
        }
        let plain = TableName {
            schema: None,
            name: "users_2".to_owned(),
        };
        assert_eq!(plain.listed(), "users_2");
    }
}
