//! Rows as maps for serde, and parameters from any type that implements serde's `Serialize`.

mod parameter;

use std::any;
use std::borrow::Cow;
use std::mem;

use serde::ser::{self, Error as _, Impossible, Serialize, SerializeMap, Serializer};

use super::deserialize::{duplicate, text, type_of};
use super::{Params, Row, Value, parse_json};
use crate::error::DbError;
use parameter::{Problem, field, single};

/// Serializes a row as a map of its columns' names to their values. JSON columns are parsed, and arrays are sequences.
///
/// Dates, times, uuids and decimals are written as text, as chrono, uuid and bigdecimal write them; timestamps with a zone
/// in RFC 3339. On SQLite, bools are integers, and JSON and timestamps are the stored text.
///
/// It fails if two columns have the same name, if a number in JSON does not fit in `i64`, `u64` or `f64`, and for
/// [`Value::Other`].
impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(name) = duplicate(self.columns()) {
            return Err(S::Error::custom(format_args!(
                "several columns have the name {name:?}; rename all but one with AS"
            )));
        }
        let mut map = serializer.serialize_map(Some(self.values().len()))?;
        for (column, value) in self.columns().iter().zip(self.values()) {
            map.serialize_entry(column, &Cell { column, value })?;
        }
        map.end()
    }
}

/// The value of a column.
struct Cell<'a> {
    column: &'a str,
    value: &'a Value,
}

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let column = self.column;
        match self.value {
            Value::Null => serializer.serialize_none(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Int(value) => serializer.serialize_i64(*value),
            Value::Float(value) => serializer.serialize_f64(*value),
            Value::Text(value) => serializer.serialize_str(value),
            Value::Bytes(value) => serializer.serialize_bytes(value),
            Value::Json(json) => match parse_json(json) {
                Some(json) => json.serialize(serializer),
                None => Err(S::Error::custom(format_args!(
                    "column {column:?} holds JSON with a number of more digits than i64, u64 and f64 hold"
                ))),
            },
            Value::Array(values) => {
                serializer.collect_seq(values.iter().map(|value| Cell { column, value }))
            }
            value => match text(value) {
                Some(text) => serializer.serialize_str(&text),
                None => Err(S::Error::custom(format_args!(
                    "column {column:?} holds {}",
                    value.kind()
                ))),
            },
        }
    }
}

/// Makes a parameter of each field.
pub(super) fn params<T: Serialize + ?Sized>(value: &T) -> Result<Params, DbError> {
    value.serialize(Fields).map_err(|problem| {
        let problem = match problem {
            Problem::InField(field, problem) => return failed(Some(field), problem),
            Problem::Nested => format!("{} is neither a struct nor a map", type_of::<T>()),
            Problem::Refused => format!("{} refused to be serialized", type_of::<T>()),
            Problem::Text(problem) => problem,
        };
        failed(None, problem)
    })
}

fn failed(field: Option<String>, problem: String) -> DbError {
    DbError::Serialize { field, problem }
}

/// Converts a struct or a map whose fields are parameters.
struct Fields;

/// The parameters so far.
#[derive(Default)]
struct Given {
    params: Params,
    /// The key of the next value of a map.
    key: String,
    /// Whether this key belongs to a map, and not to a struct with flattened fields.
    is_entry: bool,
}

impl Given {
    fn add<T: Serialize + ?Sized>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: &T,
        is_entry: bool,
    ) -> Result<(), Problem> {
        let name = name.into();
        let in_field = |problem: &str| Problem::InField(name.to_string(), problem.to_owned());
        if self.params.get(&name).is_some() {
            return Err(in_field("two fields have this name"));
        }
        let value = field(value, is_entry).map_err(|problem| match problem {
            Problem::Text(problem) => in_field(&problem),
            problem => problem,
        })?;
        self.params = mem::take(&mut self.params).with(name, value);
        Ok(())
    }
}

macro_rules! no_fields {
    ($($method:ident($($type:ty),*),)*) => {
        $(
            fn $method(self, $(_: $type),*) -> Result<Params, Problem> {
                Err(Problem::Nested)
            }
        )*
    };
}

impl Serializer for Fields {
    type Ok = Params;
    type Error = Problem;
    type SerializeSeq = Impossible<Params, Problem>;
    type SerializeTuple = Impossible<Params, Problem>;
    type SerializeTupleStruct = Impossible<Params, Problem>;
    type SerializeTupleVariant = Impossible<Params, Problem>;
    type SerializeMap = Given;
    type SerializeStruct = Given;
    type SerializeStructVariant = Impossible<Params, Problem>;

    no_fields! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_f32(f32), serialize_f64(f64), serialize_char(char), serialize_str(&str),
        serialize_bytes(&[u8]), serialize_none(), serialize_unit_variant(&'static str, u32, &'static str),
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Params, Problem> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Params, Problem> {
        Ok(Params::new())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Params, Problem> {
        Ok(Params::new())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Params, Problem> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Params, Problem> {
        Err(Problem::Nested)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Problem> {
        Err(Problem::Nested)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Problem> {
        Err(Problem::Nested)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Problem> {
        Err(Problem::Nested)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Problem> {
        Err(Problem::Nested)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Given, Problem> {
        Ok(Given::default())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Given, Problem> {
        Ok(Given::default())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Problem> {
        Err(Problem::Nested)
    }
}

impl ser::SerializeStruct for Given {
    type Ok = Params;
    type Error = Problem;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Problem> {
        self.add(name, value, false)
    }

    fn end(self) -> Result<Params, Problem> {
        Ok(self.params)
    }
}

impl SerializeMap for Given {
    type Ok = Params;
    type Error = Problem;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Problem> {
        // serde's macros pass the names of fields as `str`, which no map can own.
        self.is_entry = any::type_name::<T>() != any::type_name::<str>();
        match single(key) {
            Ok(Value::Text(key)) => self.key = key,
            _ => return Err(Problem::Text("the keys of its map are not text".to_owned())),
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Problem> {
        let key = mem::take(&mut self.key);
        self.add(key, value, self.is_entry)
    }

    fn end(self) -> Result<Params, Problem> {
        Ok(self.params)
    }
}
