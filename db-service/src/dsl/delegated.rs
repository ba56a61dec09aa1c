//! A query for [`MultiBackend`] as a query for the backend of the driver that runs it.
//!
//! diesel asks a query for its text, its values and its properties in separate passes, each a method of
//! [`QueryFragment`]. diesel also calls [`walk_ast`](QueryFragment::walk_ast) with any pass, because it passes on nothing
//! else for a reference. So that method handles all passes too; a pass that it left out would lose the query's values.

use std::sync::Arc;

use diesel::backend::Backend as DieselBackend;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
use diesel::connection::MultiConnectionHelper;
#[cfg(feature = "postgres")]
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryBuilder, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{TypeMetadata, Untyped};
#[cfg(feature = "sqlite")]
use diesel::sqlite::Sqlite;

use super::backend::MultiBackend;
#[cfg(feature = "postgres")]
use super::backend::POSTGRES;
#[cfg(feature = "sqlite")]
use super::backend::SQLITE;
use super::binds::{MultiBindCollector, MultiQueryBuilder};
use diesel::internal::derives::multiconnection::AstPassHelper;

/// A query that a driver can run, with its text, which was built before.
#[derive(Debug)]
pub(crate) struct Delegated<T> {
    pub(crate) query: T,
    pub(crate) sql: Arc<str>,
}

/// A borrowed query. A plain reference passes on only [`walk_ast`](QueryFragment::walk_ast).
#[derive(Debug)]
pub(crate) struct ByReference<'a, T>(pub(crate) &'a T);

impl<T: QueryFragment<MultiBackend>> QueryFragment<MultiBackend> for ByReference<'_, T> {
    fn to_sql(&self, out: &mut MultiQueryBuilder, backend: &MultiBackend) -> QueryResult<()> {
        T::to_sql(self.0, out, backend)
    }

    fn collect_binds<'b>(
        &'b self,
        out: &mut MultiBindCollector<'b>,
        lookup: &mut (dyn std::any::Any + 'static),
        backend: &'b MultiBackend,
    ) -> QueryResult<()> {
        T::collect_binds(self.0, out, lookup, backend)
    }

    fn is_safe_to_cache_prepared(&self, backend: &MultiBackend) -> QueryResult<bool> {
        T::is_safe_to_cache_prepared(self.0, backend)
    }

    fn is_noop(&self, backend: &MultiBackend) -> QueryResult<bool> {
        T::is_noop(self.0, backend)
    }

    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        T::walk_ast(self.0, pass)
    }
}

impl<T: QueryId> QueryId for ByReference<'_, T> {
    type QueryId = T::QueryId;
    const HAS_STATIC_QUERY_ID: bool = T::HAS_STATIC_QUERY_ID;
}

macro_rules! delegate {
    ($backend:ident, $connection:ty, $variant:ident, $multi:ident) => {
        impl<T: QueryFragment<MultiBackend>> QueryFragment<$backend> for Delegated<T> {
            fn to_sql(
                &self,
                out: &mut <$backend as DieselBackend>::QueryBuilder,
                _: &$backend,
            ) -> QueryResult<()> {
                QueryBuilder::<$backend>::push_sql(out, &self.sql);
                Ok(())
            }

            fn collect_binds<'b>(
                &'b self,
                out: &mut <$backend as DieselBackend>::BindCollector<'b>,
                lookup: &mut <$backend as TypeMetadata>::MetadataLookup,
                _: &'b $backend,
            ) -> QueryResult<()> {
                let mut binds = MultiBindCollector::$variant(std::mem::take(out));
                let lookup = <$connection>::to_any(lookup);
                let result = self.query.collect_binds(&mut binds, lookup, &$multi);
                #[allow(irrefutable_let_patterns, reason = "one backend may be compiled in")]
                if let MultiBindCollector::$variant(binds) = binds {
                    *out = binds;
                }
                result
            }

            fn is_safe_to_cache_prepared(&self, _: &$backend) -> QueryResult<bool> {
                self.query.is_safe_to_cache_prepared(&$multi)
            }

            fn is_noop(&self, _: &$backend) -> QueryResult<bool> {
                self.query.is_noop(&$multi)
            }

            fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, $backend>) -> QueryResult<()> {
                static INNER: $backend = $backend;
                if let Some((collector, lookup)) = pass.bind_collector() {
                    return self.collect_binds(collector, lookup, &INNER);
                }
                if let Some((formatter, _)) = pass.debug_binds() {
                    let pass =
                        AstPass::<MultiBackend>::collect_debug_binds_pass(formatter, &$multi);
                    return self.query.walk_ast(pass);
                }
                pass.push_sql(&self.sql);
                if !self.query.is_safe_to_cache_prepared(&$multi)? {
                    pass.unsafe_to_cache_prepared();
                }
                Ok(())
            }
        }
    };
}

#[cfg(feature = "postgres")]
delegate!(Pg, diesel::PgConnection, Postgres, POSTGRES);
#[cfg(feature = "sqlite")]
delegate!(Sqlite, diesel::SqliteConnection, Sqlite, SQLITE);

impl<T: QueryId> QueryId for Delegated<T> {
    type QueryId = T::QueryId;
    const HAS_STATIC_QUERY_ID: bool = T::HAS_STATIC_QUERY_ID;
}

impl<T> Query for Delegated<T> {
    type SqlType = Untyped;
}
