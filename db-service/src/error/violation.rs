//! Conversion of the driver's errors, and the names of violated constraints.

use diesel::result::{DatabaseErrorInformation, DatabaseErrorKind, Error as DieselError};

use super::DbError;
use super::server::{Meaning, ServerError, is_name, is_path, meaning};

/// Converts an error of diesel. An error of this crate that diesel has passed on comes back as it was.
impl From<DieselError> for DbError {
    fn from(error: DieselError) -> Self {
        DbError::at(None, error)
    }
}

impl DbError {
    /// Converts an error of diesel whose position in the caller's text is known.
    pub(crate) fn at(position: Option<usize>, error: DieselError) -> Self {
        let error = match error {
            DieselError::QueryBuilderError(error) => match error.downcast() {
                Ok(error) => return *error,
                Err(error) => DieselError::QueryBuilderError(error),
            },
            DieselError::SerializationError(error) => match error.downcast() {
                Ok(error) => return *error,
                Err(error) => DieselError::SerializationError(error),
            },
            error => error,
        };
        let meaning = meaning(&error);
        let violation = match &error {
            DieselError::DatabaseError(kind, information) => Violation::of(*kind, &**information),
            _ => Violation::default(),
        };
        let Violation {
            constraint,
            table,
            columns,
        } = violation;
        let source = ServerError::at(position, error);
        match meaning {
            Meaning::Unique => DbError::UniqueViolation {
                constraint,
                table,
                columns,
                source,
            },
            Meaning::ForeignKey => DbError::ForeignKeyViolation {
                constraint,
                table,
                source,
            },
            Meaning::NotNull => DbError::NotNullViolation {
                table,
                column: columns.into_iter().next(),
                source,
            },
            Meaning::Check => DbError::CheckViolation {
                constraint,
                table,
                source,
            },
            Meaning::Exclusion => DbError::ExclusionViolation {
                constraint,
                table,
                source,
            },
            Meaning::Conflict => DbError::SerializationFailure(source),
            Meaning::Deadlock => DbError::Deadlock(source),
            Meaning::StatementTimeout => DbError::StatementTimeout(source),
            Meaning::LockTimeout => DbError::LockTimeout(source),
            Meaning::Lost => DbError::ConnectionLost(source),
            Meaning::DiskFull => DbError::DiskFull(source),
            Meaning::ReadOnly => DbError::ReadOnly(source),
            Meaning::Syntax => DbError::Syntax(source),
            Meaning::StalePlan => DbError::StalePlan(source),
            Meaning::Other => DbError::Query(source),
        }
    }
}

/// Wraps an error of this crate for a closure that returns diesel's errors. Its conversion to [`DbError`] unwraps it.
impl From<DbError> for DieselError {
    fn from(error: DbError) -> Self {
        DieselError::QueryBuilderError(Box::new(error))
    }
}

/// The names, never values, that a server reports with a violation.
#[derive(Default)]
pub(crate) struct Violation {
    pub(crate) constraint: Option<String>,
    pub(crate) table: Option<String>,
    pub(crate) columns: Vec<String>,
}

impl Violation {
    pub(crate) fn of(
        kind: DatabaseErrorKind,
        information: &(dyn DatabaseErrorInformation + Send + Sync),
    ) -> Self {
        let name = |text: Option<&str>| text.filter(|text| is_name(text)).map(str::to_owned);
        let (constraint, table) = (
            name(information.constraint_name()),
            name(information.table_name()),
        );
        let column = name(information.column_name());
        // A function that raises an error can set any details, but rarely sets the names too.
        let details = information
            .details()
            .filter(|_| constraint.is_some() && table.is_some());
        let message = information.message();
        let of_sqlite = sqlite_columns(kind, message);
        let columns = match (column, details) {
            (Some(column), _) => vec![column],
            (None, Some(details)) => postgres_columns(details),
            (None, None) => of_sqlite.iter().map(|(_, column)| column.clone()).collect(),
        };
        Violation {
            constraint: constraint.or_else(|| sqlite_check(kind, message)),
            table: table.or_else(|| of_sqlite.into_iter().next().map(|(table, _)| table)),
            columns,
        }
    }
}

/// Parses the columns of `Key (a, "B b", lower(c))=(1, 2, 3) already exists.`, in any language.
///
/// Expressions are skipped, because they may contain constants.
fn postgres_columns(details: &str) -> Vec<String> {
    let Some((_, key)) = details.split_once('(') else {
        return Vec::new();
    };
    let (mut columns, mut start, mut depth) = (Vec::new(), 0, 0);
    let mut quote = None;
    for (at, next) in key.char_indices() {
        match (quote, next) {
            (Some(open), _) if next == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(next),
            (None, '(') => depth += 1,
            (None, ',' | ')') if depth == 0 => {
                columns.extend(column(key[start..at].trim_start()));
                start = at + 1;
                if next == ')' {
                    let is_key = key[start..].starts_with("=(");
                    return if is_key { columns } else { Vec::new() };
                }
            }
            (None, ')') => depth -= 1,
            _ => {}
        }
    }
    Vec::new()
}

/// Parses the name of a column in the definition of an index.
fn column(text: &str) -> Option<String> {
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    match quoted {
        Some(name) => Some(name.replace("\"\"", "\"")),
        None => (is_path(text) && !text.contains('.')).then(|| text.to_owned()),
    }
}

/// Parses `UNIQUE constraint failed: users.username, users.email`.
fn sqlite_columns(kind: DatabaseErrorKind, message: &str) -> Vec<(String, String)> {
    let columns = match kind {
        DatabaseErrorKind::UniqueViolation => message.strip_prefix("UNIQUE constraint failed: "),
        DatabaseErrorKind::NotNullViolation => message.strip_prefix("NOT NULL constraint failed: "),
        _ => None,
    };
    columns
        .filter(|columns| !columns.starts_with("index '"))
        .unwrap_or_default()
        .split(", ")
        .filter_map(|column| column.rsplit_once('.'))
        .map(|(table, column)| (table.to_owned(), column.to_owned()))
        .collect()
}

/// Parses the name in `CHECK constraint failed: pets_legs`.
///
/// SQLite reports the expression of an unnamed constraint. It is skipped, because it may contain constants.
fn sqlite_check(kind: DatabaseErrorKind, message: &str) -> Option<String> {
    (kind == DatabaseErrorKind::CheckViolation)
        .then(|| message.strip_prefix("CHECK constraint failed: "))
        .flatten()
        .filter(|name| is_path(name))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_violation_shows_column_names_and_no_values() {
        for (details, expected) in [
            ("Key (a, b)=(1, 2) already exists.", &["a", "b"][..]),
            ("La clé « (a, b)=(1, 2) » existe déjà.", &["a", "b"]),
            ("Key (a)=(secret)=(x) already exists.", &["a"]),
            (
                "Key (\"A b\", \"c\"\"(\")=(1, 2) already exists.",
                &["A b", "c\"("],
            ),
            (
                "Key (\"a)=(b\", c)=(secret, 2) already exists.",
                &["a)=(b", "c"],
            ),
            ("Key (lower(email::text))=(secret) already exists.", &[]),
            (
                "Key (a, COALESCE(b, 'se)=(cret'::text), c)=(1, 2, 3) already exists.",
                &["a", "c"],
            ),
            ("Key (a, b", &[]),
            ("(a) is not (secret)=(1)", &[]),
            ("secret", &[]),
        ] {
            assert_eq!(postgres_columns(details), expected, "{details}");
        }
    }

    #[test]
    fn sqlite_check_violation_names_its_constraint() {
        let of = |kind, message: &str| Violation::of(kind, &message.to_owned()).constraint;
        let named = "CHECK constraint failed: pets_legs";
        let check = DatabaseErrorKind::CheckViolation;
        assert_eq!(of(check, named).as_deref(), Some("pets_legs"));
        assert_eq!(
            of(check, "CHECK constraint failed: role IN ('secret')"),
            None
        );
        // A trigger raised it.
        assert_eq!(of(DatabaseErrorKind::Unknown, named), None);
    }

    #[test]
    fn sqlite_violation_lists_its_columns() {
        let of = |kind, message: &str| {
            let violation = Violation::of(kind, &message.to_owned());
            (violation.table, violation.columns)
        };
        let unique = DatabaseErrorKind::UniqueViolation;
        let columns = vec!["username".to_owned(), "email".to_owned()];
        assert_eq!(
            of(
                unique,
                "UNIQUE constraint failed: users.username, users.email"
            ),
            (Some("users".to_owned()), columns)
        );
        let none = (None, Vec::new());
        assert_eq!(of(unique, "UNIQUE constraint failed: index 'a.b'"), none);
        let raised = "UNIQUE constraint failed: secret.secret";
        assert_eq!(of(DatabaseErrorKind::Unknown, raised), none);
    }
}
