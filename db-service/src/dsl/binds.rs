//! SQL texts and parameters under construction.

use std::any::Any;
use std::fmt;

use diesel::backend::Backend as DieselBackend;
#[cfg(feature = "postgres")]
use diesel::connection::MultiConnectionHelper;
use diesel::pg::{Pg, PgMetadataLookup};
use diesel::query_builder::{BindCollector, QueryBuilder};
use diesel::result::{Error as DieselError, QueryResult};
use diesel::serialize::{IsNull, Output, ToSql};
use diesel::sql_types::HasSqlType;
#[cfg(feature = "sqlite")]
use diesel::sqlite::Sqlite;

use super::backend::{MultiBackend, MultiTypeMetadata};
use crate::backend::Backend;

/// The text of a query under construction.
pub enum MultiQueryBuilder {
    /// A text for PostgreSQL.
    #[doc(hidden)]
    Postgres(<Pg as DieselBackend>::QueryBuilder),
    /// A text for SQLite.
    #[doc(hidden)]
    #[cfg(feature = "sqlite")]
    Sqlite(<Sqlite as DieselBackend>::QueryBuilder),
}

impl MultiQueryBuilder {
    pub(crate) fn new(backend: Backend) -> Self {
        match backend {
            #[cfg(feature = "sqlite")]
            Backend::Sqlite => MultiQueryBuilder::Sqlite(Default::default()),
            _ => MultiQueryBuilder::Postgres(Default::default()),
        }
    }
}

impl Default for MultiQueryBuilder {
    fn default() -> Self {
        Self::new(MultiBackend::default().backend())
    }
}

impl fmt::Debug for MultiQueryBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MultiQueryBuilder")
    }
}

/// Evaluates an expression on the builder of either backend.
macro_rules! on_each_builder {
    ($builder:expr, $inner:ident => $work:expr) => {
        match $builder {
            MultiQueryBuilder::Postgres($inner) => $work,
            #[cfg(feature = "sqlite")]
            MultiQueryBuilder::Sqlite($inner) => $work,
        }
    };
}

impl QueryBuilder<MultiBackend> for MultiQueryBuilder {
    fn push_sql(&mut self, sql: &str) {
        on_each_builder!(self, inner => inner.push_sql(sql));
    }

    fn push_identifier(&mut self, identifier: &str) -> QueryResult<()> {
        on_each_builder!(self, inner => inner.push_identifier(identifier))
    }

    fn push_bind_param(&mut self) {
        on_each_builder!(self, inner => inner.push_bind_param());
    }

    fn push_bind_param_value_only(&mut self) {
        on_each_builder!(self, inner => inner.push_bind_param_value_only());
    }

    fn finish(self) -> String {
        on_each_builder!(self, inner => inner.finish())
    }
}

/// The parameters of a query, for one of the drivers.
pub enum MultiBindCollector<'a> {
    /// Parameters for PostgreSQL.
    #[doc(hidden)]
    Postgres(<Pg as DieselBackend>::BindCollector<'a>),
    /// Parameters for SQLite.
    #[doc(hidden)]
    #[cfg(feature = "sqlite")]
    Sqlite(<Sqlite as DieselBackend>::BindCollector<'a>),
}

impl fmt::Debug for MultiBindCollector<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secrets.
        formatter.write_str("MultiBindCollector")
    }
}

/// Returns PostgreSQL's lookup of types, if the query is built for PostgreSQL.
pub(super) fn postgres_lookup<'a>(
    lookup: &'a mut (dyn Any + 'static),
) -> Option<&'a mut (dyn PgMetadataLookup + 'static)> {
    #[cfg(feature = "postgres")]
    return diesel::PgConnection::from_any(lookup);
    #[cfg(not(feature = "postgres"))]
    {
        let _ = lookup;
        None
    }
}

/// Returns the error for a value that was made for the other backend, which only a foreign `ToSql` can cause.
pub(super) fn other_backend() -> DieselError {
    DieselError::QueryBuilderError("a value was built for the other backend".into())
}

impl<'a> MultiBindCollector<'a> {
    /// Adds a value that PostgreSQL receives as `ST`, and SQLite as `L`.
    #[cfg(feature = "sqlite")]
    pub(super) fn push<ST, L, T>(
        &mut self,
        value: &'a T,
        lookup: &mut (dyn Any + 'static),
    ) -> QueryResult<()>
    where
        Pg: HasSqlType<ST>,
        Sqlite: HasSqlType<L>,
        T: ToSql<ST, Pg> + ToSql<L, Sqlite> + ?Sized,
    {
        match self {
            MultiBindCollector::Postgres(binds) => {
                let lookup = postgres_lookup(lookup).ok_or_else(other_backend)?;
                binds.push_bound_value::<ST, T>(value, lookup)
            }
            MultiBindCollector::Sqlite(binds) => binds.push_bound_value::<L, T>(value, &mut ()),
        }
    }

    /// Adds a value that PostgreSQL receives as `ST`.
    pub(super) fn push_postgres<ST, T>(
        &mut self,
        value: &'a T,
        lookup: &mut (dyn Any + 'static),
    ) -> QueryResult<()>
    where
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + ?Sized,
    {
        match self {
            MultiBindCollector::Postgres(binds) => {
                let lookup = postgres_lookup(lookup).ok_or_else(other_backend)?;
                binds.push_bound_value::<ST, T>(value, lookup)
            }
            #[cfg(feature = "sqlite")]
            MultiBindCollector::Sqlite(_) => Err(DieselError::QueryBuilderError(
                "SQLite has no type for a value of the query, such as an array".into(),
            )),
        }
    }
}

/// A function that adds a value to the parameters of either driver.
type Push<'a> =
    Box<dyn FnOnce(&mut MultiBindCollector<'a>, &mut (dyn Any + 'static)) -> QueryResult<()> + 'a>;

/// A parameter under construction. [`sql_type!`](crate::sql_type) fills it for types of the user.
#[derive(Default)]
pub struct MultiBindValue<'a> {
    push: Option<Push<'a>>,
}

impl<'a> MultiBindValue<'a> {
    /// Creates a value that `push` adds to the parameters.
    pub(super) fn new(
        push: impl FnOnce(&mut MultiBindCollector<'a>, &mut (dyn Any + 'static)) -> QueryResult<()> + 'a,
    ) -> Self {
        MultiBindValue {
            push: Some(Box::new(push)),
        }
    }
}

impl fmt::Debug for MultiBindValue<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MultiBindValue")
    }
}

impl<'a> BindCollector<'a, MultiBackend> for MultiBindCollector<'a> {
    type Buffer = MultiBindValue<'a>;

    fn push_bound_value<T, U>(
        &mut self,
        bind: &'a U,
        lookup: &mut (dyn Any + 'static),
    ) -> QueryResult<()>
    where
        MultiBackend: HasSqlType<T>,
        U: ToSql<T, MultiBackend> + ?Sized + 'a,
    {
        let mut out = Output::<MultiBackend>::new(MultiBindValue::default(), lookup);
        let is_null = bind
            .to_sql(&mut out)
            .map_err(DieselError::SerializationError)?;
        match (is_null, out.into_inner().push) {
            (IsNull::No, Some(push)) => push(self, lookup),
            _ => self.push_null_value(<MultiBackend as HasSqlType<T>>::metadata(lookup)),
        }
    }

    fn push_null_value(&mut self, metadata: MultiTypeMetadata) -> QueryResult<()> {
        match (self, metadata) {
            (MultiBindCollector::Postgres(binds), MultiTypeMetadata::Postgres(metadata)) => {
                binds.push_null_value(metadata)
            }
            #[cfg(feature = "sqlite")]
            (MultiBindCollector::Sqlite(binds), MultiTypeMetadata::Sqlite(metadata)) => {
                binds.push_null_value(metadata)
            }
            #[allow(
                unreachable_patterns,
                reason = "there is only one backend without `sqlite`"
            )]
            _ => Err(other_backend()),
        }
    }
}
