//! One parameter from any type that implements serde's `Serialize`.

use std::any;
use std::fmt::{self, Display, Write};

use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use serde::ser::{self, Serialize, SerializeMap, Serializer};
use uuid::Uuid;

use crate::values::Value;
use crate::values::deserialize::type_of;

/// The reason why a value is no parameter. It contains no value.
#[derive(Debug)]
pub(super) enum Problem {
    /// The value has several parts, so it becomes JSON.
    Nested,
    /// The type's own `Serialize` failed, with a message that may contain the value and is not kept.
    Refused,
    Text(String),
    InField(String, String),
}

impl ser::Error for Problem {
    fn custom<T: Display>(_: T) -> Self {
        Problem::Refused
    }
}

// serde requires it. Only `DbError::Serialize` is shown.
impl Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the value was refused")
    }
}

impl std::error::Error for Problem {}

/// Converts a field of a struct, or an entry of a map. A value of several parts becomes JSON.
///
/// A `serde_json::Value` is JSON as a field, and as an entry what it contains, as `query_as` reads it.
pub(super) fn field<T: Serialize + ?Sized>(value: &T, is_entry: bool) -> Result<Value, Problem> {
    let converted = match is_entry {
        true => {
            let name = name_of::<T>();
            value.serialize(Single { name })
        }
        false => single(value),
    };
    match converted {
        Err(Problem::Nested) => serde_json::to_string(value)
            .map(Value::Json)
            .map_err(|_| Problem::Text(format!("{} cannot be written as JSON", type_of::<T>()))),
        Err(Problem::Refused) => Err(Problem::Text(format!(
            "{} refused to be serialized",
            type_of::<T>()
        ))),
        converted => converted,
    }
}

/// Converts a value, or returns [`Problem::Nested`].
pub(super) fn single<T: Serialize + ?Sized>(value: &T) -> Result<Value, Problem> {
    if is::<T, serde_json::Value>() {
        return Err(Problem::Nested);
    }
    let name = name_of::<T>();
    let converted = value.serialize(Single { name })?;
    if let (true, Value::Text(text)) = (is::<T, Uuid>(), &converted) {
        return Ok(text.parse().map_or(converted, Value::Uuid));
    }
    Ok(converted)
}

/// Returns a type's name without references.
fn name_of<T: ?Sized>() -> &'static str {
    any::type_name::<T>().trim_start_matches('&')
}

fn is<T: ?Sized, U>() -> bool {
    name_of::<T>() == any::type_name::<U>()
}

/// Converts what a type of chrono writes, so that SQLite stores it like a parameter of [`params!`](crate::params).
fn of_chrono(text: String) -> Value {
    if let Ok(value) = text.parse::<DateTime<FixedOffset>>() {
        return value.into();
    }
    let naive = text.parse::<NaiveDateTime>().map(Value::Timestamp);
    let naive = naive.or_else(|_| text.parse::<NaiveDate>().map(Value::Date));
    let naive = naive.or_else(|_| text.parse::<NaiveTime>().map(Value::Time));
    naive.unwrap_or(Value::Text(text))
}

/// Returns whether the elements of a list type are known to be single values. They are not if they have a type that this
/// crate does not know, which may be a struct.
fn has_single_elements(list: &str) -> bool {
    const SINGLE: [&str; 17] = [
        "bool", "i8", "i16", "i32", "i64", "i128", "u8", "u16", "u32", "u64", "u128", "f32", "f64",
        "char", "str", "isize", "usize",
    ];
    let Some((_, mut element)) = list.split_once(['<', '[']) else {
        return false;
    };
    loop {
        element = element.trim_start_matches('&');
        let wrapped = ["core::option::Option<", "alloc::vec::Vec<"];
        match wrapped.iter().find_map(|name| element.strip_prefix(name)) {
            Some(inner) => element = inner,
            None => break,
        }
    }
    let end = element
        .find(['>', ']', ',', ';', '<'])
        .unwrap_or(element.len());
    let name = &element[..end];
    name.starts_with("chrono::")
        || name == "alloc::borrow::Cow"
        || name == any::type_name::<String>()
        || name == any::type_name::<Uuid>()
        || name == any::type_name::<BigDecimal>()
        || SINGLE.contains(&name)
}

/// Returns whether a value cannot be written as JSON.
fn is_not_finite(value: &Value) -> bool {
    match value {
        Value::Float(value) => !value.is_finite(),
        Value::Array(values) => values.iter().any(is_not_finite),
        _ => false,
    }
}

/// Converts one value.
pub(super) struct Single {
    /// The name of its type.
    name: &'static str,
}

impl Single {
    fn parts(self, is_list: bool) -> Parts {
        Parts {
            values: Vec::new(),
            is_nested: !is_list,
            list: self.name,
        }
    }
}

macro_rules! into_value {
    ($($method:ident: $type:ty,)*) => {
        $(
            fn $method(self, value: $type) -> Result<Value, Problem> {
                Ok(value.into())
            }
        )*
    };
}

impl Serializer for Single {
    type Ok = Value;
    type Error = Problem;
    type SerializeSeq = Parts;
    type SerializeTuple = Parts;
    type SerializeTupleStruct = Parts;
    type SerializeTupleVariant = Parts;
    type SerializeMap = Parts;
    type SerializeStruct = Parts;
    type SerializeStructVariant = Parts;

    into_value! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
    }

    fn serialize_i128(self, value: i128) -> Result<Value, Problem> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Decimal(value.into()), Value::Int))
    }

    fn serialize_u128(self, value: u128) -> Result<Value, Problem> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Decimal(value.into()), Value::Int))
    }

    fn serialize_none(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        self.serialize_newtype_struct("", value)
    }

    fn serialize_unit(self) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Value, Problem> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Value, Problem> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        single(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Value, Problem> {
        let mut parts = self.parts(false);
        parts.add(value)?;
        parts.finish()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts, Problem> {
        Ok(self.parts(true))
    }

    /// serde writes arrays like tuples.
    fn serialize_tuple(self, _: usize) -> Result<Parts, Problem> {
        let is_list = self.name.starts_with('[');
        Ok(self.parts(is_list))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts, Problem> {
        Ok(self.parts(false))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Problem> {
        Ok(self.parts(false))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts, Problem> {
        Ok(self.parts(false))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts, Problem> {
        Ok(self.parts(false))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Parts, Problem> {
        Ok(self.parts(false))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Value, Problem> {
        let mut text = String::new();
        write!(text, "{value}").map_err(|_| Problem::Refused)?;
        if is::<T, BigDecimal>() {
            return Ok(text.parse().map_or(Value::Text(text), Value::Decimal));
        }
        // The types in between, and whether the field is a type of chrono or contains one, do not matter.
        Ok(match any::type_name::<T>().contains("chrono::") {
            true => of_chrono(text),
            false => Value::Text(text),
        })
    }
}

/// The parts of a value: elements, fields or entries.
pub(super) struct Parts {
    values: Vec<Value>,
    /// Whether the value is more than a list of single values.
    is_nested: bool,
    /// The name of the list's type.
    list: &'static str,
}

impl Parts {
    fn add<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        match single(value) {
            Ok(value) => self.values.push(value),
            // The other parts must be finite, too.
            Err(Problem::Nested) => self.is_nested = true,
            Err(problem) => return Err(problem),
        }
        Ok(())
    }

    fn finish(self) -> Result<Value, Problem> {
        let is_known =
            || has_single_elements(self.list) || self.values.iter().any(|value| !value.is_null());
        if !self.is_nested && is_bytes(self.list) {
            let bytes = self.values.iter().map(|value| match value {
                Value::Int(byte) => u8::try_from(*byte).map_err(|_| Problem::Refused),
                _ => Err(Problem::Refused),
            });
            bytes.collect::<Result<_, _>>().map(Value::Bytes)
        } else if !self.is_nested && is_known() {
            Ok(Value::Array(self.values))
        } else if self.values.iter().any(is_not_finite) {
            let problem = "it becomes JSON, which has neither NaN nor infinity";
            Err(Problem::Text(problem.to_owned()))
        } else {
            Err(Problem::Nested)
        }
    }
}

/// Returns whether a type is a vector, slice or array of bytes.
fn is_bytes(list: &str) -> bool {
    list == any::type_name::<Vec<u8>>() || list == "[u8]" || list.starts_with("[u8;")
}

macro_rules! parts {
    ($($part:ident $method:ident $(($name:ty))?,)*) => {
        $(
            impl ser::$part for Parts {
                type Ok = Value;
                type Error = Problem;

                fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), Problem> {
                    self.add(value)
                }

                fn end(self) -> Result<Value, Problem> {
                    self.finish()
                }
            }
        )*
    };
}

parts! {
    SerializeSeq serialize_element,
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
    SerializeStruct serialize_field (&'static str),
    SerializeStructVariant serialize_field (&'static str),
}

impl SerializeMap for Parts {
    type Ok = Value;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, _: &T) -> Result<(), Problem> {
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        self.add(value)
    }

    fn end(self) -> Result<Value, Problem> {
        self.finish()
    }
}
