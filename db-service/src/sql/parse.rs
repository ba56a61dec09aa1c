//! The parser of statements: finds `:name` parameters and a few other properties.

use indexmap::IndexSet;

use super::script::BlockNesting;
use super::side_effects::{SideEffects, side_effects};
use crate::backend::Backend;
use crate::error::DbError;
use crate::tokens::{Kind, Token, Tokens};

/// The maximum length of a prepared statement in bytes. A longer statement consists mostly of values, and parsing it
/// again costs little compared with sending it.
pub(crate) const MAX_TEXT: usize = 32 * 1024;

/// A parsed statement: literal text, and parameters between it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedStatement<'a> {
    pub(crate) pieces: Vec<Piece<'a>>,
    /// The names of the parameters, each once, in the order of their first occurrence.
    pub(crate) names: IndexSet<&'a str>,
    /// Whether the statement changes rows, so that the backend's count of changed rows belongs to it.
    pub(crate) changes_rows: bool,
    /// The pieces of the parenthesized row of `INSERT … VALUES (…)`, if nothing follows it.
    pub(crate) row: Option<(usize, usize)>,
    pub(crate) side_effects: SideEffects,
    /// Whether PostgreSQL accepts the statement in `PREPARE` and in a transaction.
    pub(crate) is_preparable: bool,
    /// Whether the statement stays prepared: it is likely to be sent again, and not too long.
    pub(crate) is_cached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// A parameter, by the position of its name in [`ParsedStatement::names`].
    Parameter(usize),
}

/// Parses a single statement.
pub(crate) fn parse(sql: &str, backend: Backend) -> Result<ParsedStatement<'_>, DbError> {
    let mut parsed = ParsedStatement {
        pieces: Vec::new(),
        names: IndexSet::new(),
        row: None,
        side_effects: side_effects(sql, backend),
        is_preparable: false,
        is_cached: false,
        changes_rows: false,
    };
    let mut shape = StatementShape::default();
    let mut single = SingleStatement::new(backend);
    for Token { kind, text } in Tokens::new(sql, backend) {
        if kind == Kind::Placeholder {
            return Err(DbError::raw_placeholder(text));
        }
        single.check(kind, text)?;
        match kind {
            Kind::Parameter => {
                let (index, _) = parsed.names.insert_full(&text[1..]);
                parsed.pieces.push(Piece::Parameter(index));
            }
            Kind::EscapedColon => parsed.pieces.push(Piece::Text(&text[1..])),
            _ => parsed.pieces.push(Piece::Text(text)),
        }
        shape.note(kind, text, parsed.pieces.len() - 1);
    }
    let Some(first) = shape.first_word else {
        return Err(DbError::EmptyStatement);
    };
    let is = |word: &&str| word.eq_ignore_ascii_case(first);
    if is(&"COPY") && shape.is_copy_with_client {
        return Err(DbError::CopyUnsupported);
    }
    const CHANGING: [&str; 5] = ["INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"];
    parsed.changes_rows = CHANGING.iter().any(is);
    const REPEATABLE: [&str; 6] = ["SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "VALUES"];
    parsed.is_preparable = REPEATABLE.iter().any(is);
    parsed.is_cached = parsed.is_preparable && sql.len() <= MAX_TEXT;
    parsed.row = shape.row().filter(|(open, _)| {
        !parsed.pieces[..*open]
            .iter()
            .any(|piece| matches!(piece, Piece::Parameter(_)))
    });
    Ok(parsed)
}

/// A check that refuses everything after the `;` that ends the statement.
///
/// SQLite would run the first of several statements and ignore the others without an error. PostgreSQL would execute
/// all of them in the simple protocol.
struct SingleStatement {
    nesting: BlockNesting,
    has_begun: bool,
    has_ended: bool,
}

impl SingleStatement {
    fn new(backend: Backend) -> Self {
        SingleStatement {
            nesting: BlockNesting::new(backend),
            has_begun: false,
            has_ended: false,
        }
    }

    fn check(&mut self, kind: Kind, text: &str) -> Result<(), DbError> {
        match kind {
            Kind::Space => {}
            Kind::Semicolon if !self.nesting.is_open() => self.has_ended = self.has_begun,
            _ if self.has_ended => {
                return Err(DbError::multiple_statements(kind, text));
            }
            _ => {
                self.has_begun = true;
                self.nesting.take(kind, text);
            }
        }
        Ok(())
    }
}

/// The shape of a statement, from its words.
#[derive(Default)]
struct StatementShape<'a> {
    first_word: Option<&'a str>,
    is_insert: bool,
    /// Whether it is `COPY … FROM STDIN` or `TO STDOUT`, for which a statement cannot send or receive the data.
    is_copy_with_client: bool,
    depth: usize,
    state: RowState,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum RowState {
    #[default]
    Before,
    Values,
    Inside(usize),
    After(usize, usize),
    None,
}

impl<'a> StatementShape<'a> {
    fn note(&mut self, kind: Kind, text: &'a str, piece: usize) {
        if matches!(kind, Kind::Space | Kind::Semicolon) {
            return;
        }
        if self.first_word.is_none() {
            self.first_word = Some(text);
            self.is_insert = text.eq_ignore_ascii_case("INSERT");
        }
        let is = |word: &str| text.eq_ignore_ascii_case(word);
        if kind == Kind::Word {
            self.is_copy_with_client |= is("STDIN") || is("STDOUT");
            // A subquery or a set-returning function in the row has another meaning for many rows at once.
            if ["SELECT", "WITH", "GENERATE_SERIES", "UNNEST"]
                .into_iter()
                .any(is)
            {
                self.is_insert = false;
                self.state = RowState::None;
            }
        }
        match kind {
            Kind::Open => {
                if self.state == RowState::Values && self.depth == 0 {
                    self.state = RowState::Inside(piece);
                }
                self.depth += 1;
            }
            Kind::Close => {
                self.depth = self.depth.saturating_sub(1);
                if let (RowState::Inside(open), 0) = (self.state, self.depth) {
                    self.state = RowState::After(open, piece);
                }
            }
            Kind::Word
                if self.is_insert && self.depth == 0 && text.eq_ignore_ascii_case("VALUES") =>
            {
                self.state = RowState::Values;
            }
            _ if matches!(self.state, RowState::After(..)) => self.state = RowState::None,
            _ => {}
        }
    }

    fn row(&self) -> Option<(usize, usize)> {
        match self.state {
            RowState::After(open, close) => Some((open, close)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(backend: Backend, sql: &str) -> Vec<&str> {
        let tokens: String = Tokens::new(sql, backend).map(|token| token.text).collect();
        assert_eq!(tokens, sql, "nothing is lost");
        parse(sql, backend).unwrap().names.into_iter().collect()
    }

    const BOTH: [Backend; 2] = [Backend::Postgres, Backend::Sqlite];

    #[test]
    fn exactly_the_parameters_are_found() {
        for backend in BOTH {
            assert_eq!(
                names(backend, "SELECT :a, :b_2,(:a)+:größe"),
                ["a", "b_2", "größe"]
            );
            assert_eq!(
                names(backend, "SELECT ':a', 'it''s :b', \":c\", \"x\"\":d\", :e"),
                ["e"]
            );
            assert_eq!(
                names(backend, "SELECT 1 -- :a\n, :b /* :c */, 2 /* :d"),
                ["b"]
            );
            assert_eq!(
                names(backend, "SELECT :a::int, b := 1, '{\"a\":1}', a[1]"),
                ["a"]
            );
            assert_eq!(names(backend, "SELECT ': a', 1 : 2"), [""; 0]);
        }
    }

    #[test]
    fn quoting_differs_between_the_backends() {
        let (postgres, sqlite) = (Backend::Postgres, Backend::Sqlite);
        let dollars = "SELECT $$ :a $$, $t$ :b $$ :c $t$, :d, a$b, e$c$ :e";
        let comments = "/* a /* :b */ :c */ SELECT :d, x[:e]";
        let brackets = "/* a /* :b */ SELECT :c, [:d], `:e`, '\\', :f";
        for (backend, sql, expected) in [
            (postgres, dollars, &["d", "e"][..]),
            (
                postgres,
                r"SELECT E'\':a', e'x\\', :b, U&'\', :c",
                &["b", "c"],
            ),
            (postgres, comments, &["d", "e"]),
            (sqlite, brackets, &["c", "f"]),
            (sqlite, "SELECT a$b, a$, :c", &["c"]),
        ] {
            assert_eq!(names(backend, sql), expected, "{sql}");
        }
        // A literal that continues after a line break has escapes like its beginning.
        for between in ["\n", " -- it's\r\t", "\n-- \\\n ", "\n'x'\n"] {
            let sql = format!(r"SELECT E'a'{between}'\':b', :c, '\'");
            assert_eq!(names(postgres, &sql), ["c"], "{sql}");
        }
        for between in [" ", "\n,", "\n/**/", "/*\n*/"] {
            let sql = format!(r"SELECT E'a'{between}'\', :b");
            assert_eq!(names(postgres, &sql), ["b"], "{sql}");
        }
    }

    #[test]
    fn parameter_syntax_depends_on_the_backend() {
        assert_eq!(
            names(
                Backend::Postgres,
                "SELECT \\:c, x\\:y, a[1:n], x:y, :1, :a -- \r:b"
            ),
            ["a", "b"]
        );
        assert_eq!(names(Backend::Sqlite, "SELECT:a, x:y -- \r:b"), ["a", "y"]);
        for sql in ["SELECT :1", "SELECT x:1"] {
            assert!(parse(sql, Backend::Sqlite).is_err(), "{sql}");
        }
    }

    #[test]
    fn copy_to_and_from_the_client_is_refused() {
        for sql in ["COPY t FROM STDIN", "copy (SELECT 1) to stdout"] {
            assert!(
                matches!(parse(sql, Backend::Postgres), Err(DbError::CopyUnsupported)),
                "{sql}"
            );
        }
        assert!(parse("COPY t FROM '/tmp/stdin'", Backend::Postgres).is_ok());
    }

    #[test]
    fn unterminated_statements_are_scanned_to_the_end() {
        for backend in BOTH {
            for end in [
                "'", "\"", "E'\\", "E'\\é", "$", "$$", "$t$é", ":", "\\", "/*", "--", "[", "`",
                "é:é", ":é",
            ] {
                let sql = format!("SELECT 1 {end}");
                assert_eq!(
                    Tokens::new(&sql, backend)
                        .map(|token| token.text)
                        .collect::<String>(),
                    sql
                );
            }
        }
    }

    #[test]
    fn raw_placeholders_are_refused() {
        for (backend, sql) in [
            (Backend::Postgres, "SELECT $1"),
            (Backend::Sqlite, "SELECT ?"),
            (Backend::Sqlite, "SELECT ?1"),
            (Backend::Sqlite, "SELECT @a"),
            (Backend::Sqlite, "SELECT $a"),
        ] {
            assert!(
                matches!(parse(sql, backend), Err(DbError::RawPlaceholder { .. })),
                "{sql}"
            );
        }
        assert!(parse("SELECT '{}'::jsonb ? 'a'", Backend::Postgres).is_ok());
    }

    #[test]
    fn second_statement_is_refused() {
        use Backend::{Postgres, Sqlite};
        let trigger = "CREATE TEMP TRIGGER t AFTER INSERT ON a \
                       BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM c; END";
        let rule = "CREATE RULE r AS ON INSERT TO a DO (DELETE FROM b; DELETE FROM c)";
        let atomic = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; SELECT 1; END";
        for backend in BOTH {
            for sql in ["", " ;; -- nothing\n"] {
                let parsed = parse(sql, backend);
                assert!(matches!(parsed, Err(DbError::EmptyStatement)), "{sql}");
            }
            for sql in [
                "SELECT ';'; -- end\n ; ",
                ";SELECT 1",
                "SELECT ('a;b'), \";\";",
            ] {
                assert!(parse(sql, backend).is_ok(), "{sql}");
            }
            for sql in [
                "SELECT 1; DELETE FROM a",
                "SELECT :a;DROP TABLE a",
                "SELECT (1);;; 'x'",
                "; SELECT 1; (SELECT 2)",
                "BEGIN; DELETE FROM a; END",
                "CREATE TABLE trigger AS SELECT 1 AS begin; DELETE FROM a",
                "CREATE TABLE a AS SELECT 1 AS x, CASE WHEN true THEN 2 END; DELETE FROM a",
                "SELECT 1 AS atomic; DELETE FROM a; END",
                "SELECT 1;--\n:a",
                "SELECT 1; ?",
            ] {
                let parsed = parse(sql, backend);
                let is_refused = matches!(
                    parsed,
                    Err(DbError::MultipleStatements { .. } | DbError::RawPlaceholder { .. })
                );
                assert!(is_refused, "{sql}");
            }
        }
        for (backend, sql) in [(Sqlite, trigger), (Postgres, rule), (Postgres, atomic)] {
            assert!(parse(sql, backend).is_ok(), "{sql}");
            let two = format!("{sql}; DROP TABLE a");
            let parsed = parse(&two, backend);
            let is_refused = matches!(parsed, Err(DbError::MultipleStatements { .. }));
            assert!(is_refused, "{two}");
        }
        // A PostgreSQL trigger has no body, and SQLite has no `CREATE FUNCTION`.
        assert!(parse(trigger, Postgres).is_err());
        assert!(parse(atomic, Sqlite).is_err());
    }

    #[test]
    fn trailing_row_of_an_insert_is_found() {
        let row_of = |sql| {
            let parsed = parse(sql, Backend::Postgres).unwrap();
            parsed
                .row
                .map(|(open, close)| (parsed.pieces[open], parsed.pieces[close]))
        };
        let parentheses = Some((Piece::Text("("), Piece::Text(")")));
        assert_eq!(
            row_of("INSERT INTO a (b, c) VALUES (:b, lower(:c)) ;"),
            parentheses
        );
        assert_eq!(row_of("insert into a values(:b)"), parentheses);
        for sql in [
            "INSERT INTO a VALUES (:b), (:c)",
            "INSERT INTO a VALUES (:b) RETURNING id",
            "INSERT INTO a VALUES (:b) ON CONFLICT DO NOTHING",
            "INSERT INTO a VALUES ((SELECT max(b) FROM a), :b)",
            "INSERT INTO a VALUES (generate_series(1, :b))",
            "INSERT INTO a SELECT :b",
            "UPDATE a SET b = :b",
        ] {
            assert_eq!(row_of(sql), None, "{sql}");
        }
    }
}
