//! A lexer for SQL that distinguishes quotes, comments and parameters, and nothing else.
//!
//! It is hand-written because it runs on each call, and a full tokenizer (sqlparser's) takes eighty times as long.

use crate::backend::Backend;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// White space and comments.
    Space,
    Word,
    Quoted,
    Parameter,
    /// `\:`, an escaped colon, which begins no parameter.
    EscapedColon,
    /// A placeholder of the backend, such as `?` or `$1`.
    Placeholder,
    Semicolon,
    Open,
    Close,
    Other,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

/// An iterator over the tokens of a statement. The tokens' texts, joined, are the statement.
pub(crate) struct Tokens<'a> {
    sql: &'a str,
    backend: Backend,
    position: usize,
    /// Whether the byte before `position` belongs to a word or number.
    after_word: bool,
    continued: Continued,
}

/// Whether the next literal continues an `E'…'` literal. PostgreSQL joins literals that are separated by a line break,
/// so the next one may contain escapes too.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Continued {
    No,
    /// A quote continues it after a line break.
    AfterLineBreak,
    ByQuote,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(sql: &'a str, backend: Backend) -> Self {
        Tokens {
            sql,
            backend,
            position: 0,
            after_word: false,
            continued: Continued::No,
        }
    }

    /// Returns whether a literal with escapes can continue after a token.
    fn continued_after(&self, kind: Kind, text: &str) -> Continued {
        let is_part = self.continued == Continued::ByQuote && text.starts_with('\'');
        match (kind, text) {
            (Kind::Quoted, _) if is_part || text.starts_with(['e', 'E']) => {
                Continued::AfterLineBreak
            }
            (Kind::Space, _) if self.continued == Continued::No => Continued::No,
            (Kind::Space, "\n" | "\r") => Continued::ByQuote,
            (Kind::Space, " " | "\t" | "\x0c") => self.continued,
            (Kind::Space, comment) if comment.starts_with("--") => self.continued,
            _ => Continued::No,
        }
    }

    fn rest(&self) -> &'a [u8] {
        &self.sql.as_bytes()[self.position..]
    }

    /// Returns the kind of the next token and its length in bytes. Only ASCII bytes end a token, so it ends between
    /// characters.
    fn next_kind(&self) -> (Kind, usize) {
        let rest = self.rest();
        let postgres = self.backend == Backend::Postgres;
        let second = rest.get(1).copied().unwrap_or(0);
        match rest[0] {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => (Kind::Space, 1),
            0xef if rest.starts_with("\u{feff}".as_bytes()) => (Kind::Space, 3),
            b'-' if second == b'-' => (Kind::Space, line_comment(rest, postgres)),
            b'/' if second == b'*' => (Kind::Space, block_comment(rest, postgres)),
            b'\'' => {
                let escapes = self.continued == Continued::ByQuote;
                (Kind::Quoted, quoted(rest, 1, b'\'', escapes))
            }
            b'"' => (Kind::Quoted, quoted(rest, 1, b'"', false)),
            b'e' | b'E' if postgres && second == b'\'' => {
                (Kind::Quoted, quoted(rest, 2, b'\'', true))
            }
            b'`' if !postgres => (Kind::Quoted, quoted(rest, 1, b'`', false)),
            b'[' if !postgres => (Kind::Quoted, bracketed(rest)),
            b'$' if postgres => match dollar_quoted(rest) {
                Some(length) => (Kind::Quoted, length),
                None if second.is_ascii_digit() => (Kind::Placeholder, 1 + word(&rest[1..], false)),
                None => (Kind::Other, 1),
            },
            b'?' if !postgres => (Kind::Placeholder, 1 + word(&rest[1..], false)),
            b'$' | b'@' | b'#' if !postgres => (Kind::Placeholder, sqlite_variable(rest).0),
            b'\\' if second == b':' && postgres => (Kind::EscapedColon, 2),
            b':' if second == b':' => (Kind::Other, 2),
            b':' if !postgres && sqlite_variable(rest).1 => {
                (Kind::Placeholder, sqlite_variable(rest).0)
            }
            // In SQLite each `:name` and each `:1` is a parameter.
            b':' if is_word_start(second) && !(postgres && self.after_word) => {
                (Kind::Parameter, 1 + word(&rest[1..], false))
            }
            b':' if second.is_ascii_digit() && !postgres => {
                (Kind::Placeholder, 1 + word(&rest[1..], false))
            }
            b';' => (Kind::Semicolon, 1),
            b'(' => (Kind::Open, 1),
            b')' => (Kind::Close, 1),
            byte if is_word_start(byte) => (Kind::Word, word(rest, true)),
            // A dollar sign after a number begins a quoted text.
            byte if byte.is_ascii_digit() => (Kind::Word, word(rest, false)),
            _ => (Kind::Other, 1),
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        if self.position == self.sql.len() {
            return None;
        }
        let (kind, length) = self.next_kind();
        let text = &self.sql[self.position..self.position + length];
        self.position += length;
        self.after_word = kind == Kind::Word || kind == Kind::EscapedColon;
        self.continued = self.continued_after(kind, text);
        Some(Token { kind, text })
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Returns the length of a word. With `dollar`, the word can contain dollar signs.
fn word(bytes: &[u8], dollar: bool) -> usize {
    bytes
        .iter()
        .position(|&byte| !(is_word_start(byte) || byte.is_ascii_digit() || dollar && byte == b'$'))
        .unwrap_or(bytes.len())
}

/// Returns the length of a variable of SQLite, and whether it ends with a parenthesized part. SQLite takes names of Tcl,
/// such as `$a::b(c)`, with each of its signs, and any character but white space stands in the parentheses.
fn sqlite_variable(bytes: &[u8]) -> (usize, bool) {
    let mut position = 1;
    let mut has_name = false;
    loop {
        match &bytes[position..] {
            [b':', b':', ..] => position += 2,
            [b'(', inside @ ..] if has_name => {
                let ends = |byte: &u8| *byte == b')' || byte.is_ascii_whitespace() || *byte == 0x0b;
                let end = inside.iter().position(ends).unwrap_or(inside.len());
                let is_closed = inside.get(end) == Some(&b')');
                return (position + 1 + end + usize::from(is_closed), true);
            }
            rest => match word(rest, true) {
                0 => return (position, false),
                length => {
                    has_name = true;
                    position += length;
                }
            },
        }
    }
}

/// Returns the length of a `--` comment. In PostgreSQL, a carriage return ends it too.
fn line_comment(bytes: &[u8], carriage_return: bool) -> usize {
    let ends = |byte: &u8| *byte == b'\n' || carriage_return && *byte == b'\r';
    bytes.iter().position(ends).unwrap_or(bytes.len())
}

/// Returns the length of a `/* … */` comment. In PostgreSQL, comments nest.
fn block_comment(bytes: &[u8], nests: bool) -> usize {
    let mut depth = 1;
    let mut position = 2;
    while depth > 0 && position < bytes.len() {
        match &bytes[position..] {
            [b'*', b'/', ..] => (depth, position) = (depth - 1, position + 2),
            [b'/', b'*', ..] if nests => (depth, position) = (depth + 1, position + 2),
            _ => position += 1,
        }
    }
    position
}

/// Returns the length of a quoted text. `opening` is the length of its beginning, the quote included. A doubled quote
/// does not end the text.
fn quoted(bytes: &[u8], opening: usize, quote: u8, backslash: bool) -> usize {
    let mut position = opening;
    while position < bytes.len() {
        if backslash && bytes[position] == b'\\' {
            position += 2;
        } else if bytes[position] != quote {
            position += 1;
        } else if bytes.get(position + 1) == Some(&quote) {
            position += 2;
        } else {
            return position + 1;
        }
    }
    // A backslash can be the last byte, so `position` can be beyond the end.
    bytes.len()
}

fn bracketed(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|&byte| byte == b']')
        .map_or(bytes.len(), |end| end + 1)
}

/// Returns the length of a `$tag$ … $tag$` text if one begins here.
fn dollar_quoted(bytes: &[u8]) -> Option<usize> {
    let tag = word(&bytes[1..], false);
    let starts_with_digit = bytes.get(1).is_some_and(u8::is_ascii_digit);
    if bytes.get(1 + tag) != Some(&b'$') || (tag > 0 && starts_with_digit) {
        return None;
    }
    let delimiter = &bytes[..tag + 2];
    let body = &bytes[delimiter.len()..];
    let end = body
        .windows(delimiter.len())
        .position(|window| window == delimiter);
    Some(end.map_or(bytes.len(), |end| delimiter.len() + end + delimiter.len()))
}
