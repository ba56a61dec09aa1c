//! Rows and values as any type that implements serde's `Deserialize`.

mod column;
mod json;
mod refusal;

use std::any;
use std::cell::Cell;

use bigdecimal::BigDecimal;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Visitor,
};

use super::{Row, Value};
use crate::error::DbError;
use column::Held;
pub(super) use column::text;
use json::Name;
use refusal::Refusal;
pub(super) use refusal::type_of;

/// Deserializes all rows of a result. Errors name the row.
pub(crate) fn deserialize_rows<T: DeserializeOwned>(rows: &[Row]) -> Result<Vec<T>, DbError> {
    // Usually, all rows have the same names.
    let mut columns: Option<Columns<'_>> = None;
    let mut read = Vec::with_capacity(rows.len());
    for (row, position) in rows.iter().zip(1..) {
        let columns = match &mut columns {
            Some(columns) if std::ptr::eq(columns.names, row.columns()) => columns,
            columns => columns.insert(Columns::new(row.columns())),
        };
        let value = T::deserialize(columns.with(row.values()));
        read.push(value.map_err(|refusal| refusal.into_error(Some(position), columns.names))?);
    }
    Ok(read)
}

/// Deserializes one row.
pub(super) fn deserialize_row<T: DeserializeOwned>(row: &Row) -> Result<T, DbError> {
    let columns = Columns::new(row.columns());
    T::deserialize(columns.with(row.values()))
        .map_err(|refusal| refusal.into_error(None, columns.names))
}

/// Returns the first name that occurs twice.
pub(super) fn duplicate(names: &[String]) -> Option<&str> {
    let mut names = names
        .iter()
        .enumerate()
        .map(|(index, name)| (name, &names[..index]));
    names.find_map(|(name, before)| before.contains(name).then_some(name.as_str()))
}

/// Returns whether two types are the same, as far as their names show. serde passes types that have lifetimes, so there
/// is no `TypeId`.
fn same_type<A: ?Sized, B: ?Sized>() -> bool {
    any::type_name::<A>() == any::type_name::<B>()
}

/// The columns of a result.
struct Columns<'a> {
    names: &'a [String],
    duplicate: Option<&'a str>,
}

impl<'a> Columns<'a> {
    fn new(names: &'a [String]) -> Self {
        let duplicate = duplicate(names);
        Columns { names, duplicate }
    }

    fn with<'r>(&'r self, values: &'r [Value]) -> Cells<'r> {
        let columns = self;
        Cells { columns, values }
    }
}

/// One row: a map of its columns, their sequence, or the value of its only column. The type decides.
#[derive(Clone, Copy)]
struct Cells<'r> {
    columns: &'r Columns<'r>,
    values: &'r [Value],
}

impl<'r> Cells<'r> {
    /// Returns the error for a row that has too many or too few columns.
    fn wrong_count(&self, expected: &dyn Expected) -> Refusal {
        let names = self.columns.names;
        let plural = if names.len() == 1 { "" } else { "s" };
        Refusal::new(format!(
            "the row has {} column{plural} ({}), which cannot be read as {expected}",
            names.len(),
            names.join(", ")
        ))
    }

    /// Reads the only column.
    fn only<'de, V: Visitor<'de>>(
        self,
        visitor: V,
        read: impl FnOnce(Held<'r>, V) -> Result<V::Value, Refusal>,
    ) -> Result<V::Value, Refusal> {
        let ([name], [value]) = (self.columns.names, self.values) else {
            return Err(self.wrong_count(&visitor));
        };
        read(Held::in_field(value), visitor)
            .map_err(|refusal| refusal.of_value::<V::Value>(value.kind()).in_column(name))
    }

    fn tuple<'de, V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Refusal> {
        if length != self.values.len() {
            return Err(self.wrong_count(&visitor));
        }
        visitor.visit_seq(ByPosition::new(self, true))
    }

    /// Reads one column.
    fn read<'de, S: DeserializeSeed<'de>>(
        &self,
        position: usize,
        is_field: bool,
        seed: S,
    ) -> Result<S::Value, Refusal> {
        let (Some(name), Some(value)) =
            (self.columns.names.get(position), self.values.get(position))
        else {
            return Err(Refusal::new("the row has fewer values than columns"));
        };
        seed.deserialize(Held { value, is_field })
            .map_err(|refusal| refusal.of_value::<S::Value>(value.kind()).in_column(name))
    }
}

macro_rules! from_only_column {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
                self.only(visitor, |held, visitor| held.$method(visitor))
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Cells<'_> {
    type Error = Refusal;

    from_only_column! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_unit deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if same_type::<V::Value, BigDecimal>() {
            return self.only(visitor, |held, visitor| held.deserialize_any(visitor));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if let Some(name) = self.columns.duplicate {
            let problem = "several columns have this name; rename all but one with AS";
            return Err(Refusal::new(problem).in_column(name));
        }
        visitor.visit_map(ByName {
            cells: self,
            position: 0,
            is_struct: Cell::new(false),
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        // A `Vec<u8>` is one value, as for `Row::get`.
        if same_type::<V::Value, Vec<u8>>() {
            return self.only(visitor, |held, visitor| held.deserialize_seq(visitor));
        }
        visitor.visit_seq(ByPosition::new(self, false))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.tuple(length, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.tuple(length, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        match self.values {
            [Value::Null] => visitor.visit_none(),
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
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.only(visitor, |held, visitor| {
            held.deserialize_enum(name, variants, visitor)
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_unit()
    }
}

/// A row as a map.
struct ByName<'r> {
    cells: Cells<'r>,
    /// The position of the next column.
    position: usize,
    /// Whether a struct reads the names, and not a map.
    is_struct: Cell<bool>,
}

impl<'de> MapAccess<'de> for ByName<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Refusal> {
        let Some(name) = self.cells.columns.names.get(self.position) else {
            return Ok(None);
        };
        self.position += 1;
        let key = seed.deserialize(Name::of_column(name, &self.is_struct));
        key.map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        self.cells
            .read(self.position - 1, self.is_struct.get(), seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.cells.values.len() - self.position)
    }
}

/// A row as a sequence.
struct ByPosition<'r> {
    cells: Cells<'r>,
    /// The position of the next column.
    position: usize,
    is_tuple: bool,
}

impl<'r> ByPosition<'r> {
    fn new(cells: Cells<'r>, is_tuple: bool) -> Self {
        ByPosition {
            cells,
            position: 0,
            is_tuple,
        }
    }
}

impl<'de> SeqAccess<'de> for ByPosition<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        if self.position == self.cells.values.len() {
            return Ok(None);
        }
        self.position += 1;
        self.cells
            .read(self.position - 1, self.is_tuple, seed)
            .map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.cells.values.len() - self.position)
    }
}
