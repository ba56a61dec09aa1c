//! Why a row or a value could not be deserialized.

use std::any;
use std::fmt;

use serde::de::{self, Expected, Unexpected};

use crate::error::DbError;

/// The reason why a row or a value could not be deserialized. It contains no value: the messages of types, and all parts
/// of serde's messages that quote a value, are dropped.
#[derive(Debug)]
pub(crate) struct Refusal {
    column: Option<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    Kind {
        found: &'static str,
        expected: String,
    },
    Length {
        length: usize,
        expected: String,
    },
    Variant {
        known: &'static [&'static str],
    },
    MissingField(&'static str),
    /// At the top of a row, the name is the column's. In JSON, it is data and not shown.
    UnknownField {
        name: String,
        known: &'static [&'static str],
    },
    DuplicateField(&'static str),
    /// A type refused the value, with a message of its own.
    Refused,
    Text(String),
}

impl Refusal {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Problem::Text(problem.into()).into()
    }

    /// Returns the error for a value of one kind where another is expected.
    pub(super) fn kind(found: &'static str, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        Problem::Kind { found, expected }.into()
    }

    /// Adds the kind of the value that was to be read as a `T`.
    pub(super) fn of_value<T: ?Sized>(self, found: &'static str) -> Self {
        let problem = match self.problem {
            Problem::Text(text) => text,
            Problem::Kind { expected, .. } => format!("{found} cannot be read as {expected}"),
            Problem::Refused => format!("{found} was refused by {}", type_of::<T>()),
            problem => format!("{found} cannot be read: {}", problem.text()),
        };
        Refusal {
            column: self.column,
            problem: Problem::Text(problem),
        }
    }

    /// Marks an error in the JSON that a column holds.
    pub(super) fn in_json<T: ?Sized>(self) -> Self {
        let text = match self.problem {
            Problem::Refused => format!("a value was refused by a type within {}", type_of::<T>()),
            problem => problem.text(),
        };
        Refusal::new(format!("in its JSON, {text}"))
    }

    /// Marks an error in an element of an array.
    pub(super) fn in_array(self) -> Self {
        Refusal::new(format!("in its array, {}", self.problem.text()))
    }

    /// Adds the column, unless it is known.
    pub(super) fn in_column(self, column: &str) -> Self {
        Refusal {
            column: self.column.or_else(|| Some(column.to_owned())),
            ..self
        }
    }

    /// Returns the error for a row, whose position counts from 1.
    pub(super) fn into_error(self, row: Option<u64>, columns: &[String]) -> DbError {
        let (column, problem) = match (self.column, self.problem) {
            (Some(column), problem) => (Some(column), problem.text()),
            (None, Problem::MissingField(field)) => {
                let problem = format!(
                    "there is no such column; the row has {}",
                    columns.join(", ")
                );
                (Some(field.to_owned()), problem)
            }
            (None, Problem::UnknownField { name, known }) => {
                let problem = format!(
                    "no field has this name; the fields are {}",
                    known.join(", ")
                );
                (Some(name), problem)
            }
            (None, problem @ (Problem::Text(_) | Problem::DuplicateField(_))) => {
                (None, problem.text())
            }
            // serde reads the columns of these fields before it knows the field's type.
            (None, problem) => {
                let problem = problem.text();
                (
                    None,
                    format!(
                        "{problem}, in a flattened field, or an enum that is untagged or has a tag"
                    ),
                )
            }
        };
        DbError::Deserialize {
            row,
            column,
            problem,
        }
    }
}

impl Problem {
    fn text(self) -> String {
        match self {
            Problem::Kind { found, expected } => format!("{found} cannot be read as {expected}"),
            Problem::Length { length, expected } => {
                format!("{length} elements cannot be read as {expected}")
            }
            Problem::Variant { known } => format!("the text is none of {}", known.join(", ")),
            Problem::MissingField(field) => format!("the field {field} is missing"),
            Problem::UnknownField { known, .. } => {
                format!("a name is none of the fields {}", known.join(", "))
            }
            Problem::DuplicateField(field) => format!("the field {field} occurs twice"),
            Problem::Refused => "a value was refused by its type".to_owned(),
            Problem::Text(text) => text,
        }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Refusal {
            column: None,
            problem,
        }
    }
}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Problem::Refused.into()
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Refusal::kind(kind(found), expected)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Refusal::kind(kind(found), expected)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        Problem::Length { length, expected }.into()
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Problem::Variant { known }.into()
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let name = name.to_owned();
        Problem::UnknownField { name, known }.into()
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::MissingField(field).into()
    }

    fn duplicate_field(field: &'static str) -> Self {
        Problem::DuplicateField(field).into()
    }
}

// serde requires it. Only `into_error` is shown.
impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the value was refused")
    }
}

impl std::error::Error for Refusal {}

/// Returns the kind of a value without the value.
fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a bool",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a float",
        Unexpected::Char(_) | Unexpected::Str(_) => "text",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "NULL",
        Unexpected::Seq => "a list",
        Unexpected::Map => "an object",
        _ => "a value",
    }
}

/// Returns a type's name without its modules, for errors.
pub(in crate::values) fn type_of<T: ?Sized>() -> String {
    let path = any::type_name::<T>().trim_start_matches('&');
    let parts = path.split_inclusive(|char: char| !char.is_alphanumeric() && char != '_');
    let name: String = parts.filter(|part| !part.ends_with(':')).collect();
    // The type that serde's macros generate for `deserialize_with` and `serialize_with`.
    if name.contains("__") {
        return "the field's function".to_owned();
    }
    name
}
