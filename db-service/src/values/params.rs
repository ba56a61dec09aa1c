//! The parameters of a statement.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::Serialize;

use super::{Value, serialize};
use crate::error::DbError;

/// The named parameters of one statement, created with [`params!`](crate::params). `Debug` shows names and no values.
#[derive(Clone, PartialEq, Default)]
pub struct Params {
    entries: IndexMap<Cow<'static, str>, Value>,
}

impl Params {
    /// Creates an empty set.
    pub fn new() -> Self {
        Params::default()
    }

    /// Adds a parameter, or replaces the one with the same name.
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.entries.insert(name.into(), value.into());
        self
    }

    /// Makes a parameter of each field of a struct, or of each entry of a map whose keys are text. To add more parameters,
    /// use [`with`](Self::with).
    ///
    /// | field | value |
    /// |---|---|
    /// | `None`, `()` | NULL |
    /// | a bool, an integer, a float, text | itself; an integer beyond `i64` is a decimal |
    /// | `Vec<u8>`, `[u8; N]`, `serde_bytes` | bytes |
    /// | a type of chrono or uuid, `BigDecimal`, with their feature `serde` | as in [`params!`](crate::params) |
    /// | a variant without data | its name as text |
    /// | a sequence of single values | an array: a list for `IN (:name)`, or an array of PostgreSQL |
    /// | `serde_json::Value` | JSON; as an entry of a map, its text, number, bool or NULL |
    /// | a struct, a map, a tuple, a variant with data, a sequence of these | JSON |
    /// | a newtype | its content |
    ///
    /// serde does not reveal the element type of an empty sequence. It is an array if the elements are of a type above,
    /// such as in `Vec<i64>` or `Vec<Option<Uuid>>`. If the elements are of a type of yours, it is the JSON `[]`.
    ///
    /// serde shows a `serde_json::Value` or a `Vec<u8>` in a `#[serde(transparent)]` struct like its content: a JSON string
    /// becomes text, and the bytes become a list. Newtypes without this attribute have no such limit.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::Serialize`] if the value is neither a struct nor a map, if two fields have the same name, if JSON
    /// would have to hold NaN or an infinity, and if a type's own `Serialize` fails. It contains no values.
    ///
    /// # Examples
    ///
    /// ```
    /// use db_service::{Params, Value};
    ///
    /// #[derive(serde::Serialize)]
    /// struct Pet {
    ///     name: String,
    ///     kind: Kind,
    ///     born: Option<i32>,
    ///     tags: Vec<String>,
    ///     owner: Owner,
    /// }
    ///
    /// #[derive(serde::Serialize)]
    /// #[serde(rename_all = "lowercase")]
    /// enum Kind {
    ///     Dog,
    ///     Cat,
    /// }
    ///
    /// #[derive(serde::Serialize)]
    /// struct Owner {
    ///     id: i64,
    /// }
    ///
    /// let tags = vec!["big".to_owned()];
    /// let pet = Pet { name: "Rex".to_owned(), kind: Kind::Dog, born: None, tags, owner: Owner { id: 7 } };
    /// let parameters = Params::from_serialize(&pet)?.with("id", 1);
    /// assert_eq!(parameters.get("kind"), Some(&Value::from("dog")));
    /// assert_eq!(parameters.get("born"), Some(&Value::Null));
    /// assert_eq!(parameters.get("tags"), Some(&Value::from(["big"])));
    /// assert_eq!(parameters.get("owner"), Some(&Value::Json(r#"{"id":7}"#.to_owned())));
    /// # Ok::<(), db_service::DbError>(())
    /// ```
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Params, DbError> {
        serialize::params(value)
    }

    /// Returns the value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)
    }

    /// Returns the values, in the order of the names.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries.values()
    }

    /// Returns the names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(Cow::as_ref)
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Params ")?;
        formatter.debug_set().entries(self.names()).finish()
    }
}

/// Creates [`Params`] from names and values: `params! { "id" => 1, "name" => "x", "none" => None::<i32> }`.
///
/// # Examples
///
/// ```
/// use db_service::{Value, params};
///
/// let parameters = params! { "id" => 7, "name" => "Ada" };
/// assert_eq!(parameters.get("id"), Some(&Value::Int(7)));
/// assert_eq!(params! {}.get("id"), None);
/// ```
///
/// Other forms are refused by an error that says what to write:
///
/// ```compile_fail
/// db_service::params! { id: 7 };
/// ```
///
/// ```compile_fail
/// db_service::params! { "id": 7 };
/// ```
///
/// ```compile_fail
/// db_service::params! { "id" = 7 };
/// ```
///
/// ```compile_fail
/// db_service::params! { "id" => 7 "name" => "Ada" };
/// ```
#[macro_export]
macro_rules! params {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Params::new()$(.with($name, $value))*
    };
    ($($other:tt)*) => {{
        ::core::compile_error!(
            "write a text and `=>` before each value, and commas between: params! { \"id\" => 7, \"name\" => \"Ada\" }"
        );
        // The right type, so that the only error is the one above.
        $crate::Params::new()
    }};
}
