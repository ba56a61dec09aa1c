//! The places of a statement where a parameter may be a list: `IN (:ids)`, `NOT IN (:ids)` and `= ANY (:ids)`.

use std::ops::Range;

use crate::tokens::Kind;

/// The operator before a parameter that may be a list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ListOperator {
    In,
    NotIn,
    EqualsAny,
    /// `IN` or `NOT IN` after a row, such as `(a, b)`, whose elements no list has.
    OfRow,
}

/// A parameter that may be a list.
#[derive(Debug, PartialEq)]
pub(super) struct FoundList {
    /// The position of its piece.
    pub(super) parameter: usize,
    pub(super) operator: ListOperator,
    /// The text of the operator and the opening parenthesis.
    pub(super) range: Range<usize>,
}

/// Finds the parameters that may be lists, from the tokens of a statement.
#[derive(Debug, Default)]
pub(super) struct ListScanner<'a> {
    /// The last tokens that are no spaces or comments, the newest one last.
    recent: [Seen<'a>; 5],
    /// The open parentheses.
    groups: Vec<Group>,
    /// The parenthesis that was closed last.
    closed: Group,
    pub(super) found: Vec<FoundList>,
}

#[derive(Debug, Clone, Copy)]
struct Seen<'a> {
    kind: Kind,
    text: &'a str,
    position: usize,
    /// The position of its piece.
    piece: usize,
    /// Whether it closes a row.
    closes_row: bool,
}

impl Default for Seen<'_> {
    fn default() -> Self {
        Seen {
            kind: Kind::Space,
            text: "",
            position: 0,
            piece: 0,
            closes_row: false,
        }
    }
}

impl Seen<'_> {
    fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word)
    }

    fn end(&self) -> usize {
        self.position + self.text.len()
    }
}

/// The contents of a parenthesis.
#[derive(Debug, Clone, Copy, Default)]
struct Group {
    has_comma: bool,
    /// Whether they are the arguments of a function.
    is_call: bool,
}

/// The keywords that a row in parentheses can follow. Other words before a parenthesis are names of functions.
const BEFORE_ROWS: [&str; 18] = [
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "ON",
    "WHEN",
    "THEN",
    "ELSE",
    "CASE",
    "SELECT",
    "DISTINCT",
    "HAVING",
    "BY",
    "RETURNING",
    "VALUES",
    "SET",
    "USING",
    "FILTER",
];

impl<'a> ListScanner<'a> {
    /// Takes the next token, which is part of the piece `piece`.
    pub(super) fn take(&mut self, kind: Kind, text: &'a str, position: usize, piece: usize) {
        if kind == Kind::Space {
            return;
        }
        let mut seen = Seen {
            kind,
            text,
            position,
            piece,
            closes_row: false,
        };
        let last = &self.recent[4];
        match kind {
            Kind::Open => self.groups.push(Group {
                has_comma: false,
                is_call: last.kind == Kind::Quoted
                    || last.kind == Kind::Word
                        && !BEFORE_ROWS.iter().any(|word| last.is_word(word)),
            }),
            Kind::Close => {
                self.closed = self.groups.pop().unwrap_or_default();
                seen.closes_row = self.closed.has_comma && !self.closed.is_call;
                self.found.extend(self.list());
            }
            Kind::Other if text == "," => {
                if let Some(group) = self.groups.last_mut() {
                    group.has_comma = true;
                }
            }
            _ => {}
        }
        self.recent.rotate_left(1);
        self.recent[4] = seen;
    }

    /// Returns the list that a closing parenthesis ends now.
    fn list(&self) -> Option<FoundList> {
        let [first, second, word, open, parameter] = &self.recent;
        if parameter.kind != Kind::Parameter || open.kind != Kind::Open {
            return None;
        }
        let (operator, start, row) = if word.is_word("IN") && second.is_word("NOT") {
            (ListOperator::NotIn, second.position, first)
        } else if word.is_word("IN") {
            (ListOperator::In, word.position, second)
        } else if word.is_word("ANY") && second.text == "=" {
            // The last character of `<=`, `>=`, `!=` and `==` is another operator.
            let is_part = first.kind == Kind::Other
                && first.end() == second.position
                && "<>!=".contains(first.text);
            if is_part {
                return None;
            }
            (ListOperator::EqualsAny, second.position, first)
        } else {
            return None;
        };
        Some(FoundList {
            parameter: parameter.piece,
            operator: if row.closes_row {
                ListOperator::OfRow
            } else {
                operator
            },
            range: start..open.end(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ListOperator::{EqualsAny, In, NotIn, OfRow};
    use super::*;
    use crate::backend::Backend;
    use crate::sql::{Piece, parse};

    #[track_caller]
    fn lists(sql: &str) -> Vec<(String, ListOperator)> {
        let parsed = parse(sql, Backend::Sqlite).unwrap();
        let text: String = parsed
            .pieces()
            .map(|piece| match piece {
                Piece::Text(text) | Piece::List(text, _) => text.to_owned(),
                Piece::Parameter(index) => format!(":{}", parsed.names[index]),
            })
            .collect();
        assert_eq!(text, sql);
        let lists = parsed.pieces().filter_map(|piece| match piece {
            Piece::List(text, operator) => Some((text.to_owned(), operator)),
            _ => None,
        });
        lists.collect()
    }

    #[test]
    fn only_sole_parameters_after_the_operators_may_be_lists() {
        let found = |text: &str, operator| vec![(text.to_owned(), operator)];
        assert_eq!(lists("SELECT a IN (:b)"), found("IN (", In));
        assert_eq!(
            lists("SELECT a not  in/* :x */( :b )"),
            found("not  in/* :x */(", NotIn)
        );
        assert_eq!(lists("SELECT a = any(:b) OR c"), found("= any(", EqualsAny));
        assert_eq!(
            lists("SELECT f(a, b) IN (:b), lower(:a)"),
            found("IN (", In)
        );
        for row in [
            "SELECT 1 WHERE (a, b) IN (:b)",
            "SELECT ((1, 2)) = ((3, f(4))), (a,b) NOT IN (:b)",
        ] {
            assert_eq!(lists(row).len(), 1, "{row}");
            assert_eq!(lists(row)[0].1, OfRow, "{row}");
        }
        assert_eq!(
            lists("SELECT a IN (:a) AND b NOT IN (:b) AND c IN (:a)").len(),
            3
        );
        for other in [
            "SELECT a IN (:b, 5)",
            "SELECT a IN (5, :b)",
            "SELECT a IN ((:b))",
            "SELECT a IN (:b + 1)",
            "SELECT a >= ANY (:b)",
            "SELECT a IN (SELECT :b)",
            "SELECT min(:b)",
            "SELECT ':a IN (', :b",
        ] {
            assert_eq!(lists(other), [], "{other}");
        }
    }
}
