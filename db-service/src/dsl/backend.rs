//! The backend type and the properties of its SQL.

use std::any::Any;

use diesel::backend::{
    Backend as DieselBackend, DieselReserveSpecialization, SqlDialect, TrustedBackend,
    sql_dialect as diesel_dialect,
};
use diesel::pg::{Pg, PgTypeMetadata};
use diesel::sql_types::TypeMetadata;
#[cfg(feature = "sqlite")]
use diesel::sqlite::{Sqlite, SqliteType};

use super::binds::{MultiBindCollector, MultiQueryBuilder};
use super::syntax;
use crate::backend::Backend;

/// diesel's backend of a [`Connection`](crate::Connection), for PostgreSQL and SQLite.
///
/// Queries of diesel's DSL are built for this type, and the connection translates them when it runs them. The page
/// [`dsl`](crate::dsl) lists what the DSL can express.
///
/// # Examples
///
/// ```
/// use db_service::MultiBackend;
/// use diesel::prelude::*;
///
/// #[derive(Queryable, Selectable)]
/// #[diesel(table_name = pets, check_for_backend(MultiBackend))]
/// struct Pet {
///     id: i64,
///     name: String,
/// }
///
/// diesel::table! {
///     pets (id) {
///         id -> BigInt,
///         name -> Text,
///     }
/// }
/// # let _ = |pet: Pet| (pet.id, pet.name);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiBackend {
    backend: Backend,
}

pub(super) static POSTGRES: MultiBackend = MultiBackend {
    backend: Backend::Postgres,
};
pub(super) static SQLITE: MultiBackend = MultiBackend {
    backend: Backend::Sqlite,
};

impl MultiBackend {
    /// Returns the backend that the query is built for. A query fragment of the user can ask for it with
    /// [`AstPass::backend`](diesel::query_builder::AstPass::backend).
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Returns the value that represents a backend.
    pub(crate) fn of(backend: Backend) -> &'static Self {
        match backend {
            Backend::Postgres => &POSTGRES,
            Backend::Sqlite => &SQLITE,
        }
    }
}

/// [`debug_query`](diesel::debug_query) uses it: PostgreSQL if it is compiled in, otherwise SQLite.
impl Default for MultiBackend {
    fn default() -> Self {
        if cfg!(feature = "postgres") {
            POSTGRES
        } else {
            SQLITE
        }
    }
}

impl DieselBackend for MultiBackend {
    type QueryBuilder = MultiQueryBuilder;
    type RawValue<'a> = MultiValue<'a>;
    type BindCollector<'a> = MultiBindCollector<'a>;
}

/// A value of a column, as its driver returns it.
#[non_exhaustive]
pub enum MultiValue<'a> {
    /// A value from PostgreSQL.
    Postgres(<Pg as DieselBackend>::RawValue<'a>),
    /// A value from SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(<Sqlite as DieselBackend>::RawValue<'a>),
}

impl std::fmt::Debug for MultiValue<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The value may be a secret.
        formatter.write_str("MultiValue")
    }
}

/// The type of a parameter, as its driver takes it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MultiTypeMetadata {
    /// A type of PostgreSQL.
    Postgres(PgTypeMetadata),
    /// A storage class of SQLite.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteType),
}

impl TypeMetadata for MultiBackend {
    type TypeMetadata = MultiTypeMetadata;
    type MetadataLookup = dyn Any;
}

impl TrustedBackend for MultiBackend {}
impl DieselReserveSpecialization for MultiBackend {}

impl SqlDialect for MultiBackend {
    type ReturningClause = diesel_dialect::returning_clause::PgLikeReturningClause;
    type OnConflictClause = syntax::OnConflict;
    type InsertWithDefaultKeyword = syntax::DefaultKeyword;
    type BatchInsertSupport = syntax::BatchInsert;
    type ConcatClause = diesel_dialect::concat_clause::ConcatWithPipesClause;
    type DefaultValueClauseForInsert = diesel_dialect::default_value_clause::AnsiDefaultValueClause;
    type EmptyFromClauseSyntax = <Pg as SqlDialect>::EmptyFromClauseSyntax;
    type SelectStatementSyntax = syntax::Select;
    type ExistsSyntax = diesel_dialect::exists_syntax::AnsiSqlExistsSyntax;
    type ArrayComparison = syntax::ArrayComparison;
    type AliasSyntax = diesel_dialect::alias_syntax::AsAliasSyntax;
    type WindowFrameClauseGroupSupport =
        diesel_dialect::window_frame_clause_group_support::IsoGroupWindowFrameUnit;
    type WindowFrameExclusionSupport =
        diesel_dialect::window_frame_exclusion_support::FrameExclusionSupport;
    type AggregateFunctionExpressions =
        diesel_dialect::aggregate_function_expressions::PostgresLikeAggregateFunctionExpressions;
    type BuiltInWindowFunctionRequireOrder =
        diesel_dialect::built_in_window_function_require_order::NoOrderRequired;
}
