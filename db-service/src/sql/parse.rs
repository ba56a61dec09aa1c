//! The parser of statements: finds `:name` parameters and a few other properties.

use std::fmt::Write;
use std::ops::{Range, RangeInclusive};

use indexmap::IndexSet;

use super::lists::{FoundList, ListOperator, ListScanner};
use super::placeholders::PlaceholderScanner;
use super::script::BlockNesting;
use super::side_effects::{SideEffectScanner, SideEffects};
use crate::backend::Backend;
use crate::error::DbError;
use crate::tokens::{Kind, Token, Tokens};

/// The maximum length of a prepared statement in bytes. A longer statement consists mostly of values, and parsing it
/// again costs little compared with sending it.
pub(crate) const MAX_TEXT: usize = 32 * 1024;

/// A parsed statement: literal text, and parameters between it.
#[derive(Debug, PartialEq)]
pub(crate) struct ParsedStatement {
    text: Box<str>,
    pieces: Vec<StoredPiece>,
    /// The text with the backend's placeholders in place of the parameters.
    rendered: Box<str>,
    /// The names of the parameters, each once, in the order of their first occurrence.
    pub(crate) names: IndexSet<Box<str>>,
    /// The pieces of the parenthesized row of `INSERT … VALUES (…)`, if nothing follows it.
    pub(crate) row: Option<RangeInclusive<usize>>,
    /// Whether a parameter may be a list, as in `IN (:ids)`.
    pub(crate) has_lists: bool,
    pub(crate) side_effects: SideEffects,
    /// Whether the statement changes rows, so that the backend's count of changed rows belongs to it.
    pub(crate) changes_rows: bool,
    /// Whether the statement may return the rows that it changes.
    pub(crate) has_returning: bool,
    /// Whether a plain string contains a backslash. With `standard_conforming_strings` off, the server reads it as an
    /// escape, and the string may end elsewhere.
    pub(crate) has_backslash: bool,
    /// Whether PostgreSQL accepts the statement in `PREPARE` and in a transaction.
    pub(crate) is_preparable: bool,
    /// Whether the statement stays prepared: it is likely to be sent again, and not too long.
    pub(crate) is_cached: bool,
    /// Whether, by its words, the statement only reads, so that it can have a cursor.
    pub(crate) is_query: bool,
}

/// A piece of a statement's text, by its position.
#[derive(Debug, Clone, PartialEq)]
enum StoredPiece {
    Text(Range<usize>),
    List(Range<usize>, ListOperator),
    Parameter(usize),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    /// The text before a parameter that may be a list, such as `IN (`. The parameter follows, possibly after spaces,
    /// and then the closing parenthesis.
    List(&'a str, ListOperator),
    /// A parameter, by the position of its name in [`ParsedStatement::names`].
    Parameter(usize),
}

impl ParsedStatement {
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn pieces(&self) -> impl ExactSizeIterator<Item = Piece<'_>> + Clone {
        self.pieces.iter().map(|piece| match piece {
            StoredPiece::Text(range) => Piece::Text(&self.text[range.clone()]),
            StoredPiece::List(range, operator) => Piece::List(&self.text[range.clone()], *operator),
            StoredPiece::Parameter(index) => Piece::Parameter(*index),
        })
    }

    /// Returns the text with the backend's placeholders.
    pub(crate) fn rendered(&self) -> &str {
        &self.rendered
    }

    /// Returns the pieces with the byte in the text at which each begins.
    pub(crate) fn located_pieces(&self) -> impl Iterator<Item = (usize, Piece<'_>)> {
        let mut end = 0;
        self.pieces
            .iter()
            .zip(self.pieces())
            .map(move |(stored, piece)| {
                let (start, length) = match stored {
                    StoredPiece::Text(range) | StoredPiece::List(range, _) => {
                        (range.start, range.len())
                    }
                    StoredPiece::Parameter(index) => (end, ":".len() + self.names[*index].len()),
                };
                end = start + length;
                (start, piece)
            })
    }

    /// Writes the backend's placeholders in place of the parameters. Their values are bound in the order of their
    /// names.
    fn render(&self, backend: Backend) -> String {
        let mut rendered = String::with_capacity(self.text.len());
        let mut bound = 0;
        for piece in self.pieces() {
            match piece {
                Piece::Text(text) | Piece::List(text, _) => rendered.push_str(text),
                Piece::Parameter(index) => {
                    let is_first = index == bound;
                    bound += usize::from(is_first);
                    // Writing to a string cannot fail.
                    let _ = match backend {
                        Backend::Postgres => write!(rendered, "${}", index + 1),
                        Backend::Sqlite if is_first => rendered.write_char('?'),
                        Backend::Sqlite => write!(rendered, "?{}", index + 1),
                    };
                }
            }
        }
        rendered
    }

    /// Separates the operators of parameters that may be lists from the text around them.
    fn split_lists(&mut self, lists: Vec<FoundList>) {
        // From the last to the first, so that positions stay valid.
        for FoundList {
            parameter,
            operator,
            range,
        } in lists.into_iter().rev()
        {
            let Some(StoredPiece::Text(before)) = parameter
                .checked_sub(1)
                .and_then(|before| self.pieces.get_mut(before))
            else {
                continue;
            };
            let behind = range.end..before.end;
            before.end = range.start;
            self.pieces
                .insert(parameter, StoredPiece::List(range, operator));
            if !behind.is_empty() {
                self.pieces.insert(parameter + 1, StoredPiece::Text(behind));
            }
        }
    }

    /// Adds a text. It becomes part of the last piece if it follows that one directly.
    fn push_text(&mut self, added: Range<usize>, begins_piece: bool) {
        match self.pieces.last_mut() {
            Some(StoredPiece::Text(last)) if last.end == added.start && !begins_piece => {
                last.end = added.end;
            }
            _ => self.pieces.push(StoredPiece::Text(added)),
        }
    }
}

/// Parses a single statement: finds its parameters, its side effects and its shape in one pass.
pub(crate) fn parse(sql: &str, backend: Backend) -> Result<ParsedStatement, DbError> {
    let mut parsed = ParsedStatement {
        text: sql.into(),
        pieces: Vec::new(),
        rendered: Box::default(),
        names: IndexSet::new(),
        row: None,
        has_lists: false,
        side_effects: SideEffects::default(),
        changes_rows: false,
        has_returning: false,
        has_backslash: false,
        is_preparable: false,
        is_cached: false,
        is_query: false,
    };
    let mut shape = StatementShape::default();
    let mut single = SingleStatement::new(backend);
    let mut effects = SideEffectScanner::new(backend);
    let mut lists = ListScanner::default();
    let mut placeholders = PlaceholderScanner::new(backend);
    let mut position = 0;
    for Token { kind, text } in Tokens::new(sql, backend) {
        if kind == Kind::Placeholder {
            return Err(DbError::raw_placeholder(text));
        }
        placeholders.take(Token { kind, text })?;
        single.check(kind, text)?;
        parsed.has_backslash |=
            kind == Kind::Quoted && text.starts_with('\'') && text.contains('\\');
        effects.take(kind, text);
        let end = position + text.len();
        match kind {
            Kind::Parameter => {
                let (index, _) = parsed.names.insert_full(text[1..].into());
                parsed.pieces.push(StoredPiece::Parameter(index));
            }
            // The colon without its backslash.
            Kind::EscapedColon => parsed.push_text(position + 1..end, false),
            _ => parsed.push_text(position..end, shape.begins_piece(kind)),
        }
        shape.note(kind, text, parsed.pieces.len() - 1);
        lists.take(kind, text, position, parsed.pieces.len() - 1);
        position = end;
    }
    placeholders.finish()?;
    let Some(first) = shape.first_word else {
        return Err(DbError::EmptyStatement);
    };
    let is = |word: &&str| word.eq_ignore_ascii_case(first);
    if is(&"COPY") && shape.is_copy_with_client {
        return Err(DbError::CopyUnsupported);
    }
    const REPEATABLE: [&str; 7] = [
        "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES",
    ];
    parsed.side_effects = effects.finish();
    parsed.changes_rows = shape.changes_rows;
    parsed.has_returning = shape.has_returning;
    parsed.is_query = shape.is_query();
    parsed.is_preparable = REPEATABLE.iter().any(is);
    parsed.is_cached = parsed.is_preparable && sql.len() <= MAX_TEXT;
    parsed.row = shape.row().filter(|row| {
        lists.found.is_empty()
            && !parsed.pieces[..*row.start()]
                .iter()
                .any(|piece| matches!(piece, StoredPiece::Parameter(_)))
    });
    parsed.has_lists = !lists.found.is_empty();
    parsed.split_lists(lists.found);
    parsed.rendered = parsed.render(backend).into();
    Ok(parsed)
}

/// Returns the facts about a text that this crate does not parse: a query of diesel's DSL, or a batch.
pub(crate) fn facts(sql: &str, backend: Backend) -> TextFacts {
    let mut shape = StatementShape::default();
    let mut effects = SideEffectScanner::new(backend);
    for Token { kind, text } in Tokens::new(sql, backend) {
        effects.take(kind, text);
        shape.note(kind, text, 0);
    }
    TextFacts {
        side_effects: effects.finish(),
        changes_rows: shape.changes_rows,
    }
}

/// The properties of a text, apart from its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TextFacts {
    pub(crate) side_effects: SideEffects,
    /// Whether the statement changes rows, so that the backend's count of changed rows belongs to it.
    pub(crate) changes_rows: bool,
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
    /// Whether the first verb outside parentheses changes rows. In `WITH … INSERT`, that is the `INSERT`.
    changes_rows: bool,
    has_verb: bool,
    has_returning: bool,
    /// Whether the next word names a query of `WITH`, even if it is a verb.
    names_query: bool,
    /// Whether a word writes rows, even inside parentheses.
    has_writing_word: bool,
    has_into: bool,
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
        let is = |word: &str| kind == Kind::Word && text.eq_ignore_ascii_case(word);
        if kind == Kind::Word {
            self.note_verb(text);
            self.has_returning |= is("RETURNING");
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
        self.names_query = text == "," || is("WITH") || is("RECURSIVE");
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

    /// Notes the words that decide whether the statement changes rows, and whether it may write at all.
    fn note_verb(&mut self, word: &str) {
        const VERBS: [(&str, bool); 8] = [
            ("SELECT", false),
            ("VALUES", false),
            ("TABLE", false),
            ("INSERT", true),
            ("UPDATE", true),
            ("DELETE", true),
            ("REPLACE", true),
            ("MERGE", true),
        ];
        let is = |known: &&str| known.eq_ignore_ascii_case(word);
        self.has_writing_word |= ["INSERT", "UPDATE", "DELETE", "MERGE"].iter().any(is);
        self.has_into |= is(&"INTO");
        if self.depth > 0 {
            return;
        }
        let begins_with = |word: &str| {
            let first = self.first_word.unwrap_or_default();
            first.eq_ignore_ascii_case(word)
        };
        // `COPY … TO` changes nothing.
        self.changes_rows |= is(&"FROM") && begins_with("COPY");
        let with = begins_with("WITH");
        if self.has_verb || with && self.names_query {
            return;
        }
        if let Some((_, changes)) = VERBS.iter().find(|(verb, _)| is(verb)) {
            self.has_verb = true;
            self.changes_rows = *changes;
        } else if !with {
            self.has_verb = true;
        }
    }

    /// Returns whether the statement only reads, by its words. `FOR UPDATE` only locks.
    fn is_query(&self) -> bool {
        let is = |word: &str| {
            let first = self.first_word.unwrap_or_default();
            first.eq_ignore_ascii_case(word)
        };
        let reads = ["SELECT", "VALUES", "TABLE"].into_iter().any(is);
        !self.has_into && (reads || is("WITH") && !self.has_writing_word)
    }

    /// Returns whether the next token begins a piece of its own, so that a row can be repeated.
    fn begins_piece(&self, kind: Kind) -> bool {
        match self.state {
            RowState::Values => kind == Kind::Open && self.depth == 0,
            RowState::After(..) => true,
            _ => false,
        }
    }

    fn row(&self) -> Option<RangeInclusive<usize>> {
        match self.state {
            RowState::After(open, close) => Some(open..=close),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn names(backend: Backend, sql: &str) -> Vec<String> {
        let tokens: String = Tokens::new(sql, backend).map(|token| token.text).collect();
        assert_eq!(tokens, sql, "nothing is lost");
        let names = parse(sql, backend).unwrap().names;
        names.into_iter().map(String::from).collect()
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
        // SQLite takes all of it as one variable, so the quote begins no literal.
        for variable in [
            "$a(')",
            "@a::b(\")",
            "#a$b([)",
            ":a(')",
            ":a::(`)",
            ":1(/*)",
            "$a('",
        ] {
            let sql = format!("SELECT {variable} ; COMMIT");
            let tokens: Vec<_> = Tokens::new(&sql, Backend::Sqlite).collect();
            assert!(
                tokens
                    .iter()
                    .any(|token| token.kind == Kind::Placeholder && variable.ends_with(token.text)),
                "{tokens:?}"
            );
            assert!(facts(&sql, Backend::Sqlite).side_effects.end, "{sql}");
            assert!(
                matches!(
                    parse(&sql, Backend::Sqlite),
                    Err(DbError::RawPlaceholder { .. })
                ),
                "{sql}"
            );
        }
        assert!(parse("SELECT $(1), :a", Backend::Sqlite).is_err());
        assert!(parse("SELECT abs(:a), x IN (:b)", Backend::Sqlite).is_ok());
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
    fn only_queries_can_have_a_cursor() {
        let is_query = |sql| parse(sql, Backend::Postgres).unwrap().is_query;
        for sql in [
            "SELECT 1",
            " /* x */ select 'into' FROM \"into\" FOR UPDATE;",
            "VALUES (1)",
            "TABLE pets",
            "WITH a AS (SELECT 'DELETE' AS n) SELECT n FROM a",
        ] {
            assert!(is_query(sql), "{sql}");
        }
        for sql in [
            "INSERT INTO a VALUES (1) RETURNING n",
            "SELECT 1 INTO a",
            "WITH a AS (DELETE FROM b RETURNING n) SELECT n FROM a",
            "EXPLAIN SELECT 1",
            "SHOW all",
            "'SELECT'",
        ] {
            assert!(!is_query(sql), "{sql}");
        }
    }

    #[test]
    fn statements_that_change_rows_are_known_by_their_verb() {
        for (sql, changes) in [
            ("INSERT INTO a VALUES (1)", true),
            ("REPLACE INTO a VALUES (1)", true),
            ("update a SET b = 1", true),
            ("WITH x AS (SELECT 1) DELETE FROM a", true),
            ("WITH x AS (SELECT 1) MERGE INTO a USING x ON true", true),
            (
                "WITH x AS (SELECT 1), values (b) AS (SELECT 2) UPDATE a SET b = 1",
                true,
            ),
            ("WITH x AS (SELECT 1) SELECT * FROM x", false),
            (
                "WITH RECURSIVE replace AS (SELECT 1), y AS (DELETE FROM a) SELECT 1",
                false,
            ),
            ("COPY a FROM '/tmp/a'", true),
            ("COPY a TO '/tmp/a'", false),
            ("COPY (SELECT 1 FROM a) TO '/tmp/a'", false),
            ("SELECT 1 FROM a WHERE 1=0", false),
            ("CREATE TABLE a AS SELECT 1", false),
            (
                "CREATE TRIGGER t AFTER INSERT ON a BEGIN DELETE FROM b; END",
                false,
            ),
        ] {
            assert_eq!(facts(sql, Backend::Sqlite).changes_rows, changes, "{sql}");
        }
    }

    #[test]
    fn trailing_row_of_an_insert_is_found() {
        let row_of = |sql| {
            let parsed = parse(sql, Backend::Postgres).unwrap();
            let row = parsed.row.clone()?;
            let written = |piece| match piece {
                Piece::Text(text) | Piece::List(text, _) => text.to_owned(),
                Piece::Parameter(index) => format!("{{{index}}}"),
            };
            Some(parsed.pieces().map(written).collect::<Vec<_>>()[row].concat())
        };
        assert_eq!(
            row_of("INSERT INTO a (b, c) VALUES (:b, lower(:c)) ;").as_deref(),
            Some("({0}, lower({1}))")
        );
        assert_eq!(row_of("insert into a values(:b)").as_deref(), Some("({0})"));
        assert_eq!(row_of("INSERT INTO a VALUES (1)").as_deref(), Some("(1)"));
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
