//! Placeholders of other drivers that the backend would read as an operator.

use crate::backend::Backend;
use crate::error::DbError;
use crate::tokens::{Kind, Token};

/// Finds `?`, `?1` and `$name` on PostgreSQL, and `%s` and `%(name)s` on both backends.
///
/// SQLite's own placeholders are tokens of their own. On PostgreSQL, `?` is also an operator of JSON, and `%` is one
/// everywhere. An operator has an operand behind it, and `%` one before it too. A placeholder has none in these places.
pub(super) struct PlaceholderScanner<'a> {
    backend: Backend,
    /// The sign of a possible placeholder, whose next token decides.
    sign: Option<Sign<'a>>,
    is_after_space: bool,
    /// Whether the last token cannot be the end of an operand.
    needs_operand: bool,
}

#[derive(Clone, Copy)]
enum Sign<'a> {
    /// A question mark, and the number that follows it directly.
    Question(&'a str),
    /// A percent sign where an operand begins.
    Percent,
    Dollar,
}

/// Keywords that PostgreSQL reserves, so no operand begins with one.
const BEHIND_OPERANDS: [&str; 26] = [
    "AND",
    "AS",
    "ASC",
    "DESC",
    "ELSE",
    "END",
    "EXCEPT",
    "FETCH",
    "FOR",
    "FROM",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INTERSECT",
    "IS",
    "LIKE",
    "LIMIT",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "RETURNING",
    "THEN",
    "UNION",
    "WHERE",
];

/// Reserved keywords before which no operand ends.
const BEFORE_OPERANDS: [&str; 18] = [
    "AND",
    "CASE",
    "DISTINCT",
    "ELSE",
    "HAVING",
    "ILIKE",
    "IN",
    "LIKE",
    "LIMIT",
    "NOT",
    "OFFSET",
    "ON",
    "OR",
    "RETURNING",
    "SELECT",
    "THEN",
    "WHEN",
    "WHERE",
];

fn is_one_of(words: &[&str], text: &str) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(text))
}

impl<'a> PlaceholderScanner<'a> {
    pub(super) fn new(backend: Backend) -> Self {
        PlaceholderScanner {
            backend,
            sign: None,
            is_after_space: false,
            needs_operand: true,
        }
    }

    /// Takes the next token. Returns an error if it shows that a sign before it is a placeholder.
    pub(super) fn take(&mut self, token: Token<'a>) -> Result<(), DbError> {
        let Token { kind, text } = token;
        if kind == Kind::Space {
            self.is_after_space = true;
            return Ok(());
        }
        let is_adjacent = !std::mem::take(&mut self.is_after_space);
        if let Some(sign) = self.sign.take() {
            let starts_as_name = text.starts_with(|first: char| !first.is_ascii_digit());
            match sign {
                Sign::Question("")
                    if is_adjacent && text.bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    self.sign = Some(Sign::Question(text));
                    self.needs_operand = false;
                    return Ok(());
                }
                Sign::Question(number) if ends_operand(token, is_adjacent) => {
                    return Err(DbError::raw_placeholder(&format!("?{number}")));
                }
                Sign::Percent if is_adjacent && (kind == Kind::Open || text == "s") => {
                    let name = if kind == Kind::Open { "(" } else { "s" };
                    return Err(DbError::raw_placeholder(&format!("%{name}")));
                }
                Sign::Dollar if is_adjacent && kind == Kind::Word && starts_as_name => {
                    return Err(DbError::raw_placeholder(&format!("${text}")));
                }
                _ => {}
            }
        }
        let is_postgres = self.backend == Backend::Postgres;
        self.sign = match (kind, text) {
            (Kind::Other, "?") if is_postgres => Some(Sign::Question("")),
            (Kind::Other, "$") if is_postgres => Some(Sign::Dollar),
            (Kind::Other, "%") if self.needs_operand => Some(Sign::Percent),
            _ => None,
        };
        self.needs_operand = match kind {
            Kind::Open => true,
            Kind::Other => !matches!(text, "]" | "."),
            Kind::Word => is_one_of(&BEFORE_OPERANDS, text),
            _ => false,
        };
        Ok(())
    }

    /// Returns an error if the statement ends with a placeholder.
    pub(super) fn finish(self) -> Result<(), DbError> {
        match self.sign {
            Some(Sign::Question(number)) => Err(DbError::raw_placeholder(&format!("?{number}"))),
            _ => Ok(()),
        }
    }
}

/// Returns whether a token behind a question mark begins no operand, so that the question mark is one.
fn ends_operand(Token { kind, text }: Token<'_>, is_adjacent: bool) -> bool {
    match kind {
        Kind::Close | Kind::Semicolon => true,
        Kind::Other if matches!(text, "," | "]" | "::") => true,
        // Signs that follow directly belong to the same operator, such as `?|`.
        Kind::Other => !is_adjacent && matches!(text, "=" | "<" | ">" | "*" | "/" | "%"),
        Kind::Word => is_one_of(&BEHIND_OPERANDS, text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    #[test]
    fn placeholders_of_other_drivers_are_refused() {
        const BOTH: [Backend; 2] = [Backend::Postgres, Backend::Sqlite];
        for (sql, shown) in [
            ("SELECT ?", "?"),
            ("SELECT ?;", "?"),
            ("SELECT ? -- the end", "?"),
            ("SELECT * FROM t WHERE id = ?", "?"),
            ("SELECT * FROM t WHERE id=?", "?"),
            ("SELECT * FROM t WHERE id = ? AND name = ?", "?"),
            ("SELECT * FROM t WHERE id IN (?, ?)", "?"),
            ("SELECT * FROM t WHERE name LIKE ? ORDER BY id", "?"),
            ("SELECT * FROM t LIMIT ? OFFSET ?", "?"),
            ("SELECT * FROM t WHERE ? = id", "?"),
            ("SELECT ? AS x", "?"),
            ("SELECT f(?)", "?"),
            ("INSERT INTO t VALUES (?, 'a')", "?"),
            ("UPDATE t SET a = ? WHERE id = 1", "?"),
            ("SELECT * FROM t WHERE id = ?1", "?1"),
            ("SELECT ?12, 1", "?12"),
            ("SELECT $name", "$name"),
            ("SELECT * FROM t WHERE id = $name", "$name"),
            ("SELECT * FROM t WHERE id = %s", "%s"),
            ("SELECT * FROM t WHERE id=%s AND a = 1", "%s"),
            ("INSERT INTO t VALUES (%s, %s)", "%s"),
            ("SELECT * FROM t LIMIT %s", "%s"),
            ("SELECT %(secret)s", "%…"),
        ] {
            for backend in BOTH {
                match parse(sql, backend) {
                    Err(DbError::RawPlaceholder { placeholder }) => {
                        assert_eq!(placeholder, shown, "{backend} {sql}");
                    }
                    other => panic!("{backend} {sql}: {other:?}"),
                }
            }
        }
        assert!(matches!(
            parse("SELECT ?::int", Backend::Postgres),
            Err(DbError::RawPlaceholder { .. })
        ));
    }

    #[test]
    fn operators_are_no_placeholders() {
        for sql in [
            "SELECT doc ? 'a' FROM t",
            "SELECT doc?'a' FROM t",
            "SELECT doc ? :name FROM t",
            "SELECT doc ? name FROM t",
            "SELECT doc ? (SELECT 'a')",
            "SELECT doc ? lower('A') AND doc ? 'b' FROM t",
            "SELECT doc -> 'a' ? 'b', doc ?| array['a'], doc ?& array['a'] FROM t",
            "SELECT doc ?| :names::text[]",
            "SELECT doc @? '$.a ? (@ > 1)', doc @@ '$.a == 1'",
            "SELECT ?- lseg '((0,0),(1,0))', ?| lseg '((0,0),(1,0))'",
            "SELECT a ?-| b, a ?|| b, a ?# b",
            "SELECT '?', \"?\", $$?$$ -- ?",
            "SELECT count(*) FILTER (WHERE doc ? 'a')",
            "SELECT $$a$$, $s$b$s$",
        ] {
            assert!(parse(sql, Backend::Postgres).is_ok(), "{sql}");
        }
        for sql in [
            "SELECT a %s FROM t",
            "SELECT 5 %s FROM t",
            "SELECT (5) %s, :a %s, count(*) %s FROM t",
            "SELECT a % s FROM t",
            "SELECT CASE WHEN true THEN 5 END %s FROM t",
            "SELECT 'a' LIKE '%s', '%(a)s'",
            "SELECT 5 % (2), 5 %(2)",
            "SELECT t.a %s FROM t",
        ] {
            for backend in [Backend::Postgres, Backend::Sqlite] {
                assert!(parse(sql, backend).is_ok(), "{backend} {sql}");
            }
        }
    }
}
