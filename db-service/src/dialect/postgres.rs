//! Values to and from PostgreSQL.

use std::error::Error as StdError;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Utc};
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSql;
use diesel::pg::{Pg, PgConnection, PgRowByRowLoadingMode, PgTypeMetadata, PgValue};
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::Field;
use diesel::serialize::{IsNull, Output, ToSql};
use diesel::sql_types::{self, HasSqlType};
use uuid::Uuid;

use super::{
    ColumnNames, Dialect, LoadError, Placeholder, Statement, is_midnight_at_the_end, leap_second,
    push,
};
use crate::error::DbError;
use crate::values::Row;
use crate::values::Value;
use crate::watchdog::AnswerTimeout;

/// A value for PostgreSQL: typed and in binary format.
#[derive(Debug)]
pub(crate) enum Bind<'a> {
    /// A NULL, and the function that binds it.
    Null(BindNull),
    /// A NULL among texts, with the same cast.
    NullText,
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
}

impl Dialect for Pg {
    type Bind<'a> = Bind<'a>;

    const PLACEHOLDER: &'static str = "$";

    fn bind(value: &Value) -> Bind<'_> {
        match value {
            Value::Null => Bind::Null(null::<Unspecified>),
            Value::Bool(value) => Bind::Bool(*value),
            Value::Int(value) => i32::try_from(*value).map_or(Bind::Int8(*value), Bind::Int4),
            Value::Float(value) => Bind::Float8(*value),
            Value::Text(value) => Bind::Text(value),
            Value::Bytes(value) | Value::Other { bytes: value, .. } => Bind::Bytes(value),
            Value::Date(value) => Bind::Date(*value),
            Value::Time(value) => Bind::Time(*value),
            // The driver would round times before 2000 up.
            Value::Timestamp(value) => Bind::Timestamp(value.trunc_subsecs(6)),
            Value::TimestampTz(value) => Bind::TimestampTz(value.trunc_subsecs(6)),
            Value::Uuid(value) => Bind::Uuid(*value),
            Value::Decimal(value) => Bind::Numeric(value),
            Value::Json(value) => Bind::Json(value),
            Value::Array(_) => Bind::Null(null::<Unspecified>),
        }
    }

    // The server refuses other values that it cannot store.
    fn problem(value: &Value) -> Option<&'static str> {
        match value {
            Value::Time(time) => leap_second(time),
            Value::Timestamp(moment) => leap_second(moment),
            Value::TimestampTz(moment) => leap_second(moment),
            Value::Array(values) => values.iter().find_map(Self::problem),
            _ => None,
        }
    }

    fn is_text(bind: &Bind<'_>) -> bool {
        matches!(bind, Bind::Text(_) | Bind::NullText)
    }

    fn push<'b>(
        bind: &'b Bind<'_>,
        placeholder: Placeholder,
        out: &mut AstPass<'_, 'b, Self>,
    ) -> QueryResult<()> {
        match bind {
            Bind::Null(bind) => bind(placeholder, out),
            Bind::NullText => null::<sql_types::Text>(placeholder, out),
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
            Bind::Numeric(value) => {
                push::<Pg, sql_types::Numeric, BigDecimal>(value, placeholder, out)
            }
            Bind::Json(value) => push::<Pg, Jsonb, str>(value, placeholder, out),
        }
    }
}

/// The SQL type `unknown`: the server infers the type from the context, so a NULL fits any column.
#[derive(Debug)]
struct Unspecified;

impl HasSqlType<Unspecified> for Pg {
    fn metadata(_: &mut Self::MetadataLookup) -> PgTypeMetadata {
        PgTypeMetadata::new(0, 0)
    }
}

/// The SQL type `jsonb`, from a text.
#[derive(Debug)]
struct Jsonb;

impl HasSqlType<Jsonb> for Pg {
    fn metadata(lookup: &mut Self::MetadataLookup) -> PgTypeMetadata {
        <Pg as HasSqlType<sql_types::Jsonb>>::metadata(lookup)
    }
}

impl ToSql<Jsonb, Pg> for str {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> diesel::serialize::Result {
        out.write_all(&[1])?;
        out.write_all(self.as_bytes())?;
        Ok(IsNull::No)
    }
}

#[derive(Debug)]
struct Null;

impl<ST> ToSql<ST, Pg> for Null {
    fn to_sql<'b>(&'b self, _: &mut Output<'b, '_, Pg>) -> diesel::serialize::Result {
        Ok(IsNull::Yes)
    }
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
    let null = column.iter().find_map(|bind| bind.null_of_same_type());
    for bind in column.iter_mut() {
        if let (Some(null), Bind::Null(_)) = (&null, &**bind) {
            **bind = match null {
                Bind::Null(null) => Bind::Null(*null),
                _ => Bind::NullText,
            };
        }
    }
}

/// A function that binds a NULL of one type.
type BindNull = for<'a, 'b, 'c> fn(Placeholder, &'a mut AstPass<'b, 'c, Pg>) -> QueryResult<()>;

fn null<ST>(placeholder: Placeholder, out: &mut AstPass<'_, '_, Pg>) -> QueryResult<()>
where
    Pg: HasSqlType<ST>,
    Null: ToSql<ST, Pg>,
{
    push::<Pg, ST, Null>(&Null, placeholder, out)
}

impl Bind<'_> {
    fn null_of_same_type(&self) -> Option<Self> {
        Some(Bind::Null(match self {
            Bind::Null(_) => return None,
            Bind::Text(_) | Bind::NullText => return Some(Bind::NullText),
            Bind::Bool(_) => null::<sql_types::Bool>,
            Bind::Int4(_) => null::<sql_types::Integer>,
            Bind::Int8(_) => null::<sql_types::BigInt>,
            Bind::Float8(_) => null::<sql_types::Double>,
            Bind::Bytes(_) => null::<sql_types::Binary>,
            Bind::Date(_) => null::<sql_types::Date>,
            Bind::Time(_) => null::<sql_types::Time>,
            Bind::Timestamp(_) => null::<sql_types::Timestamp>,
            Bind::TimestampTz(_) => null::<sql_types::Timestamptz>,
            Bind::Uuid(_) => null::<sql_types::Uuid>,
            Bind::Numeric(_) => null::<sql_types::Numeric>,
            Bind::Json(_) => null::<Jsonb>,
        }))
    }
}

/// Runs a statement and returns all its rows.
pub(crate) fn load(
    connection: &mut PgConnection,
    statement: Statement<'_, Pg>,
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
    statement: Statement<'_, Pg>,
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

/// The object identifiers of known types, from PostgreSQL's `pg_type.dat`, where they never change.
mod oid {
    pub(super) const BOOL: u32 = 16;
    pub(super) const BYTEA: u32 = 17;
    pub(super) const CHAR: u32 = 18;
    pub(super) const NAME: u32 = 19;
    pub(super) const INT8: u32 = 20;
    pub(super) const INT2: u32 = 21;
    pub(super) const INT4: u32 = 23;
    pub(super) const TEXT: u32 = 25;
    pub(super) const OID: u32 = 26;
    pub(super) const JSON: u32 = 114;
    pub(super) const XML: u32 = 142;
    pub(super) const FLOAT4: u32 = 700;
    pub(super) const FLOAT8: u32 = 701;
    pub(super) const UNKNOWN: u32 = 705;
    pub(super) const BPCHAR: u32 = 1042;
    pub(super) const VARCHAR: u32 = 1043;
    pub(super) const DATE: u32 = 1082;
    pub(super) const TIME: u32 = crate::dialect::TIME;
    pub(super) const TIMESTAMP: u32 = 1114;
    pub(super) const TIMESTAMPTZ: u32 = 1184;
    pub(super) const NUMERIC: u32 = 1700;
    pub(super) const VOID: u32 = 2278;
    pub(super) const UUID: u32 = 2950;
    pub(super) const JSONB: u32 = 3802;
    /// The first object identifier of types that users or extensions create.
    pub(super) const FIRST_NORMAL: u32 = 16384;
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
