//! The value of one column as any type that implements serde's `Deserialize`.

use std::borrow::Cow;
use std::slice;

use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, NaiveDateTime, SecondsFormat, Utc};
use serde::de::value::SeqDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Expected, IntoDeserializer, SeqAccess, Visitor};

use super::json::Json;
use super::refusal::Refusal;
use super::same_type;
use crate::values::{FromValue, Value, parse_json};

/// The value of a column or an element of its array.
#[derive(Clone, Copy)]
pub(super) struct Held<'r> {
    pub(super) value: &'r Value,
    /// Whether it is wanted for a field of a struct or a tuple, and not for an entry of a map or list of any length. Then
    /// a `serde_json::Value` is parsed from text, as for `Row::get`.
    pub(super) is_field: bool,
}

impl<'r> Held<'r> {
    pub(super) fn in_field(value: &'r Value) -> Self {
        Held {
            value,
            is_field: true,
        }
    }

    fn wrong_kind<T>(&self, expected: &dyn Expected) -> Result<T, Refusal> {
        Err(Refusal::kind(self.value.kind(), expected))
    }

    /// Reads the JSON that the value holds. On SQLite, JSON is text.
    fn json<'de, V: Visitor<'de>>(
        &self,
        visitor: V,
        read: impl FnOnce(Json<'_>, V) -> Result<V::Value, Refusal>,
    ) -> Result<V::Value, Refusal> {
        let (Value::Json(text) | Value::Text(text)) = self.value else {
            return self.wrong_kind(&visitor);
        };
        let Some(json) = parse_json(text) else {
            let expected: &dyn Expected = &visitor;
            return Err(Refusal::new(format!(
                "{} cannot be read as {expected}: it is not valid JSON, or a number in it has more digits than i64, \
                 u64 and f64 hold",
                self.value.kind()
            )));
        };
        read(Json(&json), visitor).map_err(Refusal::in_json::<V::Value>)
    }

    fn list<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Array(values) => {
                let is_field = self.is_field;
                let mut elements = Elements {
                    values: values.iter(),
                    is_field,
                };
                let value = visitor.visit_seq(&mut elements)?;
                match elements.values.len() {
                    0 => Ok(value),
                    more => Err(Refusal::new(format!(
                        "the array has {more} elements too many"
                    ))),
                }
            }
            Value::Bytes(bytes) => {
                let mut bytes = SeqDeserializer::<_, Refusal>::new(bytes.iter().copied());
                let value = visitor.visit_seq(&mut bytes)?;
                bytes.end()?;
                Ok(value)
            }
            _ => self.json(visitor, |json, visitor| json.deserialize_any(visitor)),
        }
    }

    /// Returns the value as text for a type of chrono, which accepts fewer forms than the databases write: SQLite's
    /// `CURRENT_TIMESTAMP` has neither a `T` nor a zone.
    fn text_for<T>(&self) -> Option<Cow<'r, str>> {
        let text = text(self.value)?;
        let as_chrono_reads = if !matches!(self.value, Value::Text(_)) {
            None
        } else if same_type::<T, NaiveDateTime>() && text.parse::<NaiveDateTime>().is_err() {
            NaiveDateTime::from_value(self.value).as_ref().map(naive)
        // Also for other zones.
        } else if same_type::<T, DateTime<FixedOffset>>()
            && text.parse::<DateTime<FixedOffset>>().is_err()
        {
            DateTime::<Utc>::from_value(self.value).as_ref().map(zoned)
        } else {
            None
        };
        Some(as_chrono_reads.map_or(text, Cow::Owned))
    }
}

/// Returns a value as text, in the form that its type has in serde.
pub(in crate::values) fn text(value: &Value) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::Text(text) | Value::Json(text) => Cow::Borrowed(text.as_str()),
        Value::Date(value) => value.to_string().into(),
        Value::Time(value) => value.to_string().into(),
        Value::Timestamp(value) => naive(value).into(),
        Value::TimestampTz(value) => zoned(value).into(),
        Value::Uuid(value) => value.to_string().into(),
        Value::Decimal(value) => value.to_plain_string().into(),
        _ => return None,
    })
}

/// Writes a timestamp as chrono's `Deserialize` reads it.
fn naive(value: &NaiveDateTime) -> String {
    format!("{value:?}")
}

/// Writes a timestamp with zone as chrono's `Deserialize` reads it.
fn zoned(value: &DateTime<Utc>) -> String {
    value.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

macro_rules! exact {
    ($($method:ident: $type:ty => $visit:ident,)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
                match <$type>::from_value(self.value) {
                    Some(value) => visitor.$visit(value),
                    None => self.wrong_kind(&visitor),
                }
            }
        )*
    };
}

macro_rules! wide {
    ($($method:ident => $visit:ident,)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
                let parsed = match self.value {
                    Value::Int(value) => (*value).try_into().ok(),
                    Value::Decimal(value) if value.is_integer() => {
                        value.with_scale(0).to_plain_string().parse().ok()
                    }
                    Value::Text(text) => text.parse().ok(),
                    _ => None,
                };
                match parsed {
                    Some(value) => visitor.$visit(value),
                    None => self.wrong_kind(&visitor),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Held<'_> {
    type Error = Refusal;

    // The visitors of smaller integers check the range.
    exact! {
        deserialize_bool: bool => visit_bool,
        deserialize_i8: i64 => visit_i64,
        deserialize_i16: i64 => visit_i64,
        deserialize_i32: i64 => visit_i64,
        deserialize_i64: i64 => visit_i64,
        deserialize_u8: i64 => visit_i64,
        deserialize_u16: i64 => visit_i64,
        deserialize_u32: i64 => visit_i64,
        deserialize_u64: u64 => visit_u64,
        deserialize_f32: f32 => visit_f32,
        deserialize_f64: f64 => visit_f64,
    }

    wide! {
        deserialize_i128 => visit_i128,
        deserialize_u128 => visit_u128,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let is_json = self.is_field && same_type::<V::Value, serde_json::Value>();
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Int(value) => visitor.visit_i64(*value),
            Value::Float(value) if same_type::<V::Value, BigDecimal>() => {
                // From a float, it would take all binary digits.
                match BigDecimal::from_value(self.value) {
                    Some(decimal) => visitor.visit_string(decimal.to_plain_string()),
                    None => visitor.visit_f64(*value),
                }
            }
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Bytes(value) => visitor.visit_bytes(value),
            Value::Text(text) if !is_json => visitor.visit_str(text),
            Value::Text(_) | Value::Json(_) => {
                self.json(visitor, |json, visitor| json.deserialize_any(visitor))
            }
            Value::Array(_) => self.list(visitor),
            _ => match text(self.value) {
                Some(text) => visitor.visit_str(&text),
                None => self.wrong_kind(&visitor),
            },
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match (self.value, self.text_for::<V::Value>()) {
            (_, Some(text)) => visitor.visit_str(&text),
            // A uuid reads both.
            (Value::Bytes(bytes), None) => visitor.visit_bytes(bytes),
            _ => self.wrong_kind(&visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match text(self.value) {
            Some(text) => visitor.visit_str(&text),
            None => self.wrong_kind(&visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_string(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Bytes(bytes) => visitor.visit_bytes(bytes),
            _ => self.wrong_kind(&visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            _ => self.wrong_kind(&visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.list(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.json(visitor, |json, visitor| json.deserialize_any(visitor))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.value {
            Value::Text(text)
                if variants.contains(&text.as_str()) || !text.trim_start().starts_with('{') =>
            {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            _ => self.json(visitor, |json, visitor| {
                json.deserialize_enum(name, variants, visitor)
            }),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }
}

/// The elements of an array.
struct Elements<'r> {
    values: slice::Iter<'r, Value>,
    is_field: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        let Some(value) = self.values.next() else {
            return Ok(None);
        };
        let is_field = self.is_field;
        let element = seed.deserialize(Held { value, is_field });
        element
            .map(Some)
            .map_err(|refusal| refusal.of_value::<S::Value>(value.kind()).in_array())
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}
