//! The statements of a migration's script. PostgreSQL runs several statements that are sent together in one
//! transaction, so a script that must not run in a transaction is split.

use crate::backend::Backend;
use crate::tokens::{Kind, Token, Tokens};

/// One statement of a script.
#[derive(Debug, PartialEq)]
pub(crate) struct ScriptStatement<'a> {
    pub(crate) text: &'a str,
    /// The first line of the statement in the script, from 1.
    pub(crate) line: usize,
}

/// Returns the statements of a script, without comments between them. A `;` inside the body of a trigger or a function
/// does not end a statement.
pub(crate) fn statements(script: &str, backend: Backend) -> Vec<ScriptStatement<'_>> {
    let mut found = Vec::new();
    let (mut position, mut line) = (0, 1);
    // The begin of the statement, after its first token.
    let mut start: Option<(usize, usize)> = None;
    let mut nesting = BlockNesting::new(backend);
    for Token { kind, text } in Tokens::new(script, backend) {
        match kind {
            Kind::Semicolon if !nesting.is_open() => {
                found.extend(start.take().map(|(from, line)| ScriptStatement {
                    text: &script[from..position],
                    line,
                }));
                nesting = BlockNesting::new(backend);
            }
            Kind::Space => {}
            _ => {
                start.get_or_insert((position, line));
                nesting.take(kind, text);
            }
        }
        position += text.len();
        line += text.matches('\n').count();
    }
    found.extend(start.map(|(from, line)| ScriptStatement {
        text: script[from..].trim_end(),
        line,
    }));
    found
}

/// The nesting of a scanned statement: inside parentheses or a body, `;` does not end the statement.
///
/// A body is `BEGIN … END` and can contain `CASE … END`. SQLite triggers have one, and PostgreSQL functions and
/// procedures with `BEGIN ATOMIC`.
#[derive(Debug)]
pub(crate) struct BlockNesting {
    backend: Backend,
    parentheses: usize,
    blocks: usize,
    tokens: usize,
    /// Whether the statement is a `CREATE`. In other statements, `BEGIN` begins a transaction.
    creates: bool,
    is_trigger: bool,
    after_begin: bool,
    after_temporary: bool,
}

impl BlockNesting {
    pub(crate) fn new(backend: Backend) -> Self {
        BlockNesting {
            backend,
            parentheses: 0,
            blocks: 0,
            tokens: 0,
            creates: false,
            is_trigger: false,
            after_begin: false,
            after_temporary: false,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.parentheses > 0 || self.blocks > 0
    }

    /// Processes the next token that is neither white space nor a comment.
    pub(crate) fn take(&mut self, kind: Kind, text: &str) {
        let is = |word: &str| kind == Kind::Word && text.eq_ignore_ascii_case(word);
        match kind {
            Kind::Open => self.parentheses += 1,
            Kind::Close => self.parentheses = self.parentheses.saturating_sub(1),
            _ => {}
        }
        self.creates |= self.tokens == 0 && is("CREATE");
        // `CREATE TRIGGER` and `CREATE TEMPORARY TRIGGER`, but not a table named `trigger`.
        self.is_trigger |= self.creates
            && is("TRIGGER")
            && (self.tokens == 1 || self.tokens == 2 && self.after_temporary);
        let begins = match self.backend {
            Backend::Sqlite => self.is_trigger && is("BEGIN"),
            Backend::Postgres => self.creates && self.after_begin && is("ATOMIC"),
        };
        if self.blocks == 0 && begins || self.blocks > 0 && is("CASE") {
            self.blocks += 1;
        } else if self.blocks > 0 && is("END") {
            self.blocks -= 1;
        }
        self.after_begin = is("BEGIN");
        self.after_temporary = is("TEMP") || is("TEMPORARY");
        self.tokens += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(script: &str, backend: Backend) -> Vec<(&str, usize)> {
        let statements = statements(script, backend);
        statements
            .into_iter()
            .map(|statement| (statement.text, statement.line))
            .collect()
    }

    #[test]
    fn statements_end_at_top_level_semicolons() {
        for backend in [Backend::Postgres, Backend::Sqlite] {
            assert_eq!(cut(" -- nothing;\n;;", backend), []);
            assert_eq!(
                cut(
                    "-- a;\nCREATE TABLE \"a;b\" (x TEXT DEFAULT ';');\n\n/* ; */ SELECT 1 ;SELECT (2) -- end",
                    backend
                ),
                [
                    ("CREATE TABLE \"a;b\" (x TEXT DEFAULT ';')", 2),
                    ("SELECT 1 ", 4),
                    ("SELECT (2) -- end", 4)
                ]
            );
            assert_eq!(
                cut("BEGIN; SELECT 1; END;", backend),
                [("BEGIN", 1), ("SELECT 1", 1), ("END", 1)]
            );
        }
    }

    #[test]
    fn bodies_belong_to_their_statement() {
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; DELETE FROM b; END";
        assert_eq!(
            cut(&format!("{trigger};\nSELECT 1"), Backend::Sqlite),
            [(trigger, 1), ("SELECT 1", 2)]
        );
        let rule = "CREATE RULE r AS ON INSERT TO a DO (DELETE FROM b; DELETE FROM c)";
        let atomic =
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; SELECT CASE 1 WHEN 1 THEN 2 END; END";
        let dollar = "CREATE FUNCTION g() RETURNS int AS $$ BEGIN; END; $$ LANGUAGE plpgsql";
        assert_eq!(
            cut(&format!("{rule};{atomic};{dollar};"), Backend::Postgres),
            [(rule, 1), (atomic, 1), (dollar, 1)]
        );
    }
}
