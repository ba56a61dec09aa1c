//! Arrays to and from PostgreSQL's binary format: the number of dimensions, a flag for NULLs, the type of the elements,
//! a length and a first position for each dimension, and each element with its length in bytes, or -1 for NULL.

use std::error::Error as StdError;
use std::num::NonZeroU32;

use chrono::SubsecRound;
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::BindCollector;
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::result::{Error as DieselError, QueryResult};
use diesel::sql_types;

use super::literals::write_array;
use super::{Lookup, oid};
use crate::dialect::Dialect;
use crate::values::Value;

/// PostgreSQL's `MAXDIM`.
const MAX_DIMENSIONS: usize = 6;

/// Returns an error for an array that PostgreSQL cannot store.
pub(super) fn check(values: &[Value]) -> Result<(), &'static str> {
    lengths(values, 1)?;
    let leaves = leaves(values);
    if let Some(problem) = leaves.iter().find_map(|value| Pg::problem(value)) {
        return Err(problem);
    }
    let has_other = leaves
        .iter()
        .any(|value| matches!(value, Value::Other { .. }));
    if has_other && own_type(values).is_none() {
        return Err(
            "the elements of the array have different types, or no known type; write the array as a text",
        );
    }
    Ok(())
}

/// Returns the length of each dimension.
fn lengths(values: &[Value], depth: usize) -> Result<Vec<usize>, &'static str> {
    if depth > MAX_DIMENSIONS {
        return Err("an array of PostgreSQL has at most 6 dimensions");
    }
    let mut rows = values.iter().map(|value| match value {
        Value::Array(values) if values.is_empty() => {
            Err("PostgreSQL has no arrays of empty arrays")
        }
        Value::Array(values) => lengths(values, depth + 1),
        _ => Ok(Vec::new()),
    });
    let Some(first) = rows.next().transpose()? else {
        return Ok(Vec::new());
    };
    for row in rows {
        if row? != first {
            return Err("the rows of the array have different lengths");
        }
    }
    Ok([vec![values.len()], first].concat())
}

/// Returns the elements of all dimensions.
fn leaves(values: &[Value]) -> Vec<&Value> {
    let mut found = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::Array(values) => found.extend(leaves(values)),
            value => found.push(value),
        }
    }
    found
}

/// Returns the type of an array whose elements were read as [`Value::Other`], and so have a type of their own.
pub(super) fn own_type(values: &[Value]) -> Option<u32> {
    let leaves = leaves(values);
    let element = leaves.iter().find_map(|value| match value {
        Value::Other { oid, .. } => Some(*oid),
        _ => None,
    })?;
    oid::array_of(element).filter(|_| leaves.iter().all(|value| is_of(value, element)))
}

/// Returns the type of an array that is sent as it is to a place of another type, because its literal there could lose
/// the time of a timestamp, or refuse a whole list for one integer that is out of range.
pub(super) fn natural_type(values: &[Value], place: u32) -> Option<u32> {
    let leaves = leaves(values);
    let all = |is: fn(&Value) -> bool| leaves.iter().all(|value| value.is_null() || is(value));
    let has_value = leaves.iter().any(|value| !value.is_null());
    let is_integer = matches!(oid::element_of(place), Some(oid::INT2 | oid::INT4));
    if !has_value || fits(values, place) {
        None
    } else if all(|value| matches!(value, Value::Timestamp(_))) {
        oid::array_of(oid::TIMESTAMP)
    } else if all(|value| matches!(value, Value::TimestampTz(_))) {
        oid::array_of(oid::TIMESTAMPTZ)
    } else if is_integer && all(|value| matches!(value, Value::Int(_))) {
        oid::array_of(oid::INT8)
    } else {
        None
    }
}

/// Returns whether each element is sent as an element of this array type.
pub(super) fn fits(values: &[Value], array: u32) -> bool {
    let element = oid::element_of(array);
    element.is_some_and(|element| leaves(values).iter().all(|value| is_of(value, element)))
}

/// Returns whether a value is sent exactly as this type.
fn is_of(value: &Value, element: u32) -> bool {
    match (value, element) {
        (Value::Null, _) => true,
        (Value::Int(value), oid::INT2) => i16::try_from(*value).is_ok(),
        (Value::Int(value), oid::INT4) => i32::try_from(*value).is_ok(),
        (Value::Other { oid, .. }, _) => *oid == element,
        (Value::Bool(_), oid::BOOL)
        | (Value::Int(_), oid::INT8)
        | (Value::Float(_), oid::FLOAT8)
        | (Value::Text(_), oid::TEXT | oid::VARCHAR)
        | (Value::Bytes(_), oid::BYTEA)
        | (Value::Date(_), oid::DATE)
        | (Value::Time(_), oid::TIME)
        | (Value::Timestamp(_), oid::TIMESTAMP)
        | (Value::TimestampTz(_), oid::TIMESTAMPTZ)
        | (Value::Uuid(_), oid::UUID)
        | (Value::Decimal(_), oid::NUMERIC)
        | (Value::Json(_), oid::JSON | oid::JSONB) => true,
        _ => false,
    }
}

/// Returns the array as a literal. The caller has checked the array.
pub(super) fn literal(values: &[Value]) -> String {
    let mut text = String::new();
    let _ = write_array(values, &mut text);
    text
}

/// Encodes an array of this type, for which its elements are fit.
pub(super) fn encode(values: &[Value], array: u32, lookup: &mut Lookup) -> QueryResult<Vec<u8>> {
    let invalid = |what: &'static str| DieselError::SerializationError(what.into());
    let element = oid::element_of(array).ok_or_else(|| invalid("unknown type of an array"))?;
    let lengths = lengths(values, 1).map_err(invalid)?;
    let leaves = leaves(values);
    let has_null = leaves.iter().any(|value| value.is_null());
    let mut out = Vec::with_capacity(20 + leaves.len() * 12);
    out.extend((lengths.len() as i32).to_be_bytes());
    out.extend(i32::from(has_null).to_be_bytes());
    out.extend(element.to_be_bytes());
    for length in lengths {
        let length = i32::try_from(length).map_err(|_| invalid("the array is too long"))?;
        out.extend(length.to_be_bytes());
        out.extend(1_i32.to_be_bytes());
    }
    for leaf in leaves {
        match leaf {
            Value::Null | Value::Array(_) => out.extend((-1_i32).to_be_bytes()),
            Value::Int(value) if element == oid::INT2 => {
                put_element(&mut out, &(*value as i16).to_be_bytes())?;
            }
            Value::Int(value) if element == oid::INT4 => {
                put_element(&mut out, &(*value as i32).to_be_bytes())?;
            }
            Value::Int(value) => put_element(&mut out, &value.to_be_bytes())?,
            Value::Text(value) => put_element(&mut out, value.as_bytes())?,
            Value::Bytes(bytes) | Value::Other { bytes, .. } => put_element(&mut out, bytes)?,
            // The first byte of `jsonb` is the version of its format.
            Value::Json(value) if element == oid::JSONB => {
                put_element(&mut out, &[&[1], value.as_bytes()].concat())?;
            }
            Value::Json(value) => put_element(&mut out, value.as_bytes())?,
            value => put_element(&mut out, &by_driver(value, lookup)?)?,
        }
    }
    Ok(out)
}

/// Adds an element with its length.
fn put_element(out: &mut Vec<u8>, bytes: &[u8]) -> QueryResult<()> {
    let length = i32::try_from(bytes.len());
    let length = length.map_err(|error| DieselError::SerializationError(error.into()))?;
    out.extend(length.to_be_bytes());
    out.extend(bytes);
    Ok(())
}

/// Returns the bytes that the driver sends for a value.
fn by_driver(value: &Value, lookup: &mut Lookup) -> QueryResult<Vec<u8>> {
    let mut binds = RawBytesBindCollector::<Pg>::new();
    match value {
        Value::Bool(value) => binds.push_bound_value::<sql_types::Bool, _>(value, lookup)?,
        Value::Float(value) => binds.push_bound_value::<sql_types::Double, _>(value, lookup)?,
        Value::Date(value) => binds.push_bound_value::<sql_types::Date, _>(value, lookup)?,
        Value::Time(value) => binds.push_bound_value::<sql_types::Time, _>(value, lookup)?,
        Value::Timestamp(value) => {
            // The driver would round times before 2000 up.
            binds.push_bound_value::<sql_types::Timestamp, _>(&value.trunc_subsecs(6), lookup)?;
        }
        Value::TimestampTz(value) => {
            binds.push_bound_value::<sql_types::Timestamptz, _>(&value.trunc_subsecs(6), lookup)?;
        }
        Value::Uuid(value) => binds.push_bound_value::<sql_types::Uuid, _>(value, lookup)?,
        Value::Decimal(value) => {
            if let Some(zero) = super::zero(value) {
                return Ok(zero);
            }
            binds.push_bound_value::<sql_types::Numeric, _>(value, lookup)?;
        }
        _ => {}
    }
    let bytes = binds.binds.pop().flatten();
    bytes.ok_or_else(|| DieselError::SerializationError("a value has no binary format".into()))
}

/// Decodes an array. Returns `None` if it is none, or if [`Value::Array`] cannot represent it: its positions do not begin
/// at 1, or its elements have a type that is not known.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<Value>, Box<dyn StdError + Send + Sync>> {
    let Some((element, lengths, elements)) = parts(bytes) else {
        return Ok(None);
    };
    let mut values = Vec::with_capacity(elements.len());
    for element_bytes in elements {
        values.push(match element_bytes {
            None => Value::Null,
            Some(bytes) => super::decode(PgValue::new(bytes, &element))?,
        });
    }
    let is_unknown =
        |value: &Value| matches!(value, Value::Other { oid, .. } if oid::array_of(*oid).is_none());
    if values.iter().any(is_unknown) {
        return Ok(None);
    }
    // From the innermost dimension to the second one.
    for length in lengths.iter().skip(1).rev() {
        let mut rest = values.into_iter();
        let mut rows = Vec::new();
        loop {
            let row: Vec<_> = rest.by_ref().take(*length).collect();
            if row.is_empty() {
                break;
            }
            rows.push(Value::Array(row));
        }
        values = rows;
    }
    Ok(Some(Value::Array(values)))
}

/// The type of an array's elements, the length of each dimension, and the elements.
type Parts<'a> = (NonZeroU32, Vec<usize>, Vec<Option<&'a [u8]>>);

/// Splits an array. Returns `None` if the bytes are no array, or if its positions do not begin at 1.
fn parts(mut bytes: &[u8]) -> Option<Parts<'_>> {
    let mut next = |length: usize| {
        let (part, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        Some(part)
    };
    let number = |part: &[u8]| Some(i32::from_be_bytes(part.try_into().ok()?));
    let dimensions = usize::try_from(number(next(4)?)?).ok()?;
    let has_null = number(next(4)?)?;
    let element = NonZeroU32::new(number(next(4)?)? as u32)?;
    if dimensions > MAX_DIMENSIONS || !matches!(has_null, 0 | 1) {
        return None;
    }
    let mut lengths = Vec::with_capacity(dimensions);
    for _ in 0..dimensions {
        let length = usize::try_from(number(next(4)?)?).ok()?;
        if length == 0 || number(next(4)?)? != 1 {
            return None;
        }
        lengths.push(length);
    }
    let count = lengths
        .iter()
        .try_fold(1_usize, |count, length| count.checked_mul(*length))?;
    let count = if dimensions == 0 { 0 } else { count };
    let mut elements = Vec::new();
    for _ in 0..count {
        elements.push(match number(next(4)?)? {
            -1 => None,
            length => Some(next(usize::try_from(length).ok()?)?),
        });
    }
    bytes.is_empty().then_some((element, lengths, elements))
}
