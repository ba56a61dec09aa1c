//! Values, parameters and rows.

mod convert;
mod deserialize;
mod json;
mod params;
mod row;
mod serialize;

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use uuid::Uuid;

pub use convert::{FromValue, ListElement};
pub(crate) use deserialize::deserialize_rows;
pub(crate) use json::parse as parse_json;
pub use params::Params;
pub use row::Row;

/// The value of a column or a parameter.
///
/// SQLite stores only null, integers, floats, text and bytes. A stored date, time, uuid, decimal or JSON value comes
/// back as [`Text`](Value::Text), and a bool as [`Int`](Value::Int). [`Row::get`](crate::Row::get) converts them to the
/// original type.
///
/// PostgreSQL keeps times to the microsecond; further digits are cut off. It has no leap seconds, so a leap second is
/// refused with [`UnstorableValue`](crate::DbError::UnstorableValue). SQLite keeps nanoseconds and leap seconds.
///
/// # Decimals on SQLite
///
/// A decimal is stored as text, and a column of the type `TEXT` or without a type keeps all of its digits. A column of
/// the type `NUMERIC`, `DECIMAL(10, 2)`, `INTEGER` or `REAL` converts the text to a number. It keeps decimals of up to 15
/// digits, and an integer of 64 bits, which in a `REAL` column may have a magnitude of up to 2^53. A decimal that such a
/// column would round is refused with [`UnstorableValue`](crate::DbError::UnstorableValue), also if a trigger or an index
/// would round it, and in a comparison or a computation with numbers. The check takes about 10 µs for each statement with
/// such a decimal, and nothing for others.
///
/// Where no column decides, as in `price * 2 > :price`, a decimal is compared as text, which is greater than each number.
/// Write `CAST(:price AS REAL)`.
///
/// # Timestamps on SQLite
///
/// A timestamp is stored as `2026-11-28 10:00:00` in UTC, as `CURRENT_TIMESTAMP` writes it. A fraction of a second has 3, 6
/// or 9 digits. Texts of the years 0 to 9999 sort like times. Texts with an offset and texts with a `T` are read, too,
/// but they are not equal to those above. For a column's default with milliseconds, write
/// `(replace(strftime('%Y-%m-%d %H:%M:%f'), '.000', ''))`.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// NULL.
    #[default]
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer of any width. PostgreSQL receives it as `int4` if it fits, otherwise as `int8`, like a literal. A column
    /// of floats rounds an integer beyond 2^53, as it rounds a literal.
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
    /// The text of a JSON value, as the database has it. [`Row::get`](crate::Row::get) parses it, or returns it as a
    /// `String`.
    Json(String),
    /// An array of PostgreSQL, or a list for `IN (:name)`. The elements of an array with several dimensions are arrays
    /// of the same length.
    Array(Vec<Value>),
    /// A PostgreSQL value that fits no other variant: a value of another type, an array whose positions do not begin
    /// at 1, or a special value such as the date `infinity`, the time 24:00 or the numeric `NaN`.
    ///
    /// As a parameter, it is sent as it was read. To read it as another type, cast it in the statement, as in
    /// `column::text`.
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

    /// Returns whether PostgreSQL reads no text as this value, or reads the text of an empty array as an object of JSON.
    #[cfg(feature = "postgres")]
    pub(crate) fn has_no_text(&self) -> bool {
        match self {
            Value::Null | Value::Other { .. } => true,
            Value::Array(values) => {
                let mut elements = values.iter().filter(|value| !value.is_null());
                values.is_empty() || elements.any(Value::has_no_text)
            }
            _ => false,
        }
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
            Value::Array(_) => "an array",
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
///
/// Names are refused by an error that says what to write:
///
/// ```compile_fail
/// db_service::values!["id" => 7];
/// ```
#[macro_export]
macro_rules! values {
    ($($value:expr),* $(,)?) => {
        [$($crate::Value::from($value)),*]
    };
    ($($other:tt)*) => {{
        ::core::compile_error!("write values and commas, without names: values![7, \"Ada\"]; names are for params!");
        // The right type, so that the only error is the one above.
        [$crate::Value::Null]
    }};
}
