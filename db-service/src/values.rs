//! Values, parameters and rows.

use crate::error::DbError;
use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use indexmap::IndexMap;
use std::borrow::Cow;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;
use uuid::Uuid;

/// The value of a column or a parameter.
///
/// SQLite stores only null, integers, floats, text and bytes. A stored date, time, uuid, decimal or JSON value comes
/// back as [`Text`](Value::Text), and a bool as [`Int`](Value::Int). [`Row::get`](crate::Row::get) converts them to the
/// original type.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any width. PostgreSQL receives it as `int4` if it fits, otherwise as `int8`, like a literal.
    Int(i64),
    /// A float of single or double precision.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A date.
    Date(NaiveDate),
    /// A time of day.
    Time(NaiveTime),
    /// A date and time without a zone.
    Timestamp(NaiveDateTime),
    /// A date and time with a zone, in UTC.
    TimestampTz(DateTime<Utc>),
    /// A uuid.
    Uuid(Uuid),
    /// A decimal of any precision and scale.
    Decimal(BigDecimal),
    /// JSON.
    Json(serde_json::Value),
    /// A PostgreSQL value that fits no other variant: a value of another type, or a special value such as the date
    /// `infinity`, the time 24:00 or the numeric `NaN`. Cast it in the statement, as in `column::text`.
    #[non_exhaustive]
    Other {
        /// The type's object identifier, as in `pg_type`.
        oid: u32,
        /// The value in PostgreSQL's binary format.
        bytes: Vec<u8>,
    },
}

impl Value {
    /// Returns whether the value is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Returns the kind of the value in words, for errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Null => "NULL",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Date(_) => "a date",
            Value::Time(_) => "a time",
            Value::Timestamp(_) => "a timestamp",
            Value::TimestampTz(_) => "a timestamp with time zone",
            Value::Uuid(_) => "a uuid",
            Value::Decimal(_) => "a decimal",
            Value::Json(_) => "JSON",
            Value::Other { .. } => "a value that must be cast in the statement, as in column::text",
        }
    }
}

/// Creates an array of [`Value`]s, such as a row for [`bulk_insert`](crate::DatabaseService::bulk_insert):
/// `values![1, "x", None::<i32>]`.
///
/// # Examples
///
/// ```
/// use db_service::{Value, values};
///
/// let row: [Value; 3] = values![7, "Ada", None::<bool>];
/// assert_eq!(row[2], Value::Null);
/// ```
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::Value::from($value)),*]
    };
}

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
    Json: serde_json::Value;
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
    String, "String", Value::Text(value) => Some(value.clone());
    Vec<u8>, "bytes", Value::Bytes(value) => Some(value.clone());
    NaiveDate, "date", Value::Date(value) => Some(*value), Value::Text(value) => value.parse().ok();
    NaiveTime, "time", Value::Time(value) => Some(*value), Value::Text(value) => value.parse().ok();
    NaiveDateTime, "timestamp", Value::Timestamp(value) => Some(*value), Value::Text(value) => timestamp(value);
    DateTime<Utc>, "timestamp with time zone", Value::TimestampTz(value) => Some(*value), Value::Text(value) => moment(value);
    Uuid, "uuid", Value::Uuid(value) => Some(*value), Value::Text(value) => value.parse().ok(), Value::Bytes(value) => Uuid::from_slice(value).ok();
    BigDecimal, "decimal", Value::Decimal(value) => Some(value.clone()), Value::Int(value) => Some((*value).into()),
        Value::Float(value) => BigDecimal::try_from(*value).ok(), Value::Text(value) => value.parse().ok();
    serde_json::Value, "JSON", Value::Json(value) => Some(value.clone()), Value::Text(value) => serde_json::from_str(value).ok();
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

/// The named parameters of one statement, created with [`params!`](crate::params). `Debug` shows names and no values.
#[derive(Clone, PartialEq, Default)]
pub struct Params {
    entries: IndexMap<Cow<'static, str>, Value>,
}

impl Params {
    /// Creates an empty set.
    pub fn new() -> Self {
        Params::default()
    }

    /// Adds a parameter, or replaces the one with the same name.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.entries.insert(name.into(), value.into());
        self
    }

    /// Returns the value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)
    }

    /// Returns whether a value is text.
    pub(crate) fn has_text(&self) -> bool {
        let mut values = self.entries.values();
        values.any(|value| matches!(value, Value::Text(_)))
    }

    /// Returns the names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(Cow::as_ref)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Params ")?;
        formatter.debug_set().entries(self.names()).finish()
    }
}

/// Creates [`Params`] from names and values: `params! { "id" => 1, "name" => "x", "none" => None::<i32> }`.
///
/// # Examples
///
/// ```
/// use db_service::{Value, params};
///
/// let parameters = params! { "id" => 7, "name" => "Ada" };
/// assert_eq!(parameters.get("id"), Some(&Value::Int(7)));
/// assert_eq!(params! {}.get("id"), None);
/// ```
#[macro_export]
macro_rules! params {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Params::new()$(.with($name, $value))*
    };
}

/// One row of a result. All rows of a result share their column names.
///
/// # Examples
///
/// ```
/// use db_service::{Row, Value};
///
/// let row = Row::new([("id", Value::from(7)), ("name", Value::from("Ada"))]);
/// assert_eq!(row.get::<i64>("id")?, 7);
/// assert_eq!(row["name"], Value::from("Ada"));
/// assert_eq!(row.columns(), ["id", "name"]);
/// assert!(row.get::<i64>("age").is_err());
/// # Ok::<(), db_service::DbError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// Creates a row, for example as the answer of a fake database.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Value)>) -> Self {
        let (columns, values): (Vec<String>, Vec<Value>) = columns
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .unzip();
        Row {
            columns: columns.into(),
            values,
        }
    }

    pub(crate) fn from_parts(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Row { columns, values }
    }

    /// Returns a column's value as `T`. Use `Option<T>` if it can be NULL.
    ///
    /// If several columns have the same name, the first one is read.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::UnknownColumn`] if there is no such column, and [`DbError::WrongType`] if the value is of
    /// another kind or out of range.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, DbError> {
        let value = self.value(column).ok_or_else(|| DbError::UnknownColumn {
            column: column.to_owned(),
            available: self.columns.to_vec(),
        })?;
        T::from_value(value).ok_or_else(|| DbError::WrongType {
            column: column.to_owned(),
            found: value.kind(),
            expected: T::NAME,
        })
    }

    /// Returns the names of the columns, in the order of the statement.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn value(&self, column: &str) -> Option<&Value> {
        self.values
            .get(self.columns.iter().position(|name| name == column)?)
    }
}

/// Returns the value of a column, or [`Value::Null`] if there is no such column. [`Row::get`] distinguishes the two.
impl Index<&str> for Row {
    type Output = Value;

    fn index(&self, column: &str) -> &Value {
        static NULL: Value = Value::Null;
        self.value(column).unwrap_or(&NULL)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_map()
            .entries(self.columns.iter().zip(&self.values))
            .finish()
    }
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
