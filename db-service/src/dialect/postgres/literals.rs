//! Values as texts that PostgreSQL reads like quoted literals.

use std::fmt::{self, Write};

use bigdecimal::Zero;
use chrono::{Datelike, NaiveDate};
use diesel::pg::Pg;

use crate::dialect::Dialect;
use crate::values::Value;

/// Writes a value as a literal without its quotes, and nothing for NULL.
pub(crate) fn write_literal(value: &Value, out: &mut String) -> Result<(), &'static str> {
    if let Some(problem) = Pg::problem(value) {
        return Err(problem);
    }
    // Writing to a string cannot fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) if value.is_infinite() && *value > 0.0 => out.write_str("Infinity"),
        Value::Float(value) if value.is_infinite() => out.write_str("-Infinity"),
        // Large numbers in scientific notation, not with hundreds of digits. Smaller whole numbers have no fraction, so
        // that integer columns accept them.
        Value::Float(value) if value.abs() >= 1e15 => write!(out, "{value:e}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::Text(value) | Value::Json(value) => out.write_str(value),
        Value::Bytes(value) => {
            out.push_str("\\x");
            value.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Date(value) => write!(out, "{}{}", Day(*value), era(*value)),
        Value::Time(value) => write!(out, "{}", value.format("%H:%M:%S%.6f")),
        Value::Timestamp(value) => {
            let (day, time) = (value.date(), value.time());
            write!(
                out,
                "{} {}{}",
                Day(day),
                time.format("%H:%M:%S%.6f"),
                era(day)
            )
        }
        Value::TimestampTz(value) => {
            let (day, time) = (value.date_naive(), value.time());
            write!(
                out,
                "{} {}+00{}",
                Day(day),
                time.format("%H:%M:%S%.6f"),
                era(day)
            )
        }
        Value::Uuid(value) => write!(out, "{value}"),
        // `Display` shows `0.00` as `0`.
        Value::Decimal(value) if value.is_zero() && value.fractional_digit_count() > 0 => {
            write!(out, "0E-{}", value.fractional_digit_count())
        }
        Value::Decimal(value) => write!(out, "{value}"),
        Value::Array(values) => return write_array(values, out),
        Value::Other { .. } => {
            return Err(
                "the value has no text; cast it to text when it is read, as in column::text",
            );
        }
    };
    Ok(())
}

/// Writes an array, with each element in quotes.
pub(super) fn write_array(values: &[Value], out: &mut String) -> Result<(), &'static str> {
    out.push('{');
    let mut text = String::new();
    for (position, value) in values.iter().enumerate() {
        if position > 0 {
            out.push(',');
        }
        match value {
            Value::Null => out.push_str("NULL"),
            Value::Array(values) => write_array(values, out)?,
            value => {
                text.clear();
                write_literal(value, &mut text)?;
                out.push('"');
                for character in text.chars() {
                    if matches!(character, '"' | '\\') {
                        out.push('\\');
                    }
                    out.push(character);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    Ok(())
}

/// A date in PostgreSQL's format, with `BC` for years before 1.
struct Day(NaiveDate);

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, year) = self.0.year_ce();
        write!(
            formatter,
            "{year:04}-{:02}-{:02}",
            self.0.month(),
            self.0.day()
        )
    }
}

fn era(date: NaiveDate) -> &'static str {
    if date.year() > 0 { "" } else { " BC" }
}
