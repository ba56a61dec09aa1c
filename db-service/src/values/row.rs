//! One row of a result.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::deserialize::deserialize_row;
use super::{FromValue, Value};
use crate::error::DbError;

/// One row of a result. All rows of a result share their column names.
///
/// # Examples
///
/// ```
/// use db_service::{Row, Value};
///
/// let row = Row::new([("id", Value::from(7)), ("name", Value::from("Ada"))]);
/// assert_eq!(row.get::<i64>("id")?, 7);
/// assert_eq!(row["name"], Value::from("Ada"));
/// assert_eq!(row.columns(), ["id", "name"]);
/// assert!(row.get::<i64>("age").is_err());
/// # Ok::<(), db_service::DbError>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Row {
    columns: Arc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// Creates a row, for example as the answer of a fake database.
    pub fn new<N: Into<String>>(columns: impl IntoIterator<Item = (N, Value)>) -> Self {
        let (columns, values): (Vec<String>, Vec<Value>) = columns
            .into_iter()
            .map(|(name, value)| (name.into(), value))
            .unzip();
        Row {
            columns: columns.into(),
            values,
        }
    }

    pub(crate) fn from_parts(columns: Arc<[String]>, values: Vec<Value>) -> Self {
        Row { columns, values }
    }

    /// Returns a column's value as `T`. Use `Option<T>` if it can be NULL.
    ///
    /// If several columns have the same name, the first one is read.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::UnknownColumn`] if there is no such column, and [`DbError::WrongType`] if the value is of
    /// another kind or out of range.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, DbError> {
        let value = self.value(column).ok_or_else(|| DbError::UnknownColumn {
            column: column.to_owned(),
            available: self.columns.to_vec(),
        })?;
        T::from_value(value).ok_or_else(|| DbError::WrongType {
            column: column.to_owned(),
            found: value.kind(),
            expected: T::NAME,
        })
    }

    /// Deserializes the row. [`query_as`](crate::DatabaseService::query_as) describes how.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Deserialize`].
    ///
    /// # Examples
    ///
    /// ```
    /// use db_service::{Row, Value};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Pet {
    ///     id: i64,
    ///     #[serde(rename = "name")]
    ///     called: Option<String>,
    /// }
    ///
    /// let row = Row::new([("id", Value::from(7)), ("name", Value::from("Rex"))]);
    /// let pet: Pet = row.deserialize()?;
    /// assert_eq!((pet.id, pet.called.as_deref()), (7, Some("Rex")));
    /// let (id, name): (i64, String) = row.deserialize()?;
    /// assert_eq!((id, name.as_str()), (7, "Rex"));
    ///
    /// let wrong = row.deserialize::<(i32, bool)>().unwrap_err();
    /// assert_eq!(wrong.to_string(), r#"cannot deserialize column "name": text cannot be read as a boolean"#);
    /// # Ok::<(), db_service::DbError>(())
    /// ```
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, DbError> {
        deserialize_row(self)
    }

    /// Returns the names of the columns, in the order of the statement.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Returns the values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    fn value(&self, column: &str) -> Option<&Value> {
        self.values
            .get(self.columns.iter().position(|name| name == column)?)
    }
}

/// Returns the value of a column, or [`Value::Null`] if there is no such column. [`Row::get`] distinguishes the two.
impl Index<&str> for Row {
    type Output = Value;

    fn index(&self, column: &str) -> &Value {
        static NULL: Value = Value::Null;
        self.value(column).unwrap_or(&NULL)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_map()
            .entries(self.columns.iter().zip(&self.values))
            .finish()
    }
}
