//! Messages of other crates on one line.

use std::error::Error as StdError;
use std::fmt;

use singleton_core::__private::Escaped;

/// Displays an error of another crate and its causes on one line, each message once.
///
/// Such an error may print its cause, return it from `source()`, or do both. So a message is skipped if the previous
/// one ends with it.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = one_line(self.0);
        formatter.write_str(&last)?;
        let mut next = self.0.source();
        while let Some(cause) = next {
            let message = one_line(cause);
            if !last.ends_with(&message) {
                write!(formatter, ": {message}")?;
                last = message;
            }
            next = cause.source();
        }
        Ok(())
    }
}

/// Returns a text on one line, without empty lines and with its control characters escaped.
///
/// In libpq's messages, an indented line continues the line above, so a space joins the two. `; ` joins other lines.
pub(crate) fn one_line(text: &(impl fmt::Display + ?Sized)) -> String {
    let mut shown = String::new();
    for line in text.to_string().lines() {
        let words = line.trim();
        if words.is_empty() {
            continue;
        }
        if !shown.is_empty() {
            let continues = line.starts_with(char::is_whitespace);
            shown.push_str(if continues { " " } else { "; " });
        }
        shown.push_str(&Escaped(words).to_string());
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot listen: {0}")]
    struct PrintsAndReturns(#[source] io::Error);

    #[derive(Debug, thiserror::Error)]
    #[error("the start failed\n")]
    struct Returns(#[source] PrintsAndReturns);

    #[test]
    fn each_message_of_a_chain_appears_once() {
        let error = Returns(PrintsAndReturns(io::Error::other("no\nport\n")));
        assert_eq!(
            Chain(&error).to_string(),
            "the start failed: cannot listen: no; port"
        );
        let PrintsAndReturns(cause) = &error.0;
        assert_eq!(Chain(cause).to_string(), "no; port");
    }

    #[test]
    fn lines_are_joined_and_control_characters_escaped() {
        for (text, expected) in [
            (
                "connection to server at \"a\" failed: Connection refused\n\tIs the server running?\n\
                 connection to server at \"b\" failed: timeout expired\n",
                "connection to server at \"a\" failed: Connection refused Is the server running?; \
                 connection to server at \"b\" failed: timeout expired",
            ),
            ("\r\n\n a\r\n \r\n", "a"),
            ("a\u{1b}[2J\tb\rc\u{2028}d", r"a\u{1b}[2J\tb\rc\u{2028}d"),
            ("", ""),
        ] {
            assert_eq!(one_line(text), expected);
        }
    }
}
