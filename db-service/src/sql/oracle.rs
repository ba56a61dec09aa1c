//! The scan against the tokenizer of sqlparser, on texts made at random of what is hard to tell apart.
//!
//! `FUZZ_INPUTS` says how many; ten million take some minutes with `--release`. `FUZZ_SEED` makes the same texts again.

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

/// Texts that were hard, or are typical; each is an input of its own, and the beginning of others.
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

/// A parameter: where its colon stands, and its name.
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

/// Where a location is, in bytes.
fn offset(sql: &str, location: Location) -> usize {
    let [line, column] = [location.line, location.column].map(|one| usize::try_from(one).unwrap());
    let start: usize = sql.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let rest = &sql[start..];
    let within = rest.char_indices().nth(column - 1);
    start + within.map_or(rest.len(), |(at, _)| at)
}

/// What sqlparser makes of a text; `None` if it finds an end missing.
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
    // Whether the last token was a word or number that is no parameter.
    let mut after_word = false;
    for (index, TokenWithSpan { token, span }) in tokens.iter().enumerate() {
        let name = tokens.get(index + 1).filter(|next| {
            *token == Theirs::Colon
                && matches!(&next.token, Theirs::Word(word) if word.quote_style.is_none())
        });
        let colon = offset(sql, span.start);
        // PostgreSQL takes `a[x:y]` for a slice, and to us `\\:` stands for a plain colon.
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
            // `$name` is nothing in PostgreSQL: we see a name in it.
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

/// Texts of which it is known that the two differ, and why.
fn is_known_to_differ(sql: &str, backend: Backend, ours: &[Found<'_>]) -> bool {
    // sqlparser reads comments into operators that it does not know; in both databases a comment begins wherever it stands.
    let is_operator = |byte: u8| b"~!@#^&|`?+-*/%<>=\\".contains(&byte);
    let bytes = sql.as_bytes();
    let comment_in_operator = bytes
        .windows(3)
        .any(|three| is_operator(three[0]) && (three[1..] == *b"--" || three[1..] == *b"/*"));
    // Nor do colons belong to operators.
    let colon_in_operator = bytes
        .windows(3)
        .any(|three| is_operator(three[0]) && three[1..] == *b"::");
    // SQLite's names in brackets end at the first one.
    let doubled_bracket = backend == Backend::Sqlite && sql.contains("]]");
    let follows = |(at, name): &Found<'_>| bytes.get(at + 1 + name.len()).copied();
    // To sqlparser a dollar sign goes on with a name, also one of ours, and before a quote some names are the beginning of a text:
    // `N'…'`, `U&'…'`. To us the name of a parameter has neither.
    let name_goes_on = ours
        .iter()
        .any(|parameter| matches!(follows(parameter), Some(b'$' | b'\'' | b'"' | b'&' | b'`')));
    // What follows an escaped colon is cut in another place.
    let escaped = backend == Backend::Postgres && (sql.contains("\\:") || sql.contains("\\\\"));
    // A mark of the byte order is white space to SQLite and to us, and part of a name to sqlparser.
    let byte_order_mark = sql.contains('\u{feff}');
    // PostgreSQL refuses a number that runs into a name; what of a quoted text belongs to it does not matter.
    let is_name = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80;
    let junk = sql.contains(['$', '\\'])
        && bytes
            .windows(2)
            .any(|two| two[0].is_ascii_digit() && is_name(two[1]));
    // sqlparser lets a backslash escape a quote in `X'…'` and the like, which only `E'…'` does.
    let literal = |two: &[u8]| two[1] == b'\'' && b"xXbBnN".contains(&two[0]);
    let backslash = sql.contains('\\') && bytes.windows(2).any(literal);
    // sqlparser swallows a character behind `&>` and `&<`.
    let ranges = sql.contains("&>") || sql.contains("&<");
    // `$E'…'` is refused; whether the quoted text has escapes does not matter.
    let dollar_text = bytes
        .windows(3)
        .any(|three| three[0] == b'$' && is_name(three[1]) && three[2] == b'\'');
    // Letters apart, sqlparser takes nothing beyond ASCII into a `$tag$`; to PostgreSQL all of it is letters.
    // Nor does PostgreSQL take a tag that begins with a digit: `$1$2` are two placeholders.
    let digit_tag = sql.matches('$').count() > 1
        && bytes
            .windows(2)
            .any(|two| two[0] == b'$' && two[1].is_ascii_digit());
    let odd_tag = sql.contains('$')
        && sql.contains(|character: char| !character.is_ascii() && !character.is_alphanumeric());
    let escapes = escaped && sql.contains("::");
    // sqlparser sees no end of the escapes of `E'…'` but its quote, where in PostgreSQL they go on behind a line break.
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
    ]
    .contains(&true)
}

/// Whether the two were compared.
fn check(sql: &str, backend: Backend) -> bool {
    // Whatever it holds it is taken apart, or refused in order.
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

/// Twice the text takes twice the work, not four times: a scan that looks back, or ahead to the end, would not end here.
#[test]
fn oracle_megabytes_are_scanned() {
    for fragment in [
        "'", "$a", "$$", "/*", "--", "a:b ", ":a ", "[", "\\:", "((", "\u{e9}", "e'\\",
    ] {
        let sql = fragment.repeat(1 << 20);
        for backend in [Backend::Postgres, Backend::Sqlite] {
            ours(&sql, backend);
        }
    }
}
