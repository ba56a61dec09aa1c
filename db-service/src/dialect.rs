//! A statement with its values, as each backend takes them. diesel prepares each text once per connection.

#[cfg(feature = "postgres")]
pub(crate) mod postgres;
#[cfg(feature = "sqlite")]
pub(crate) mod sqlite;

use std::sync::Arc;

use chrono::Timelike;
use diesel::backend::Backend as DieselBackend;
use diesel::pg::PgValue;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::serialize::ToSql;
use diesel::sql_types::{HasSqlType, Untyped};
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

    /// Adds a value to the statement, with its placeholder unless the text contains it already.
    fn push<'b>(
        bind: &'b Self::Bind<'_>,
        placeholder: Placeholder,
        out: &mut AstPass<'_, 'b, Self>,
    ) -> QueryResult<()>
    where
        Self: Sized;
}

/// Whether the text of a statement contains the placeholder of a value already.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Placeholder {
    Missing,
    Written,
}

/// Adds a value of the SQL type `ST` to a statement.
fn push<'b, D, ST, T>(
    value: &'b T,
    placeholder: Placeholder,
    out: &mut AstPass<'_, 'b, D>,
) -> QueryResult<()>
where
    D: DieselBackend + HasSqlType<ST>,
    T: ToSql<ST, D> + ?Sized,
{
    match placeholder {
        Placeholder::Missing => out.push_bind_param::<ST, T>(value),
        Placeholder::Written => out.push_bind_param_value_only::<ST, T>(value),
    }
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
        check_names(parsed, params)?;
        let mut binds = Vec::with_capacity(parsed.names.len());
        for name in &parsed.names {
            let value = value(name, params)?;
            if let Some(problem) = D::problem(value) {
                return Err(DbError::UnstorableValue {
                    name: String::from(&**name),
                    row: None,
                    problem,
                });
            }
            binds.push(D::bind(value));
        }
        Ok(Statement {
            casts,
            parsed,
            prefix: "",
            rows: 1,
            binds,
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

    /// Returns whether no parameter has a cast.
    fn casts_nothing(&self) -> bool {
        self.casts.is_none() || (0..self.binds.len()).all(|index| self.cast(index).is_none())
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
            D::push(&self.binds[index], Placeholder::Missing, out)?;
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

/// The object identifier of PostgreSQL's type `time`, from `pg_type.dat`.
pub(crate) const TIME: u32 = 1083;

/// Returns whether a value of PostgreSQL is the time 24:00, which the driver would read as 00:00.
pub(crate) fn is_midnight_at_the_end(value: &PgValue<'_>) -> bool {
    const MIDNIGHT_AT_THE_END: [u8; 8] = 86_400_000_000_i64.to_be_bytes();
    value.get_oid().get() == TIME && value.as_bytes() == MIDNIGHT_AT_THE_END
}

/// Returns the reason why PostgreSQL cannot store a time, if it is a leap second.
pub(crate) fn leap_second(time: &impl Timelike) -> Option<&'static str> {
    (time.nanosecond() >= 1_000_000_000).then_some(
        "PostgreSQL has no leap seconds and would store the next minute; use the second 59",
    )
}

/// Returns the parameters' values, in the order of their names in the statement.
#[cfg(feature = "postgres")]
pub(crate) fn values<'a>(
    parsed: &ParsedStatement,
    params: &'a Params,
) -> Result<Vec<&'a Value>, DbError> {
    check_names(parsed, params)?;
    let values = parsed.names.iter();
    values.map(|name| value(name, params)).collect()
}

/// Returns an error for a parameter that the statement does not name.
fn check_names(parsed: &ParsedStatement, params: &Params) -> Result<(), DbError> {
    match params.names().find(|name| !parsed.names.contains(*name)) {
        None => Ok(()),
        Some(name) => Err(DbError::UnusedParameter {
            name: name.to_owned(),
        }),
    }
}

fn value<'a>(name: &str, params: &'a Params) -> Result<&'a Value, DbError> {
    params.get(name).ok_or_else(|| DbError::MissingParameter {
        name: name.to_owned(),
    })
}

impl<D: Dialect> QueryFragment<D> for Statement<'_, D> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, D>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
        if self.prefix.is_empty() && self.rows == 1 && self.casts_nothing() {
            out.push_sql(self.parsed.rendered());
            let mut binds = self.binds.iter();
            return binds.try_for_each(|bind| D::push(bind, Placeholder::Written, &mut out));
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
