//! Values to and from SQLite.

mod exact;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::Timelike;
use diesel::connection::{DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSql;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::{Field, Row as _};
use diesel::serialize::{IsNull, Output};
use diesel::sql_types;
use diesel::sqlite::{Sqlite, SqliteConnection, SqliteType, SqliteValue};

pub(crate) use exact::{Conversions, check_exact, is_exact_everywhere, rounding};

use super::{ColumnNames, Dialect, LoadError, Placeholder, Statement, push};
use crate::error::DbError;
use crate::values::Row;
use crate::values::Value;

/// A value for SQLite, in one of its five storage classes.
#[derive(Debug)]
pub(crate) enum Bind<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
}

impl Dialect for Sqlite {
    type Bind<'a> = Bind<'a>;

    const PLACEHOLDER: &'static str = "?";

    fn bind(value: &Value) -> Bind<'_> {
        let text = |text: String| Bind::Text(Cow::Owned(text));
        match value {
            Value::Null => Bind::Null,
            Value::Bool(value) => Bind::Integer(i64::from(*value)),
            Value::Int(value) => Bind::Integer(*value),
            Value::Float(value) => Bind::Real(*value),
            Value::Text(value) => Bind::Text(Cow::Borrowed(value)),
            Value::Bytes(value) | Value::Other { bytes: value, .. } => Bind::Blob(value),
            Value::Date(value) => text(value.to_string()),
            Value::Time(value) => text(value.to_string()),
            // In the form of `CURRENT_TIMESTAMP`, with a fraction if there is one. A shorter fraction is the beginning of
            // a longer one, so texts sort like times.
            Value::Timestamp(value) => text(value.to_string()),
            Value::TimestampTz(value) => text(value.naive_utc().to_string()),
            Value::Uuid(value) => text(value.to_string()),
            Value::Decimal(value) => text(value.to_plain_string()),
            Value::Json(value) => Bind::Text(Cow::Borrowed(value)),
            // `problem` refuses it.
            Value::Array(_) => Bind::Null,
        }
    }

    fn problem(value: &Value) -> Option<&'static str> {
        match value {
            Value::Time(value) => leap_second_elsewhere(value),
            Value::Timestamp(value) => leap_second_elsewhere(value),
            Value::TimestampTz(value) => leap_second_elsewhere(value),
            Value::Float(value) if value.is_nan() => {
                Some("SQLite would make NULL of what is not a number")
            }
            Value::Array(_) => Some("SQLite has no arrays; a list can only be used in IN (:name)"),
            _ => None,
        }
    }

    // Each column takes values of each type.
    fn is_text(_: &Bind<'_>) -> bool {
        false
    }

    fn push<'b>(
        bind: &'b Bind<'_>,
        placeholder: Placeholder,
        out: &mut AstPass<'_, 'b, Self>,
    ) -> QueryResult<()> {
        match bind {
            Bind::Null => push::<Sqlite, sql_types::Nullable<sql_types::BigInt>, Option<i64>>(
                &None,
                placeholder,
                out,
            ),
            Bind::Integer(value) => push::<Sqlite, sql_types::BigInt, _>(value, placeholder, out),
            Bind::Real(value) => push::<Sqlite, sql_types::Double, _>(value, placeholder, out),
            Bind::Text(value) => {
                push::<Sqlite, sql_types::Text, str>(value.as_ref(), placeholder, out)
            }
            Bind::Blob(value) => push::<Sqlite, sql_types::Binary, [u8]>(value, placeholder, out),
        }
    }
}

/// Returns the reason why a time cannot be written, if it is a leap second that does not follow the second 59. Its text
/// would denote another time.
fn leap_second_elsewhere(time: &impl Timelike) -> Option<&'static str> {
    (time.nanosecond() >= 1_000_000_000 && time.second() != 59)
        .then_some("it is a leap second that does not follow the second 59")
}

/// Runs a statement and returns all its rows.
pub(crate) fn load(
    connection: &mut SqliteConnection,
    statement: Statement<'_, Sqlite>,
    columns: &ColumnNames,
) -> Result<Vec<Row>, LoadError> {
    let mut rows = Vec::new();
    for_each(connection, statement, columns, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// Runs a statement and passes its rows to `each`, until `each` breaks.
pub(crate) fn for_each(
    connection: &mut SqliteConnection,
    statement: Statement<'_, Sqlite>,
    columns: &ColumnNames,
    each: &mut dyn FnMut(Row) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    let mut names: Option<Arc<[String]>> = None;
    for row in LoadConnection::<DefaultLoadingMode>::load(connection, statement)? {
        let row = row?;
        let names = match &mut names {
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
                Some(value) => {
                    decode(value).map_err(|source| DbError::unreadable(column, source))?
                }
            });
        }
        if each(Row::from_parts(Arc::clone(names), values)).is_break() {
            break;
        }
    }
    Ok(())
}

/// Writes a value in the form that SQLite stores it in, for diesel's DSL.
pub(crate) fn set(value: &Value, out: &mut Output<'_, '_, Sqlite>) -> diesel::serialize::Result {
    if let Some(problem) = Sqlite::problem(value) {
        return Err(Box::new(DbError::unstorable_in_query(problem)));
    }
    match Sqlite::bind(value) {
        Bind::Null => return Ok(IsNull::Yes),
        Bind::Integer(value) => out.set_value(value),
        Bind::Real(value) => out.set_value(value),
        Bind::Text(value) => out.set_value(value.into_owned()),
        Bind::Blob(value) => out.set_value(value.to_vec()),
    }
    Ok(IsNull::No)
}

/// Reads a value in its storage class.
pub(crate) fn decode(
    value: SqliteValue<'_, '_, '_>,
) -> Result<Value, Box<dyn StdError + Send + Sync>> {
    Ok(match value.value_type() {
        None => Value::Null,
        Some(SqliteType::SmallInt | SqliteType::Integer | SqliteType::Long) => {
            Value::Int(FromSql::<sql_types::BigInt, Sqlite>::from_sql(value)?)
        }
        Some(SqliteType::Float | SqliteType::Double) => {
            Value::Float(FromSql::<sql_types::Double, Sqlite>::from_sql(value)?)
        }
        Some(SqliteType::Text) => Value::Text(FromSql::<sql_types::Text, Sqlite>::from_sql(value)?),
        Some(SqliteType::Binary) => {
            Value::Bytes(FromSql::<sql_types::Binary, Sqlite>::from_sql(value)?)
        }
    })
}
