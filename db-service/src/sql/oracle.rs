//! A comparison of the lexer with sqlparser's tokenizer, on random texts of fragments that are hard to distinguish.
//!
//! `FUZZ_INPUTS` sets the number of texts (default 20,000); ten million take some minutes with `--release`. `FUZZ_SEED`
//! repeats a run.

use sqlparser::dialect::{Dialect, PostgreSqlDialect, SQLiteDialect};
use sqlparser::tokenizer::{Location, Token as Theirs, TokenWithSpan, Tokenizer};

use crate::backend::Backend;
use crate::tokens::{Kind, Tokens};

const FRAGMENTS: &[&str] = &[
    " ",
    " ",
    "\n",
    "\r",
    "\t",
    ",",
    ".",
    ";",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "a",
    "b1",
    "_c",
    "é",
    "SELECT",
    "1",
    "2.5",
    "1e5",
    "0x1",
    ":a",
    ":b1",
    ":é",
    ":A_",
    ":1",
    ":",
    "::",
    ":=",
    ":::",
    "'",
    "''",
    "\"",
    "\"\"",
    "`",
    "--",
    "/*",
    "*/",
    "$",
    "$$",
    "$t$",
    "$1",
    "E'",
    "e'",
    "U&'",
    "U&\"",
    "N'",
    "B'",
    "X'",
    "\\",
    "\\'",
    "\\:",
    "\\\\",
    "?",
    "@",
    "#",
    "=",
    "<",
    ">",
    "!",
    "~",
    "&",
    "|",
    "%",
    "+",
    "-",
    "*",
    "/",
    "^",
    "\u{feff}",
    "\u{a0}",
    "::int",
    "'x'",
    "\"y\"",
    "/* :z */",
    "-- :z\n",
    "$$ :z $$",
    "'{\"k\": 1}'",
];

/// Typical texts, and texts that failed once. Each is an input, and the beginning of other inputs.
const CORPUS: &str = include_str!("corpus.json");

fn corpus() -> Vec<String> {
    serde_json::from_str(CORPUS).unwrap()
}

fn inputs() -> u64 {
    std::env::var("FUZZ_INPUTS").map_or(20_000, |count| count.parse().unwrap())
}

fn random_text(random: &mut fastrand::Rng, corpus: &[String]) -> String {
    let mut text = String::new();
    if random.u8(..4) == 0 {
        text.clone_from(&corpus[random.usize(..corpus.len())]);
        let cut = random.usize(..=text.len());
        text.truncate(text.floor_char_boundary(cut));
    }
    for _ in 0..random.usize(1..12) {
        text.push_str(FRAGMENTS[random.usize(..FRAGMENTS.len())]);
    }
    text
}

/// A parameter: the position of its colon, and its name.
type Found<'a> = (usize, &'a str);

fn ours(sql: &str, backend: Backend) -> Vec<Found<'_>> {
    let mut position = 0;
    let mut found = Vec::new();
    for token in Tokens::new(sql, backend) {
        assert!(!token.text.is_empty());
        if token.kind == Kind::Parameter {
            found.push((position, &token.text[1..]));
        }
        position += token.text.len();
    }
    assert_eq!(position, sql.len(), "nothing is lost, and nothing is twice");
    found
}

/// Returns the byte offset of a location.
fn offset(sql: &str, location: Location) -> usize {
    let [line, column] = [location.line, location.column].map(|one| usize::try_from(one).unwrap());
    let start: usize = sql.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = &sql[start..];
    let within = rest.char_indices().nth(column - 1);
    start + within.map_or(rest.len(), |(at, _)| at)
}

/// Returns the parameters that sqlparser finds, or `None` if it reports an unterminated token.
fn theirs(sql: &str, backend: Backend) -> Option<Vec<Found<'_>>> {
    let dialect: &dyn Dialect = match backend {
        Backend::Postgres => &PostgreSqlDialect {},
        Backend::Sqlite => &SQLiteDialect {},
    };
    let tokens = Tokenizer::new(dialect, sql)
        .with_unescape(false)
        .tokenize_with_location()
        .ok()?;
    let mut found = Vec::new();
    // Whether the last token was a word or number, and not a parameter.
    let mut after_word = false;
    for (index, TokenWithSpan { token, span }) in tokens.iter().enumerate() {
        let name = tokens.get(index + 1).filter(|next| {
            *token == Theirs::Colon
                && matches!(&next.token, Theirs::Word(word) if word.quote_style.is_none())
        });
        let colon = offset(sql, span.start);
        // In PostgreSQL `a[x:y]` is a slice, and this crate's `\\:` is an escaped colon.
        let is_plain = backend == Backend::Postgres && (after_word || sql[..colon].ends_with('\\'));
        match name {
            Some(name) if !is_plain => {
                let name = &sql[offset(sql, name.span.start)..offset(sql, name.span.end)];
                found.push((colon, name));
            }
            _ => {}
        }
        let is_name = found.last().is_some_and(|(at, _)| at + 1 == colon);
        after_word = match token {
            Theirs::Word(word) => !is_name && word.quote_style.is_none(),
            Theirs::Number(..) => !sql[..offset(sql, span.end)].ends_with('.'),
            // `$name` is invalid in PostgreSQL. This crate's lexer returns a name.
            Theirs::Placeholder(text) => {
                text[1..].starts_with(|first: char| !first.is_ascii_digit())
            }
            // `0x1f`, and not `X'1f'`.
            Theirs::HexStringLiteral(_) => !sql[..offset(sql, span.end)].ends_with('\''),
            _ => false,
        };
    }
    Some(found)
}

/// Returns whether a known difference between the two applies to a text.
fn is_known_to_differ(sql: &str, backend: Backend, ours: &[Found<'_>]) -> bool {
    // sqlparser includes comments in unknown operators. In both databases, a comment begins anywhere.
    let is_operator = |byte: u8| b"~!@#^&|`?+-*/%<>=\\".contains(&byte);
    let bytes = sql.as_bytes();
    let comment_in_operator = bytes
        .windows(3)
        .any(|three| is_operator(three[0]) && (three[1..] == *b"--" || three[1..] == *b"/*"));
    // sqlparser includes colons in operators.
    let colon_in_operator = bytes
        .windows(3)
        .any(|three| is_operator(three[0]) && three[1..] == *b"::");
    // In SQLite, a name in brackets ends at the first closing bracket.
    let doubled_bracket = backend == Backend::Sqlite && sql.contains("]]");
    let follows = |(at, name): &Found<'_>| bytes.get(at + 1 + name.len()).copied();
    // In sqlparser, a dollar sign continues a name, also a parameter's, and some names before a quote begin a text:
    // `N'…'`, `U&'…'`. In this crate, a parameter's name ends before both.
    let name_goes_on = ours
        .iter()
        .any(|parameter| matches!(follows(parameter), Some(b'$' | b'\'' | b'"' | b'&' | b'`')));
    // The tokens after an escaped colon differ.
    let escaped = backend == Backend::Postgres && (sql.contains("\\:") || sql.contains("\\\\"));
    // A byte order mark is white space in SQLite and this crate, and part of a name in sqlparser.
    let byte_order_mark = sql.contains('\u{feff}');
    // PostgreSQL refuses a number directly before a name, so the extent of a quoted text there does not matter.
    let is_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80;
    let junk = sql.contains(['$', '\\'])
        && bytes
            .windows(2)
            .any(|two| two[0].is_ascii_digit() && is_name(two[1]));
    // sqlparser accepts a backslash as an escape in `X'…'` and similar literals. Only `E'…'` has escapes.
    let literal = |two: &[u8]| two[1] == b'\'' && b"xXbBnN".contains(&two[0]);
    let backslash = sql.contains('\\') && bytes.windows(2).any(literal);
    // sqlparser skips a character after `&>` and `&<`.
    let ranges = sql.contains("&>") || sql.contains("&<");
    // `$E'…'` is refused, so it does not matter whether the quoted text has escapes.
    let dollar_text = bytes
        .windows(3)
        .any(|three| three[0] == b'$' && is_name(three[1]) && three[2] == b'\'');
    // In sqlparser, a `$tag$` contains no non-ASCII characters except letters. In PostgreSQL, each of them counts as a
    // letter, and a tag does not begin with a digit: `$1$2` are two placeholders.
    let digit_tag = sql.matches('$').count() > 1
        && bytes
            .windows(2)
            .any(|two| two[0] == b'$' && two[1].is_ascii_digit());
    let odd_tag = sql.contains('$')
        && sql.contains(|character: char| !character.is_ascii() && !character.is_alphanumeric());
    // In SQLite, `$a::b(c)` is one variable.
    let tcl_variable = backend == Backend::Sqlite
        && Tokens::new(sql, backend)
            .any(|token| token.kind == Kind::Placeholder && token.text.contains(['(', ':']));
    let escapes = escaped && sql.contains("::");
    // In sqlparser, the escapes of `E'…'` end at its quote. In PostgreSQL, they continue after a line break.
    let continued = backend == Backend::Postgres
        && sql.contains('\\')
        && sql.contains(['\n', '\r'])
        && (sql.contains("E'") || sql.contains("e'"));
    [
        continued,
        junk,
        backslash,
        colon_in_operator,
        doubled_bracket,
        byte_order_mark,
        comment_in_operator,
        name_goes_on,
        ranges,
        dollar_text,
        escapes,
        odd_tag,
        digit_tag,
        tcl_variable,
    ]
    .contains(&true)
}

/// Compares the two. Returns whether a comparison was possible.
fn check(sql: &str, backend: Backend) -> bool {
    // Each text is parsed or refused without a panic.
    if let Ok(parsed) = super::parse(sql, backend) {
        assert!(parsed.names.iter().all(|name| !name.is_empty()));
    }
    let ours = ours(sql, backend);
    match theirs(sql, backend) {
        Some(theirs) if !is_known_to_differ(sql, backend, &ours) => {
            assert_eq!(ours, theirs, "{backend} {sql:?}");
            true
        }
        _ => false,
    }
}

#[test]
fn oracle_parameters_match_sqlparser() {
    let corpus = corpus();
    let seed =
        std::env::var("FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut compared = [0_u64; 2];
    let count = inputs();
    let texts = (0..count).map(|_| random_text(&mut random, &corpus));
    for sql in corpus.iter().cloned().chain(texts) {
        for (compared, backend) in compared
            .iter_mut()
            .zip([Backend::Postgres, Backend::Sqlite])
        {
            *compared += u64::from(check(&sql, backend));
        }
    }
    println!("{count} texts, compared: {compared:?}");
    assert!(
        compared.iter().all(|compared| *compared > count / 5),
        "{compared:?}"
    );
}

/// The scan takes linear time: a scan that looks back, or ahead to the end, would not finish here.
#[test]
fn oracle_megabytes_are_scanned() {
    for fragment in [
        "'", "$a", "$$", "/*", "--", "a:b ", ":a ", "[", "\\:", "((", "\u{e9}", "e'\\", ":::",
        ":a::", ":a(", "$a::b", "$a(b ",
    ] {
        let sql = fragment.repeat(1 << 20);
        for backend in [Backend::Postgres, Backend::Sqlite] {
            ours(&sql, backend);
        }
    }
}
