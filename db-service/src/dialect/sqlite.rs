//! Values to and from SQLite.

mod exact;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::Timelike;
use diesel::connection::{Connection as _, DefaultLoadingMode, LoadConnection};
use diesel::deserialize::FromSql;
use diesel::query_builder::AstPass;
use diesel::result::QueryResult;
use diesel::row::{Field, Row as _};
use diesel::serialize::{IsNull, Output};
use diesel::sql_types;
use diesel::sqlite::{Sqlite, SqliteConnection, SqliteType, SqliteValue};

use super::{
    ColumnNames, Dialect, ListText, Literal, LoadError, Place, Placeholder, Statement, push,
};
use crate::error::DbError;
use crate::sql::ListOperator;
use crate::values::Row;
use crate::values::Value;
pub(crate) use exact::{Conversions, check_exact, is_exact_everywhere, rounding};

/// A value for SQLite, in one of its five storage classes.
#[derive(Debug)]
pub(crate) enum Bind<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(Cow<'a, str>),
    Blob(&'a [u8]),
    /// A list as a JSON array.
    List {
        json: String,
        /// Whether the elements are bytes in hexadecimal digits.
        is_hex: bool,
    },
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
            Value::Array(_) => Some(NO_ARRAYS),
            _ => None,
        }
    }

    fn bind_list(values: &[Value], is_operand: bool) -> Result<Bind<'_>, &'static str> {
        if is_operand {
            list(values)
        } else {
            Err(NO_ARRAYS)
        }
    }

    fn refusal(_: &Bind<'_>, _: Place, _: bool) -> Option<&'static str> {
        None
    }

    // Each column takes values of each type.
    fn literal<'b>(_: &'b Bind<'_>, _: Place) -> Option<Literal<'b>> {
        None
    }

    fn list_operator<'b>(
        bind: &Bind<'_>,
        operator: ListOperator,
        _: &'b str,
    ) -> Result<ListText<'b>, &'static str> {
        let is_hex = matches!(bind, Bind::List { is_hex: true, .. });
        // A plain `value` would be a column, with an affinity that a parameter does not have.
        Ok(ListText {
            before: match (operator, is_hex) {
                (ListOperator::In | ListOperator::EqualsAny, false) => {
                    "IN (SELECT +value FROM json_each("
                }
                (ListOperator::In | ListOperator::EqualsAny, true) => {
                    "IN (SELECT unhex(value) FROM json_each("
                }
                (ListOperator::NotIn, false) => "NOT IN (SELECT +value FROM json_each(",
                (ListOperator::NotIn, true) => "NOT IN (SELECT unhex(value) FROM json_each(",
                (ListOperator::OfRow, _) => {
                    return Err("a list has no rows, such as (a, b), as elements");
                }
            },
            after: ")",
        })
    }

    fn push<'b>(
        bind: &'b Bind<'_>,
        _: Place,
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
            Bind::List { json, .. } => {
                push::<Sqlite, sql_types::Text, str>(json.as_str(), placeholder, out)
            }
        }
    }
}

const NO_ARRAYS: &str =
    "SQLite has no arrays; a list is only accepted as IN (:name), NOT IN (:name) or = ANY (:name)";

/// Returns a list as a JSON array, whose elements have the forms in which SQLite stores them.
fn list(values: &[Value]) -> Result<Bind<'_>, &'static str> {
    let is_bytes = |value| matches!(Sqlite::bind(value), Bind::Blob(_));
    let is_hex = values.iter().any(is_bytes);
    let mut json = String::from("[");
    for value in values {
        if json.len() > 1 {
            json.push(',');
        }
        if let Some(problem) = Sqlite::problem(value) {
            return Err(problem);
        }
        // Writing to a string cannot fail.
        let _ = match Sqlite::bind(value) {
            Bind::Null => write!(json, "null"),
            Bind::Blob(bytes) => {
                json.push('"');
                let _ = bytes.iter().try_for_each(|byte| write!(json, "{byte:02x}"));
                json.push('"');
                Ok(())
            }
            _ if is_hex => return Err("a list of bytes has elements of another type"),
            Bind::Integer(value) => write!(json, "{value}"),
            // SQLite reads `9e999` as infinity.
            Bind::Real(value) if value.is_infinite() => {
                write!(json, "{}9e999", if value < 0.0 { "-" } else { "" })
            }
            Bind::Real(value) => write!(json, "{value:e}"),
            Bind::Text(text) if text.contains('\0') => {
                return Err("SQLite cuts a text in a list at its first NUL");
            }
            Bind::Text(text) => write!(json, "{}", serde_json::Value::from(text.as_ref())),
            Bind::List { .. } => return Err(NO_ARRAYS),
        };
    }
    json.push(']');
    Ok(Bind::List { json, is_hex })
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

/// Runs a statement to its end and returns the number of rows that the last statement with changes has changed.
///
/// With rows in its result, a statement commits, and can fail, after the last of them. diesel's count reads only the
/// first one.
pub(crate) fn count(
    connection: &mut SqliteConnection,
    statement: &Statement<'_, Sqlite>,
) -> QueryResult<usize> {
    if statement.is_done_without_rows() {
        return connection.execute_returning_count(statement);
    }
    for row in LoadConnection::<DefaultLoadingMode>::load(connection, statement)? {
        row?;
    }
    connection.execute_returning_count(&diesel::sql_query("SELECT 1"))
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
        Bind::List { json, .. } => out.set_value(json),
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
