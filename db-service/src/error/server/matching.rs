//! Removes the values from the messages of PostgreSQL, libpq, PgBouncer and SQLite.
//!
//! A message is shown only if the whole of it matches one of [`PATTERNS`] or [`POSTGRES_TEXTS`]. A pattern has slots: a
//! name stays, and a `{value}` becomes `…`. Any other message may quote values and is not shown, for example one in
//! another language, one that a user's function raises, or one of a future version.

use super::patterns::{CLAUSES, MODES, NEAR, OBJECTS, PATTERNS, POSTGRES_TEXTS, SYSTEM};

/// Returns a message without its values, or `None` if it matches no pattern.
pub(crate) fn shown(message: &str) -> Option<String> {
    let text = POSTGRES_TEXTS.lines().find(|text| *text == message);
    text.map(str::to_owned)
        .or_else(|| PATTERNS.iter().find_map(|pattern| fill(pattern, message)))
}

/// Returns whether a text is a qualified name: words of letters, digits, `_` and `$`, or quoted words, joined by dots.
pub(crate) fn is_path(text: &str) -> bool {
    let mut rest = text;
    loop {
        let Some(after) = rest.strip_prefix('"').map_or_else(
            || word(rest),
            |quoted| {
                let (name, after) = quoted.split_once('"')?;
                is_name(name).then_some(after)
            },
        ) else {
            return false;
        };
        match after.strip_prefix('.') {
            Some(more) => rest = more,
            None => return after.is_empty() && text.len() <= LONGEST,
        }
    }
}

/// Returns whether a text can be a name. A text with quotes or line breaks cannot, because it could close the quotes
/// around it in a message.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.contains(['"', '\n', '\r'])
}

/// The maximum length of a name in bytes: enough for three names of 63 bytes, PostgreSQL's maximum, joined by dots.
const LONGEST: usize = 200;

/// Removes a word from the beginning of a text, and returns the rest.
fn word(text: &str) -> Option<&str> {
    let is_part = |next: char| next.is_alphanumeric() || next == '_' || next == '$';
    let end = text.find(|next| !is_part(next)).unwrap_or(text.len());
    let starts_well = text.starts_with(|first: char| first.is_alphabetic() || first == '_');
    starts_well.then_some(&text[end..])
}

/// Matches a text against a pattern. Returns the text without its values if it matches.
pub(super) fn fill(pattern: &str, text: &str) -> Option<String> {
    let Some((literal, rest)) = pattern.split_once('{') else {
        return (pattern == text).then(|| text.to_owned());
    };
    let after = text.strip_prefix(literal)?;
    let (slot, rest) = rest.split_once('}')?;
    // A slot ends where the pattern's next literal begins. The last slot takes the rest of the text.
    let Some((next, _)) = rest.split_once('{') else {
        let inside = after.strip_suffix(rest)?;
        return Some(format!("{literal}{}{rest}", take(slot, inside)?));
    };
    let ends = after.match_indices(next).map(|(end, _)| end);
    // A limit on the slot's length keeps the search linear for long values.
    for end in ends.take_while(|end| *end <= 5 * LONGEST) {
        let (inside, behind) = after.split_at(end);
        if let Some(inside) = take(slot, inside)
            && let Some(behind) = fill(rest, behind)
        {
            return Some(format!("{literal}{inside}{behind}"));
        }
    }
    None
}

/// Returns the visible text of a slot, or `None` if the text does not match the slot's kind.
fn take<'a>(slot: &str, text: &'a str) -> Option<&'a str> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = match slot {
        "value" => return Some("…"),
        "system" => return Some(if is_one_of(SYSTEM, text) { text } else { "…" }),
        "known" => is_one_of(SYSTEM, text),
        "address" => text.parse::<std::net::IpAddr>().is_ok(),
        "name" => is_name(text),
        "names" => !text.is_empty() && text.len() <= 10 * LONGEST && !text.contains(['\n', '\r']),
        "path" => is_path(text),
        "type" => is_type(text),
        "types" => text.is_empty() || text.split(", ").all(is_type),
        "operator" => {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| b"+-*/<>=~!@#%^&|`?".contains(&byte))
        }
        "number" => is_digits(text) && text.len() <= 10,
        "object" => is_one_of(OBJECTS, text),
        "jsonb" => is_one_of(
            &[
                "array",
                "array or object",
                "boolean",
                "null",
                "numeric",
                "object",
                "string",
            ],
            text,
        ),
        "storage" => is_one_of(
            &["ANY", "BLOB", "INT", "INTEGER", "NUM", "REAL", "TEXT"],
            text,
        ),
        "command" => is_command(text),
        "near" => is_one_of(NEAR, text),
        "mode" => is_one_of(MODES, text),
        "clause" => is_one_of(CLAUSES, text),
        "duration" => is_duration(text),
        _ => false,
    };
    fits.then_some(text)
}

fn is_one_of(texts: &[&str], text: &str) -> bool {
    texts.contains(&text)
}

/// Returns whether a text is a type's name, such as `integer`, `"Mood"`, `public.mood[]`, `character varying(10)` or
/// `timestamp(3) without time zone`.
fn is_type(text: &str) -> bool {
    const WORDS: &str = "bit character day double hour interval minute month precision second time timestamp to varying with \
                         without year zone";
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('(') {
        let Some((modifier, behind)) = behind.split_once(')') else {
            return false;
        };
        if !modifier
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b',')
            || modifier.len() > 10
        {
            return false;
        }
        plain += before;
        rest = behind;
    }
    plain += rest;
    let plain = plain.trim_end_matches("[]");
    is_path(plain)
        || plain
            .split(' ')
            .all(|word| WORDS.split_whitespace().any(|known| known == word))
}

/// Returns whether a text is a command or a function, such as `INSERT`, `CREATE INDEX CONCURRENTLY` or `nextval()`.
fn is_command(text: &str) -> bool {
    let is_words = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte == b' ' || byte == b'/')
    };
    match text.strip_suffix("()") {
        Some(function) => is_path(function),
        None => !text.is_empty() && text.len() <= 60 && is_words(text),
    }
}

/// A duration as `Debug` of `Duration` prints it.
fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|next: char| next.is_ascii_digit() || next == '.');
    unit.len() < text.len() && is_one_of(&["s", "ms", "µs", "ns"], unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_megabytes_takes_linear_time() {
        for text in [
            "\"".repeat(1 << 20),
            "secret \" ".repeat(1 << 18),
            format!(
                "invalid input syntax for type integer: \"{}\"",
                "\"".repeat(1 << 20)
            ),
            format!("value \"{}", "\" is out of range for type ".repeat(1 << 15)),
            format!("{} does not exist", "relation \"".repeat(1 << 17)),
            "could not \" file \"".repeat(1 << 16),
        ] {
            let started_at = std::time::Instant::now();
            let _ = shown(&text);
            assert!(
                started_at.elapsed().as_secs() < 5,
                "{} bytes took {:?}",
                text.len(),
                started_at.elapsed()
            );
        }
    }
}
