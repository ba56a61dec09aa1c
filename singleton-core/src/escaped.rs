//! Text from outside, on one line of a log, a table or an error.

use std::fmt::{self, Write};

/// Displays a text on one line.
///
/// Control characters, the separators U+2028 and U+2029, and the marks of writing direction appear as in a Rust
/// literal, such as `\n` and `\u{1b}`. So a text cannot start a log line, control a terminal, or reorder what a reader
/// sees. All other characters stay, so that the text can be recognized and searched for.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if formatter.alternate() {
            write!(EscapingWriter(formatter), "{:#}", self.0)
        } else {
            write!(EscapingWriter(formatter), "{}", self.0)
        }
    }
}

struct EscapingWriter<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for EscapingWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = text;
        while let Some((at, character)) = plain.char_indices().find(|(_, next)| needs_escape(*next))
        {
            let (before, rest) = plain.split_at(at);
            write!(self.0, "{before}{}", character.escape_debug())?;
            plain = &rest[character.len_utf8()..];
        }
        self.0.write_str(plain)
    }
}

/// Returns whether a character is a control character, a line or paragraph separator, or a mark of
/// [direction](https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters).
fn needs_escape(character: char) -> bool {
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
    fn escaped_text_stays_on_one_line() {
        let untrusted =
            "SELECT 'é\"\\'\r\n\t1 \u{1b}[2J\u{9b}\u{7f}\0\u{2028}\u{202e}\u{2066}\u{61c}";
        let shown = "SELECT 'é\"\\'\\r\\n\\t1 \\u{1b}[2J\\u{9b}\\u{7f}\\0\\u{2028}\\u{202e}\\u{2066}\\u{61c}";
        assert_eq!(Escaped(untrusted).to_string(), shown);
        assert_eq!(Escaped("").to_string(), "");
        let plain = "日本 e\u{301} \u{2013} \u{a0}";
        assert_eq!(Escaped(plain).to_string(), plain);
    }

    #[test]
    fn chain_of_causes_is_escaped() {
        let error = anyhow::anyhow!("in\n").context("out\n");
        assert_eq!(format!("{:#}", Escaped(error)), r"out\n: in\n");
    }

    /// So a text that is shown by `Debug` needs no `Escaped`.
    #[test]
    fn debug_format_escapes_at_least_as_much() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            let text = character.to_string();
            let debug = format!("{text:?}");
            assert!(
                !needs_escape(character) || !debug.contains(character),
                "{debug} {:x}",
                u32::from(character)
            );
        }
    }
}
