//! A statement with its values, as each backend takes them. diesel prepares each text once per connection.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use diesel::backend::Backend as DieselBackend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::sql_types::Untyped;
use parking_lot::Mutex;

use crate::error::DbError;
#[cfg(feature = "postgres")]
use crate::sql::MAX_TEXT;
use crate::sql::{ParsedStatement, Piece};
use crate::values::Params;
use crate::values::Value;

/// The differences between the backends in how they take values.
pub(crate) trait Dialect: DieselBackend {
    /// A value in the form that the backend's driver takes.
    type Bind<'a>: std::fmt::Debug;

    /// The prefix of the backend's placeholders.
    const PLACEHOLDER: &'static str;

    /// Converts a value for the driver.
    fn bind(value: &Value) -> Self::Bind<'_>;

    /// Returns the reason why the backend would store another value without an error, if there is one.
    fn problem(value: &Value) -> Option<&'static str>;

    /// Returns whether a bind is text that may need a cast to another type.
    fn is_text(bind: &Self::Bind<'_>) -> bool;

    fn push<'b>(bind: &'b Self::Bind<'_>, out: &mut AstPass<'_, 'b, Self>) -> QueryResult<()>
    where
        Self: Sized;
}

/// The reason why a statement's rows could not be loaded.
#[derive(Debug)]
pub(crate) enum LoadError {
    /// The server or the driver failed.
    Driver(DieselError),
    /// A value cannot be represented. The statement was executed.
    Value(DbError),
    /// The values do not fit the statement, so it was not sent.
    NotSent(DbError),
}

impl From<DieselError> for LoadError {
    fn from(error: DieselError) -> Self {
        LoadError::Driver(error)
    }
}

impl From<DbError> for LoadError {
    fn from(error: DbError) -> Self {
        LoadError::Value(error)
    }
}

/// The column names of a statement's last result. They are shared by later results, unless a table was changed
/// meanwhile.
#[derive(Debug, Default)]
pub(crate) struct ColumnNames(Mutex<Option<Arc<[String]>>>);

impl ColumnNames {
    /// Returns the names of a result with `count` columns. `compare` passes the name of a column to its argument.
    pub(crate) fn of(
        &self,
        count: usize,
        compare: impl Fn(usize, &mut dyn FnMut(&str) -> bool) -> bool,
    ) -> Arc<[String]> {
        let mut known = self.0.lock();
        if let Some(known) = &*known
            && known.len() == count
            && (0..count).all(|index| compare(index, &mut |name| name == known[index]))
        {
            return Arc::clone(known);
        }
        let mut names = Vec::with_capacity(count);
        for index in 0..count {
            compare(index, &mut |name| {
                names.push(name.to_owned());
                true
            });
        }
        let names: Arc<[String]> = names.into();
        *known = Some(Arc::clone(&names));
        names
    }
}

/// For each parameter, the PostgreSQL type that text is cast to, or `None` without a cast.
pub(crate) type ParameterCasts = Arc<[Option<String>]>;

/// A statement's text and values, for one backend.
#[derive(Debug)]
pub(crate) struct Statement<'a, D: Dialect> {
    parsed: &'a ParsedStatement,
    /// A text before the statement, such as the declaration of a cursor.
    prefix: &'a str,
    /// How often the statement's row of values is repeated, each time with its own values.
    rows: usize,
    binds: Vec<D::Bind<'a>>,
    casts: Option<ParameterCasts>,
    is_cached: bool,
}

impl<'a, D: Dialect> Statement<'a, D> {
    pub(crate) fn new(
        parsed: &'a ParsedStatement,
        params: &'a Params,
        casts: Option<ParameterCasts>,
    ) -> Result<Self, DbError> {
        let values = values(parsed, params)?;
        for (name, value) in parsed.names.iter().zip(&values) {
            if let Some(problem) = D::problem(value) {
                return Err(DbError::UnstorableValue {
                    name: String::from(&**name),
                    row: None,
                    problem,
                });
            }
        }
        Ok(Statement {
            casts,
            parsed,
            prefix: "",
            rows: 1,
            binds: values.into_iter().map(D::bind).collect(),
            is_cached: parsed.is_cached,
        })
    }

    /// Puts a text before the statement, which is then not kept prepared.
    #[cfg(feature = "postgres")]
    pub(crate) fn unprepared_with_prefix(mut self, prefix: &'a str) -> Self {
        self.prefix = prefix;
        self.is_cached = false;
        self
    }

    /// Creates a statement whose row of values is repeated. `binds` are the values of all rows.
    #[cfg(feature = "postgres")]
    pub(crate) fn of_rows(
        parsed: &'a ParsedStatement,
        rows: usize,
        binds: Vec<D::Bind<'a>>,
        casts: Option<ParameterCasts>,
    ) -> Self {
        let length = |piece: Piece<'_>| match piece {
            Piece::Text(text) => text.len(),
            Piece::Parameter(_) => "$65535".len(),
        };
        let pieces = parsed.pieces();
        let row: usize = match &parsed.row {
            Some(row) => pieces
                .skip(*row.start())
                .take(row.clone().count())
                .map(length)
                .sum(),
            None => 0,
        };
        Statement {
            casts,
            parsed,
            prefix: "",
            rows,
            binds,
            is_cached: parsed.text().len() + row * (rows - 1) <= MAX_TEXT,
        }
    }
}

impl<D: Dialect> Statement<'_, D> {
    /// Returns the cast of a parameter. In a repeated row, the casts repeat too.
    fn cast(&self, index: usize) -> Option<&str> {
        let casts = self.casts.as_ref().filter(|casts| !casts.is_empty())?;
        let cast = casts[index % casts.len()].as_deref()?;
        D::is_text(&self.binds[index]).then_some(cast)
    }

    /// Writes the parameter with the value `index`. `bound` is the number of values that were bound before it.
    fn walk_parameter<'b>(
        &'b self,
        index: usize,
        bound: &mut usize,
        out: &mut AstPass<'_, 'b, D>,
    ) -> QueryResult<()> {
        let cast = self.cast(index);
        if cast.is_some() {
            out.push_sql("CAST(");
        }
        // Names are numbered by their first occurrence, so this parameter's value comes next.
        if index == *bound {
            D::push(&self.binds[index], out)?;
            *bound += 1;
        } else {
            out.push_sql(D::PLACEHOLDER);
            out.push_sql(&(index + 1).to_string());
        }
        if let Some(cast) = cast {
            out.push_sql("::text AS ");
            out.push_sql(cast);
            out.push_sql(")");
        }
        Ok(())
    }
}

/// Returns the parameters' values, in the order of their names in the statement.
pub(crate) fn values<'a>(
    parsed: &ParsedStatement,
    params: &'a Params,
) -> Result<Vec<&'a Value>, DbError> {
    if let Some(name) = params.names().find(|name| !parsed.names.contains(*name)) {
        return Err(DbError::UnusedParameter {
            name: name.to_owned(),
        });
    }
    let value = |name: &Box<str>| {
        params.get(name).ok_or_else(|| DbError::MissingParameter {
            name: String::from(&**name),
        })
    };
    parsed.names.iter().map(value).collect()
}

impl<D: Dialect> QueryFragment<D> for Statement<'_, D> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, D>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(self.prefix);
        let (mut bound, width) = (0, self.parsed.names.len());
        let row_start = self.parsed.row.as_ref().map(|row| *row.start());
        let mut pieces = self.parsed.pieces().enumerate();
        while let Some((position, piece)) = pieces.next() {
            let row = match &self.parsed.row {
                Some(row) if self.rows > 1 && row_start == Some(position) => row,
                _ => {
                    match piece {
                        Piece::Text(text) => out.push_sql(text),
                        Piece::Parameter(index) => {
                            self.walk_parameter(index, &mut bound, &mut out)?;
                        }
                    }
                    continue;
                }
            };
            let length = row.clone().count();
            for number in 0..self.rows {
                if number > 0 {
                    out.push_sql(",");
                }
                for piece in self.parsed.pieces().skip(position).take(length) {
                    match piece {
                        Piece::Text(text) => out.push_sql(text),
                        Piece::Parameter(index) => {
                            self.walk_parameter(number * width + index, &mut bound, &mut out)?;
                        }
                    }
                }
            }
            // The first piece of the row was taken above.
            for _ in 1..length {
                pieces.next();
            }
        }
        Ok(())
    }
}

impl<D: Dialect> QueryId for Statement<'_, D> {
    type QueryId = ();
    // `false` makes diesel look the statement up by the text that `walk_ast` writes.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<D: Dialect> Query for Statement<'_, D> {
    type SqlType = Untyped;
}
