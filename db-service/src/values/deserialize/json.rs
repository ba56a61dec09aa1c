//! Deserializes JSON without loss and with errors that show no value. serde_json's own errors quote values.

use std::cell::Cell;

use bigdecimal::BigDecimal;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::refusal::Refusal;
use super::same_type;

/// A JSON value.
#[derive(Clone, Copy)]
pub(super) struct Json<'a>(pub(super) &'a serde_json::Value);

impl Json<'_> {
    /// Returns the error for a value that would be rounded.
    fn inexact(visitor: &dyn serde::de::Expected) -> Refusal {
        Refusal::kind("an integer beyond a float's precision", visitor)
    }
}

impl<'de> Deserializer<'de> for Json<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.0 {
            serde_json::Value::Null => visitor.visit_unit(),
            serde_json::Value::Bool(value) => visitor.visit_bool(*value),
            serde_json::Value::Number(number) => {
                if let Some(value) = number.as_i64() {
                    visitor.visit_i64(value)
                } else if let Some(value) = number.as_u64() {
                    visitor.visit_u64(value)
                } else if same_type::<V::Value, BigDecimal>() {
                    // It would make the float's binary digits of a float.
                    visitor.visit_string(number.to_string())
                } else {
                    match number.as_f64() {
                        Some(value) => visitor.visit_f64(value),
                        None => Err(Refusal::kind("a number", &visitor)),
                    }
                }
            }
            serde_json::Value::String(text) => visitor.visit_str(text),
            serde_json::Value::Array(elements) => {
                let mut elements = SeqDeserializer::new(elements.iter().map(Json));
                let value = visitor.visit_seq(&mut elements)?;
                elements.end()?;
                Ok(value)
            }
            serde_json::Value::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| (Name::new(name), Json(value)));
                let mut fields = MapDeserializer::new(fields);
                let value = visitor.visit_map(&mut fields)?;
                fields.end()?;
                Ok(value)
            }
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.0.as_i64().map(i64::unsigned_abs).or(self.0.as_u64()) {
            Some(value) if value > 1 << f64::MANTISSA_DIGITS => Err(Self::inexact(&visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.0.as_i64().map(i64::unsigned_abs).or(self.0.as_u64()) {
            Some(value) if value > 1 << f32::MANTISSA_DIGITS => Err(Self::inexact(&visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.0 {
            serde_json::Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match self.0 {
            serde_json::Value::String(variant) => {
                visitor.visit_enum(variant.as_str().into_deserializer())
            }
            serde_json::Value::Object(variant) if variant.len() == 1 => {
                let variant = variant
                    .iter()
                    .map(|(name, value)| (Name::new(name), Json(value)));
                visitor.visit_enum(MapAccessDeserializer::new(MapDeserializer::new(variant)))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier
    }
}

impl<'de> IntoDeserializer<'de, Refusal> for Json<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// The name of a column or of a field in JSON. As the key of a map, it can be any type that is written as text.
#[derive(Clone, Copy)]
pub(super) struct Name<'a> {
    name: &'a str,
    /// Becomes true if a struct asks for the name.
    of_struct: Option<&'a Cell<bool>>,
}

impl<'a> Name<'a> {
    fn new(name: &'a str) -> Self {
        let of_struct = None;
        Name { name, of_struct }
    }

    pub(super) fn of_column(name: &'a str, of_struct: &'a Cell<bool>) -> Self {
        let of_struct = Some(of_struct);
        Name { name, of_struct }
    }
}

macro_rules! integer_names {
    ($($method:ident $visit:ident,)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
                match self.name.parse() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => visitor.visit_str(self.name),
                }
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Name<'_> {
    type Error = Refusal;

    integer_names! {
        deserialize_i8 visit_i8, deserialize_i16 visit_i16, deserialize_i32 visit_i32, deserialize_i64 visit_i64,
        deserialize_i128 visit_i128, deserialize_u8 visit_u8, deserialize_u16 visit_u16, deserialize_u32 visit_u32,
        deserialize_u64 visit_u64, deserialize_u128 visit_u128, deserialize_bool visit_bool,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_str(self.name)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if let Some(of_struct) = self.of_struct {
            of_struct.set(true);
        }
        visitor.visit_str(self.name)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_enum(self.name.into_deserializer())
    }

    forward_to_deserialize_any! {
        f32 f64 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map struct ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Refusal> for Name<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
