//! A statement with its values, as each backend takes them. diesel prepares each text once per connection.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use diesel::backend::Backend as DieselBackend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::Untyped;

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

/// For each parameter, the PostgreSQL type that text is cast to, or `None` without a cast.
pub(crate) type ParameterCasts = Arc<[Option<String>]>;

/// A statement's text and values, for one backend.
#[derive(Debug)]
pub(crate) struct Statement<'a, D: Dialect> {
    pieces: Vec<Piece<'a>>,
    binds: Vec<D::Bind<'a>>,
    casts: Option<ParameterCasts>,
    is_cached: bool,
}

impl<'a, D: Dialect> Statement<'a, D> {
    pub(crate) fn new(
        parsed: &ParsedStatement<'a>,
        params: &'a Params,
        casts: Option<ParameterCasts>,
    ) -> Result<Self, DbError> {
        let values = values(parsed, params)?;
        for (name, value) in parsed.names.iter().zip(&values) {
            if let Some(problem) = D::problem(value) {
                return Err(DbError::UnstorableValue {
                    name: (*name).to_owned(),
                    row: None,
                    problem,
                });
            }
        }
        Ok(Statement {
            casts,
            pieces: parsed.pieces.clone(),
            binds: values.into_iter().map(D::bind).collect(),
            is_cached: parsed.is_cached,
        })
    }

    #[cfg(feature = "postgres")]
    /// Creates a statement from the caller's pieces. Each bind belongs to one parameter.
    pub(crate) fn from_parts(
        pieces: Vec<Piece<'a>>,
        binds: Vec<D::Bind<'a>>,
        casts: Option<ParameterCasts>,
    ) -> Self {
        let length = |piece: &Piece<'_>| match piece {
            Piece::Text(text) => text.len(),
            Piece::Parameter(_) => "$65535".len(),
        };
        Statement {
            casts,
            is_cached: pieces.iter().map(length).sum::<usize>() <= MAX_TEXT,
            pieces,
            binds,
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
}

/// Returns the parameters' values, in the order of their names in the statement.
pub(crate) fn values<'a>(
    parsed: &ParsedStatement<'_>,
    params: &'a Params,
) -> Result<Vec<&'a Value>, DbError> {
    if let Some(name) = params.names().find(|name| !parsed.names.contains(name)) {
        return Err(DbError::UnusedParameter {
            name: name.to_owned(),
        });
    }
    let value = |name: &&str| {
        params.get(name).ok_or_else(|| DbError::MissingParameter {
            name: (*name).to_owned(),
        })
    };
    parsed.names.iter().map(value).collect()
}

impl<D: Dialect> QueryFragment<D> for Statement<'_, D> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, D>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
        let mut bound = 0;
        for piece in &self.pieces {
            match *piece {
                Piece::Text(text) => out.push_sql(text),
                Piece::Parameter(index) => {
                    let cast = self.cast(index);
                    if cast.is_some() {
                        out.push_sql("CAST(");
                    }
                    // Names are numbered by their first occurrence, so this parameter's value comes next.
                    if index == bound {
                        D::push(&self.binds[index], &mut out)?;
                        bound += 1;
                    } else {
                        out.push_sql(D::PLACEHOLDER);
                        out.push_sql(&(index + 1).to_string());
                    }
                    if let Some(cast) = cast {
                        out.push_sql("::text AS ");
                        out.push_sql(cast);
                        out.push_sql(")");
                    }
                }
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
