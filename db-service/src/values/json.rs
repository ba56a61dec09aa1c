//! JSON whose numbers are read without loss.

use std::iter;

/// Parses a JSON text. Returns `None` if it is invalid, or if a number has more digits than `i64`, `u64` and `f64` hold.
pub(crate) fn parse(text: &str) -> Option<serde_json::Value> {
    let parsed = serde_json::from_str(text).ok()?;
    numbers(text).all(fits).then_some(parsed)
}

/// Returns the numbers of a valid JSON text.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        loop {
            let start =
                rest.find(|char: char| char == '"' || char == '-' || char.is_ascii_digit())?;
            rest = &rest[start..];
            if let Some(string) = rest.strip_prefix('"') {
                rest = &string[string_length(string.as_bytes())..];
                continue;
            }
            let is_part = |char: char| char.is_ascii_digit() || "+-.eE".contains(char);
            let end = rest.find(|char| !is_part(char)).unwrap_or(rest.len());
            let (number, behind) = rest.split_at(end);
            rest = behind;
            return Some(number);
        }
    })
}

/// Returns the length of a string up to and including its closing quote.
fn string_length(bytes: &[u8]) -> usize {
    let mut position = 0;
    while position < bytes.len() {
        match bytes[position] {
            b'"' => return position + 1,
            b'\\' => position += 2,
            _ => position += 1,
        }
    }
    bytes.len()
}

/// Returns whether `serde_json::Number` holds a number exactly, or the float that has this number as its shortest form.
fn fits(number: &str) -> bool {
    if number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok() {
        return true;
    }
    match number.parse::<f64>() {
        Ok(float) if float.is_finite() => {
            let same = Decimal::of(number);
            same.is_some() && same == Decimal::of(&format!("{float:e}"))
        }
        _ => false,
    }
}

/// A number as `0.digits × 10^exponent`, without zeros at either end of the digits.
#[derive(Debug, PartialEq)]
struct Decimal {
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    /// Reads a number of a JSON text, without its sign.
    fn of(number: &str) -> Option<Self> {
        let number = number.trim_start_matches('-');
        let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
        let exponent: i64 = exponent.parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let Some(first) = all.iter().position(|&digit| digit != b'0') else {
            return Some(Decimal {
                digits: Vec::new(),
                exponent: 0,
            });
        };
        let last = all.iter().rposition(|&digit| digit != b'0')?;
        let exponent = exponent
            .checked_add(whole.len() as i64)?
            .checked_sub(first as i64)?;
        Some(Decimal {
            digits: all[first..=last].to_vec(),
            exponent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_only_without_loss() {
        for exact in [
            "0",
            "-0",
            "-9223372036854775808",
            "18446744073709551615",
            "0.1",
            "1.10",
            "1E5",
            "1e-7",
            "-2.50e+3",
            "0.30000000000000004",
            "18446744073709552000",
            "1.7976931348623157e308",
            "5e-324",
            "0.000e99999",
            r#"{"18446744073709551616": ["\\", "\"1e400", [[]], {}, true, null]}"#,
            "[1,2.5,-3]",
        ] {
            assert!(parse(exact).is_some(), "{exact}");
        }
        for lossy in [
            "18446744073709551616",
            "-9223372036854775809",
            "0.1000000000000000055",
            "1e400",
            "1e-400",
            "1e99999999999999999999",
            "[1, {\"a\": 123456789012345678901}]",
            "9007199254740993.0",
        ] {
            assert_eq!(parse(lossy), None, "{lossy}");
        }
        for invalid in ["", "{", "01", "1 2", "nan", "\"\\\""] {
            assert_eq!(parse(invalid), None, "{invalid}");
        }
        let float = parse("0.30000000000000004").unwrap();
        assert_eq!(float.as_f64(), Some(0.1 + 0.2));
    }
}
