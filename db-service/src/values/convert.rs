//! Conversions between [`Value`] and the types of Rust.

use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use uuid::Uuid;

use super::Value;
use super::json;

macro_rules! from {
    ($($variant:ident: $($type:ty),+;)*) => {
        $($(
            impl From<$type> for Value {
                fn from(value: $type) -> Self {
                    Value::$variant(value.into())
                }
            }
        )+)*
    };
}

from! {
    Bool: bool;
    Int: i8, i16, i32, i64, u8, u16, u32;
    Float: f32, f64;
    Text: String, &str, &String, char, std::borrow::Cow<'_, str>;
    Bytes: Vec<u8>, &[u8];
    Date: NaiveDate;
    Time: NaiveTime;
    Timestamp: NaiveDateTime;
    TimestampTz: DateTime<Utc>, DateTime<FixedOffset>, DateTime<Local>;
    Uuid: Uuid;
    Decimal: BigDecimal;
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        Value::Json(value.to_string())
    }
}

impl From<u64> for Value {
    /// Converts a number. One beyond the range of `i64` becomes a decimal.
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or_else(|_| Value::Decimal(value.into()), Value::Int)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A type whose vectors, slices and arrays are [`Value::Array`]s: all types of values except `u8`, because a `Vec<u8>`
/// is [`Value::Bytes`].
pub trait ListElement: Into<Value> + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! list_element {
    ($($type:ty),* $(,)?) => {
        $(
            impl sealed::Sealed for $type {}
            impl ListElement for $type {}
        )*
    };
}

list_element! {
    Value, bool, i8, i16, i32, i64, u16, u32, u64, f32, f64, String, &str, &String, char, std::borrow::Cow<'_, str>,
    Vec<u8>, &[u8], NaiveDate, NaiveTime, NaiveDateTime, DateTime<Utc>, DateTime<FixedOffset>, DateTime<Local>, Uuid,
    BigDecimal, serde_json::Value,
}

impl<T: ListElement> sealed::Sealed for Option<T> {}
impl<T: ListElement> ListElement for Option<T> {}
impl<T: ListElement> sealed::Sealed for Vec<T> {}
impl<T: ListElement> ListElement for Vec<T> {}

impl<T: ListElement> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        Value::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<T: ListElement, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        Value::Array(values.into_iter().map(Into::into).collect())
    }
}

impl<T: ListElement + Clone> From<&[T]> for Value {
    fn from(values: &[T]) -> Self {
        Value::Array(values.iter().cloned().map(Into::into).collect())
    }
}

impl<T: ListElement + Clone> From<&Vec<T>> for Value {
    fn from(values: &Vec<T>) -> Self {
        values.as_slice().into()
    }
}

impl<T: ListElement + Clone, const N: usize> From<&[T; N]> for Value {
    fn from(values: &[T; N]) -> Self {
        values.as_slice().into()
    }
}

/// A type that a column's value can be read as; see [`Row::get`](crate::Row::get).
pub trait FromValue: Sized {
    /// The type's name as it appears in errors.
    const NAME: &'static str;

    /// Converts the value. Returns `None` if its kind does not match or it is out of range.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty, $name:literal, $($pattern:pat $(if $guard:expr)? => $result:expr),+;)*) => {
        $(
            impl FromValue for $type {
                const NAME: &'static str = $name;

                fn from_value(value: &Value) -> Option<Self> {
                    match value {
                        $($pattern $(if $guard)? => $result,)+
                        _ => None,
                    }
                }
            }
        )*
    };
}

from_value! {
    bool, "bool", Value::Bool(value) => Some(*value), Value::Int(value @ (0 | 1)) => Some(*value == 1);
    i16, "i16", Value::Int(value) => (*value).try_into().ok();
    i32, "i32", Value::Int(value) => (*value).try_into().ok();
    i64, "i64", Value::Int(value) => Some(*value), Value::Decimal(value) => whole(value);
    u32, "u32", Value::Int(value) => (*value).try_into().ok();
    u64, "u64", Value::Int(value) => (*value).try_into().ok(), Value::Decimal(value) => value.is_integer().then(|| value.to_plain_string().parse().ok()).flatten(),
        Value::Text(value) => value.parse().ok();
    f64, "f64", Value::Float(value) => Some(*value), Value::Int(value) => exact(*value);
    f32, "f32", Value::Float(value) => Some(*value as f32).filter(|narrow| narrow.is_finite() || !value.is_finite());
    String, "String", Value::Text(value) | Value::Json(value) => Some(value.clone());
    Vec<u8>, "bytes", Value::Bytes(value) => Some(value.clone());
    NaiveDate, "date", Value::Date(value) => Some(*value), Value::Text(value) => value.parse().ok();
    NaiveTime, "time", Value::Time(value) => Some(*value), Value::Text(value) => value.parse().ok();
    NaiveDateTime, "timestamp", Value::Timestamp(value) => Some(*value), Value::Text(value) => timestamp(value);
    DateTime<Utc>, "timestamp with time zone", Value::TimestampTz(value) => Some(*value), Value::Text(value) => moment(value);
    Uuid, "uuid", Value::Uuid(value) => Some(*value), Value::Text(value) => value.parse().ok(), Value::Bytes(value) => Uuid::from_slice(value).ok();
    BigDecimal, "decimal", Value::Decimal(value) => Some(value.clone()), Value::Int(value) => Some((*value).into()),
        Value::Float(value) => shortest(*value), Value::Text(value) => value.parse().ok();
    serde_json::Value, "serde_json::Value (its numbers must fit in i64, u64 or f64; a String holds any JSON)",
        Value::Json(value) | Value::Text(value) => json::parse(value);
}

impl<T: FromValue + ListElement> FromValue for Vec<T> {
    const NAME: &'static str = "an array of the requested type";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Array(values) => values.iter().map(T::from_value).collect(),
            _ => None,
        }
    }
}

impl FromValue for Value {
    const NAME: &'static str = "value";

    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl<T: FromValue> FromValue for Option<T> {
    const NAME: &'static str = T::NAME;

    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() {
            Some(None)
        } else {
            T::from_value(value).map(Some)
        }
    }
}

/// Converts a decimal without a fraction, such as PostgreSQL's `sum(bigint)`, to an integer.
fn whole(value: &BigDecimal) -> Option<i64> {
    value
        .is_integer()
        .then(|| value.with_scale(0).to_plain_string().parse().ok())
        .flatten()
}

/// Returns the decimal with the fewest digits that denotes this float. SQLite's columns for numbers store decimals of up
/// to 15 digits as floats, and so they are read back as they were.
fn shortest(value: f64) -> Option<BigDecimal> {
    value.to_string().parse().ok()
}

/// Converts an integer to a float if that is exact.
fn exact(value: i64) -> Option<f64> {
    const EXACT_TO: u64 = 1 << f64::MANTISSA_DIGITS;
    (value.unsigned_abs() <= EXACT_TO).then_some(value as f64)
}

fn timestamp(text: &str) -> Option<NaiveDateTime> {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .into_iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
}

/// Parses a timestamp. A text without a zone, such as SQLite's `CURRENT_TIMESTAMP`, is in UTC.
fn moment(text: &str) -> Option<DateTime<Utc>> {
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"));
    zoned
        .map(|moment| moment.to_utc())
        .ok()
        .or_else(|| Some(Utc.from_utc_datetime(&timestamp(text)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_converted_only_without_loss() {
        assert_eq!(i32::from_value(&Value::Int(i64::from(i32::MAX) + 1)), None);
        assert_eq!(u64::from_value(&Value::from(u64::MAX)), Some(u64::MAX));
        assert_eq!(u32::from_value(&Value::Int(-1)), None);
        assert_eq!(f64::from_value(&Value::Int((1 << 53) + 1)), None);
        assert_eq!(
            i64::from_value(&Value::Decimal("12.00".parse().unwrap())),
            Some(12)
        );
        assert_eq!(
            i64::from_value(&Value::Decimal("12.5".parse().unwrap())),
            None
        );
        assert_eq!(bool::from_value(&Value::Int(2)), None);
    }

    #[test]
    fn timestamps_are_parsed_from_every_format() {
        let expected = Utc.with_ymd_and_hms(2024, 2, 29, 12, 30, 0).unwrap();
        for text in [
            "2024-02-29 12:30:00",
            "2024-02-29T12:30:00Z",
            "2024-02-29 13:30:00.000000+01:00",
            "2024-02-29T12:30:00.000",
            "2024-02-29 12:30:00+00",
        ] {
            assert_eq!(moment(text), Some(expected), "{text}");
        }
        assert_eq!(moment("2023-02-29 12:30:00"), None);
    }

    #[test]
    fn null_is_read_only_as_an_option() {
        assert_eq!(Option::<String>::from_value(&Value::Null), Some(None));
        assert_eq!(String::from_value(&Value::Null), None);
        assert_eq!(Value::from(None::<i32>), Value::Null);
    }
}
