//! Texts of others on one line of a log or of an error.

use std::fmt::{self, Write};

/// Shows a text without what would begin another line, act on a terminal or turn the direction of writing: each of these
/// characters is shown as in a literal of Rust, such as `\n` and `\u{1b}`. So no statement and no name can forge a line of a
/// log. All else stays, so that a statement can be recognised and be searched for.
pub(crate) struct Escaped<T>(pub(crate) T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(formatter), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = text;
        while let Some((at, acting)) = plain.char_indices().find(|(_, next)| acts(*next)) {
            let (before, rest) = plain.split_at(at);
            write!(self.0, "{before}{}", acting.escape_debug())?;
            plain = &rest[acting.len_utf8()..];
        }
        self.0.write_str(plain)
    }
}

/// Beside control characters these are the separators of lines and paragraphs, and the marks of
/// [direction](https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters).
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_its_line() {
        let hostile =
            "SELECT 'é\"\\'\r\n\t1 \u{1b}[2J\u{9b}\u{7f}\0\u{2028}\u{202e}\u{2066}\u{61c}";
        let shown = "SELECT 'é\"\\'\\r\\n\\t1 \\u{1b}[2J\\u{9b}\\u{7f}\\0\\u{2028}\\u{202e}\\u{2066}\\u{61c}";
        assert_eq!(Escaped(hostile).to_string(), shown);
        assert_eq!(Escaped("").to_string(), "");
        let plain = "日本 e\u{301} \u{2013} \u{a0}";
        assert_eq!(Escaped(plain).to_string(), plain);
    }
}
