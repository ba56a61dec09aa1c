//! The parameters of a statement.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;

use super::Value;

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

    /// Returns the value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)
    }

    /// Returns the values.
    #[cfg(feature = "sqlite")]
    pub(crate) fn values(&self) -> impl Iterator<Item = &Value> {
        self.entries.values()
    }

    /// Returns whether a value is text.
    pub(crate) fn has_text(&self) -> bool {
        let mut values = self.entries.values();
        values.any(|value| matches!(value, Value::Text(_)))
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
#[macro_export]
macro_rules! params {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Params::new()$(.with($name, $value))*
    };
}
