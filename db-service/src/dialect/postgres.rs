//! Values to and from PostgreSQL.

mod arrays;
mod literals;
mod oid;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::sync::Arc;

use bigdecimal::{BigDecimal, Zero};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Utc};
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSql;
use diesel::internal::derives::multiconnection::AstPassHelper;
use diesel::pg::{Pg, PgConnection, PgRowByRowLoadingMode, PgTypeMetadata, PgValue};
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::Field;
use diesel::sql_types::{self, TypeMetadata};
use uuid::Uuid;

use super::{
    ColumnNames, Dialect, ListText, Literal, LoadError, Place, Placeholder, Statement,
    is_midnight_at_the_end, leap_second, push,
};
use crate::error::DbError;
use crate::sql::ListOperator;
use crate::values::Row;
use crate::values::Value;
use crate::watchdog::AnswerTimeout;
pub(crate) use literals::write_literal;
pub(crate) use oid::{TEXT, VARCHAR};

/// A value for PostgreSQL: typed and in binary format, or typed by its place.
#[derive(Debug)]
pub(crate) enum Bind<'a> {
    /// A NULL of the type with this object identifier; 0 if the server infers the type.
    Null(u32),
    /// A NULL among values that are typed by their place.
    NullOfPlace,
    Bool(bool),
    Int4(i32),
    Int8(i64),
    Float8(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Date(NaiveDate),
    Time(NaiveTime),
    Timestamp(NaiveDateTime),
    TimestampTz(DateTime<Utc>),
    Uuid(Uuid),
    Numeric(&'a BigDecimal),
    Json(&'a str),
    Array(&'a [Value]),
    /// A value that was read, and the object identifier of its type.
    Other(u32, &'a [u8]),
}

impl Dialect for Pg {
    type Bind<'a> = Bind<'a>;

    const PLACEHOLDER: &'static str = "$";

    fn bind(value: &Value) -> Bind<'_> {
        match value {
            Value::Null => Bind::Null(0),
            Value::Bool(value) => Bind::Bool(*value),
            Value::Int(value) => i32::try_from(*value).map_or(Bind::Int8(*value), Bind::Int4),
            Value::Float(value) => Bind::Float8(*value),
            Value::Text(value) => Bind::Text(value),
            Value::Bytes(value) => Bind::Bytes(value),
            Value::Date(value) => Bind::Date(*value),
            Value::Time(value) => Bind::Time(*value),
            // The driver would round times before 2000 up.
            Value::Timestamp(value) => Bind::Timestamp(value.trunc_subsecs(6)),
            Value::TimestampTz(value) => Bind::TimestampTz(value.trunc_subsecs(6)),
            Value::Uuid(value) => Bind::Uuid(*value),
            Value::Decimal(value) => Bind::Numeric(value),
            Value::Json(value) => Bind::Json(value),
            Value::Array(values) => Bind::Array(values),
            Value::Other { oid, bytes } => Bind::Other(*oid, bytes),
        }
    }

    fn bind_list(values: &[Value], _: bool) -> Result<Bind<'_>, &'static str> {
        arrays::check(values)?;
        Ok(Bind::Array(values))
    }

    fn problem(value: &Value) -> Option<&'static str> {
        match value {
            Value::Text(value) | Value::Json(value) if value.contains('\0') => {
                Some("PostgreSQL cannot store text that contains a NUL (0x00)")
            }
            Value::Time(time) => leap_second(time),
            Value::Timestamp(moment) => leap_second(moment),
            Value::TimestampTz(moment) => leap_second(moment),
            Value::Array(values) => arrays::check(values).err(),
            // The server refuses the others that it cannot store.
            _ => None,
        }
    }

    // The literal of an empty array is also an object of JSON.
    fn refusal(bind: &Bind<'_>, place: Place, is_operand: bool) -> Option<&'static str> {
        match (bind, place) {
            (Bind::Array(_), Place::Type(oid::TEXT | oid::BPCHAR | oid::NAME)) => {
                Some("a text takes no array; write the array with a cast, such as :name::int[]")
            }
            (Bind::Array([]), Place::Type(oid::JSON | oid::JSONB)) => {
                Some("JSON takes no array of PostgreSQL; pass a serde_json::Value or Value::Json")
            }
            (Bind::Array([]), Place::Unknown) if !is_operand => Some(
                "PostgreSQL does not infer the type of an empty array here; write an array with a cast, such as '{}'::int[]",
            ),
            _ => None,
        }
    }

    fn literal<'b>(bind: &'b Bind<'_>, place: Place) -> Option<Literal<'b>> {
        let is_of_place = match (bind, place) {
            (_, Place::Any) => return None,
            (Bind::Null(0) | Bind::NullOfPlace, Place::Unknown) => return Some(Literal::Null),
            (Bind::Array(values), _) if arrays::own_type(values).is_some() => true,
            (Bind::Text(_) | Bind::Json(_) | Bind::Array(_), Place::Unknown) => false,
            (Bind::Text(_), Place::Type(oid)) => oid == oid::TEXT,
            (Bind::Json(_), Place::Type(oid)) => matches!(oid, oid::JSON | oid::JSONB | oid::TEXT),
            (Bind::Array(values), Place::Type(oid)) => {
                arrays::fits(values, oid) || arrays::natural_type(values, oid).is_some()
            }
            _ => true,
        };
        match bind {
            _ if is_of_place => None,
            Bind::Text(value) | Bind::Json(value) => Some(Literal::Text(Cow::Borrowed(value))),
            Bind::Array(values) => Some(Literal::Text(Cow::Owned(arrays::literal(values)))),
            _ => None,
        }
    }

    fn list_operator<'b>(
        _: &Bind<'_>,
        operator: ListOperator,
        text: &'b str,
    ) -> Result<ListText<'b>, &'static str> {
        match operator {
            ListOperator::OfRow => Err("a list has no rows, such as (a, b), as elements"),
            operator => Ok(ListText {
                before: list_operator(operator).unwrap_or(text),
                after: "",
            }),
        }
    }

    fn push<'b>(
        bind: &'b Bind<'_>,
        place: Place,
        placeholder: Placeholder,
        out: &mut AstPass<'_, 'b, Self>,
    ) -> QueryResult<()> {
        let oid = match place {
            Place::Type(oid) => oid,
            Place::Any | Place::Unknown => 0,
        };
        match bind {
            Bind::Null(oid) => push_raw(*oid, bind, |_| Ok(None), placeholder, out),
            Bind::NullOfPlace => push_raw(oid, bind, |_| Ok(None), placeholder, out),
            Bind::Bool(value) => push::<Pg, sql_types::Bool, _>(value, placeholder, out),
            Bind::Int4(value) => push::<Pg, sql_types::Integer, _>(value, placeholder, out),
            Bind::Int8(value) => push::<Pg, sql_types::BigInt, _>(value, placeholder, out),
            Bind::Float8(value) => push::<Pg, sql_types::Double, _>(value, placeholder, out),
            Bind::Text(value) => push::<Pg, sql_types::Text, str>(value, placeholder, out),
            Bind::Bytes(value) => push::<Pg, sql_types::Binary, [u8]>(value, placeholder, out),
            Bind::Date(value) => push::<Pg, sql_types::Date, _>(value, placeholder, out),
            Bind::Time(value) => push::<Pg, sql_types::Time, _>(value, placeholder, out),
            Bind::Timestamp(value) => push::<Pg, sql_types::Timestamp, _>(value, placeholder, out),
            Bind::TimestampTz(value) => {
                push::<Pg, sql_types::Timestamptz, _>(value, placeholder, out)
            }
            Bind::Uuid(value) => push::<Pg, sql_types::Uuid, _>(value, placeholder, out),
            Bind::Numeric(value) => match zero(value) {
                Some(zero) => push_raw(oid::NUMERIC, bind, |_| Ok(Some(zero)), placeholder, out),
                None => push::<Pg, sql_types::Numeric, BigDecimal>(value, placeholder, out),
            },
            Bind::Json(value) => {
                let version: &[u8] = if oid == oid::JSONB { &[1] } else { &[] };
                let bytes = |_: &mut _| Ok(Some([version, value.as_bytes()].concat()));
                push_raw(oid, bind, bytes, placeholder, out)
            }
            Bind::Array(values) => {
                let natural = || arrays::natural_type(values, oid);
                let oid = arrays::own_type(values).or_else(natural).unwrap_or(oid);
                let bytes = |lookup: &mut _| arrays::encode(values, oid, lookup).map(Some);
                push_raw(oid, bind, bytes, placeholder, out)
            }
            Bind::Other(oid, bytes) => {
                push_raw(*oid, bind, |_| Ok(Some(bytes.to_vec())), placeholder, out)
            }
        }
    }
}

/// Returns the operator for an array, with its opening parenthesis, where the statement has one for a list. `OPERATOR`
/// binds at least as tightly as `IN`.
pub(crate) fn list_operator(operator: ListOperator) -> Option<&'static str> {
    match operator {
        ListOperator::In => Some("OPERATOR(=) ANY ("),
        ListOperator::NotIn => Some("OPERATOR(<>) ALL ("),
        ListOperator::EqualsAny | ListOperator::OfRow => None,
    }
}

/// The types that the server is asked for.
type Lookup = <Pg as TypeMetadata>::MetadataLookup;

/// Returns a zero with a fraction in binary format. The driver would send `0.00` as `0`.
fn zero(value: &BigDecimal) -> Option<Vec<u8>> {
    let scale = u16::try_from(value.fractional_digit_count()).ok()?;
    let is_zero_with_fraction = value.is_zero() && (1..=MAX_SCALE).contains(&scale);
    // No digits, the weight 0, and the sign `+`.
    is_zero_with_fraction.then(|| [[0; 6].as_slice(), &scale.to_be_bytes()].concat())
}

/// PostgreSQL's `NUMERIC_DSCALE_MAX`.
const MAX_SCALE: u16 = 16_383;

/// Adds a value that has its binary format already.
fn push_raw<'b>(
    oid: u32,
    shown: &'b Bind<'_>,
    bytes: impl FnOnce(&mut Lookup) -> QueryResult<Option<Vec<u8>>>,
    placeholder: Placeholder,
    out: &mut AstPass<'_, 'b, Pg>,
) -> QueryResult<()> {
    if let Some((binds, lookup)) = out.bind_collector() {
        let bytes = bytes(lookup)?;
        // diesel keeps one prepared statement for each combination of these types.
        let array = oid::array_of(oid).unwrap_or(0);
        binds.metadata.push(PgTypeMetadata::new(oid, array));
        binds.binds.push(bytes);
        return Ok(());
    }
    if let Some((binds, _)) = out.debug_binds() {
        binds.push(Box::new(shown));
        return Ok(());
    }
    // The other passes need only the placeholder.
    push::<Pg, sql_types::Integer, i32>(&0, placeholder, out)
}

/// Gives all binds of one parameter in many rows the same type, NULLs included, so that the rows share a prepared
/// statement.
pub(crate) fn unify(column: &mut [&mut Bind<'_>]) {
    let wide = column.iter().any(|bind| matches!(bind, Bind::Int8(_)));
    for bind in column.iter_mut() {
        if let (true, Bind::Int4(value)) = (wide, &**bind) {
            **bind = Bind::Int8(i64::from(*value));
        }
    }
    let oid = column.iter().find_map(|bind| bind.oid());
    let is_of_place = column
        .iter()
        .any(|bind| matches!(bind, Bind::Text(_) | Bind::Json(_) | Bind::Array(_)));
    for bind in column.iter_mut() {
        if let Bind::Null(null) = bind {
            match oid {
                _ if is_of_place => **bind = Bind::NullOfPlace,
                Some(oid) => *null = oid,
                None => {}
            }
        }
    }
}

impl Bind<'_> {
    /// Returns the object identifier of the value's type, if it does not depend on its place.
    fn oid(&self) -> Option<u32> {
        Some(match self {
            Bind::Bool(_) => oid::BOOL,
            Bind::Int4(_) => oid::INT4,
            Bind::Int8(_) => oid::INT8,
            Bind::Float8(_) => oid::FLOAT8,
            Bind::Bytes(_) => oid::BYTEA,
            Bind::Date(_) => oid::DATE,
            Bind::Time(_) => oid::TIME,
            Bind::Timestamp(_) => oid::TIMESTAMP,
            Bind::TimestampTz(_) => oid::TIMESTAMPTZ,
            Bind::Uuid(_) => oid::UUID,
            Bind::Numeric(_) => oid::NUMERIC,
            Bind::Other(oid, _) => *oid,
            Bind::Null(_) | Bind::NullOfPlace | Bind::Text(_) | Bind::Json(_) | Bind::Array(_) => {
                return None;
            }
        })
    }
}

/// Runs a statement and returns all its rows.
pub(crate) fn load(
    connection: &mut PgConnection,
    statement: &Statement<'_, Pg>,
    columns: &ColumnNames,
) -> Result<Vec<Row>, LoadError> {
    let mut names = None;
    LoadConnection::<DefaultLoadingMode>::load(connection, statement)?
        .map(|row| read(&row?, columns, &mut names))
        .collect()
}

/// Runs a statement and passes its rows to `each` as they arrive, with the answer timeout paused. After `each` breaks,
/// the remaining rows are discarded.
pub(crate) fn for_each(
    connection: &mut PgConnection,
    statement: &Statement<'_, Pg>,
    columns: &ColumnNames,
    answer: &AnswerTimeout,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, LoadError> {
    let mut names = None;
    for row in LoadConnection::<PgRowByRowLoadingMode>::load(connection, statement)? {
        let row = read(&row?, columns, &mut names)?;
        if answer.paused(|| each(row)).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Reads a row. All rows share the column names of the first one.
fn read<'a>(
    row: &impl diesel::row::Row<'a, Pg>,
    columns: &ColumnNames,
    names: &mut Option<Arc<[String]>>,
) -> Result<Row, LoadError> {
    let names = match names {
        Some(names) => names,
        none => none.insert(columns.of(row.field_count(), |index, is_name| {
            let field = row.get(index);
            is_name(
                field
                    .as_ref()
                    .and_then(Field::field_name)
                    .unwrap_or_default(),
            )
        })),
    };
    let mut values = Vec::with_capacity(names.len());
    for (index, column) in names.iter().enumerate() {
        let field = row.get(index);
        values.push(match field.as_ref().and_then(Field::value) {
            None => Value::Null,
            Some(value) => decode(value).map_err(|source| DbError::unreadable(column, source))?,
        });
    }
    Ok(Row::from_parts(Arc::clone(names), values))
}

/// Reads a value. Returns an error for values of known types that [`Value`] cannot represent: `infinity`, a year beyond
/// chrono's range, a numeric NaN.
fn decode(value: PgValue<'_>) -> Result<Value, Box<dyn StdError + Send + Sync>> {
    let oid = value.get_oid().get();
    let bytes = value.as_bytes();
    let other = || Value::Other {
        oid,
        bytes: bytes.to_vec(),
    };
    match oid {
        _ if is_midnight_at_the_end(&value) => Ok(other()),
        oid::DATE | oid::TIMESTAMP | oid::TIMESTAMPTZ | oid::NUMERIC => {
            Ok(decode_known(value).unwrap_or_else(|_| other()))
        }
        // A type of the user may be that of an array.
        _ if oid >= oid::FIRST_NORMAL || oid::element_of(oid).is_some() => {
            match arrays::decode(bytes)? {
                Some(array) => Ok(array),
                None => decode_known(value),
            }
        }
        _ => decode_known(value),
    }
}

fn decode_known(value: PgValue<'_>) -> Result<Value, Box<dyn StdError + Send + Sync>> {
    let oid = value.get_oid().get();
    Ok(match oid {
        oid::BOOL => Value::Bool(FromSql::<sql_types::Bool, Pg>::from_sql(value)?),
        oid::INT2 => Value::Int(<i16 as FromSql<sql_types::SmallInt, Pg>>::from_sql(value)?.into()),
        oid::INT4 => Value::Int(<i32 as FromSql<sql_types::Integer, Pg>>::from_sql(value)?.into()),
        oid::INT8 => Value::Int(FromSql::<sql_types::BigInt, Pg>::from_sql(value)?),
        oid::OID => Value::Int(<u32 as FromSql<sql_types::Oid, Pg>>::from_sql(value)?.into()),
        oid::FLOAT4 => {
            Value::Float(<f32 as FromSql<sql_types::Float, Pg>>::from_sql(value)?.into())
        }
        oid::FLOAT8 => Value::Float(FromSql::<sql_types::Double, Pg>::from_sql(value)?),
        oid::TEXT | oid::VARCHAR | oid::BPCHAR | oid::NAME | oid::XML | oid::UNKNOWN => {
            text(value)?
        }
        // One byte, which is 0 for the empty text and need not be a character.
        oid::CHAR if matches!(value.as_bytes(), [0]) => Value::Text(String::new()),
        oid::CHAR if value.as_bytes().is_ascii() => text(value)?,
        oid::VOID => Value::Null,
        oid::BYTEA => Value::Bytes(value.as_bytes().to_vec()),
        oid::DATE => Value::Date(FromSql::<sql_types::Date, Pg>::from_sql(value)?),
        oid::TIME => Value::Time(FromSql::<sql_types::Time, Pg>::from_sql(value)?),
        oid::TIMESTAMP => Value::Timestamp(FromSql::<sql_types::Timestamp, Pg>::from_sql(value)?),
        oid::TIMESTAMPTZ => {
            Value::TimestampTz(FromSql::<sql_types::Timestamptz, Pg>::from_sql(value)?)
        }
        oid::UUID => Value::Uuid(FromSql::<sql_types::Uuid, Pg>::from_sql(value)?),
        oid::NUMERIC => Value::Decimal(FromSql::<sql_types::Numeric, Pg>::from_sql(value)?),
        oid::JSON => Value::Json(std::str::from_utf8(value.as_bytes())?.to_owned()),
        // The first byte is the version of the format.
        oid::JSONB => match value.as_bytes() {
            [1, text @ ..] => Value::Json(std::str::from_utf8(text)?.to_owned()),
            _ => return Err("the format of jsonb has an unknown version".into()),
        },
        // Enums and `citext` send their text. Other types send lengths, versions or flags, which contain control
        // characters.
        oid::FIRST_NORMAL.. if is_text(value.as_bytes()) => text(value)?,
        _ => Value::Other {
            oid,
            bytes: value.as_bytes().to_vec(),
        },
    })
}

fn text(value: PgValue<'_>) -> Result<Value, Box<dyn StdError + Send + Sync>> {
    Ok(Value::Text(
        std::str::from_utf8(value.as_bytes())?.to_owned(),
    ))
}

fn is_text(bytes: &[u8]) -> bool {
    let is_binary = |byte: &u8| byte.is_ascii_control() && !byte.is_ascii_whitespace();
    !bytes.iter().any(is_binary) && std::str::from_utf8(bytes).is_ok()
}
