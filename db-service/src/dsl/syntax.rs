//! The parts of a query that the two databases write differently.

use std::marker::PhantomData;

use diesel::backend::sql_dialect::on_conflict_clause;
use diesel::expression::KnownCastSqlTypeName;
use diesel::expression::array_comparison::{In, InExpression, Many, NotIn};
use diesel::insertable::{
    CanInsertInSingleQuery, ColumnInsertValue, DefaultableColumnInsertValue, InsertValues,
};
use diesel::internal::derives::multiconnection::{AstPassHelper, BoxedQueryHelper, NoFromClause};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{
    All, AstPass, BatchInsert as DieselBatchInsert, BoxedLimitOffsetClause, BoxedSelectStatement,
    Distinct, Except, Intersect, IntoBoxedClause, LimitOffsetClause, ParenthesisWrapper,
    QueryBuilder, QueryFragment, SelectStatement, SupportsCombinationClause, Union, ValuesClause,
};
use diesel::serialize::ToSql;
use diesel::sql_types::{self, Array, HasSqlType, SingleValue};

use super::backend::MultiBackend;
use super::binds::{MultiBindCollector, MultiQueryBuilder, postgres_lookup};
use crate::backend::Backend;
use crate::error::DbError;

/// `ON CONFLICT`, which both databases write alike.
#[derive(Debug)]
pub struct OnConflict;

impl on_conflict_clause::SupportsOnConflictClause for OnConflict {}
impl on_conflict_clause::SupportsOnConflictClauseWhere for OnConflict {}
impl on_conflict_clause::PgLikeOnConflictClause for OnConflict {}

impl<L, O> QueryFragment<MultiBackend> for LimitOffsetClause<L, O>
where
    L: QueryFragment<MultiBackend>,
    O: QueryFragment<MultiBackend>,
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        walk_limit_and_offset(&self.limit_clause, &self.offset_clause, out)
    }
}

impl QueryFragment<MultiBackend> for BoxedLimitOffsetClause<'_, MultiBackend> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        walk_limit_and_offset(&self.limit, &self.offset, out)
    }
}

/// SQLite accepts an offset only after a limit; −1 means no limit.
fn walk_limit_and_offset<'b>(
    limit: &'b impl QueryFragment<MultiBackend>,
    offset: &'b impl QueryFragment<MultiBackend>,
    mut out: AstPass<'_, 'b, MultiBackend>,
) -> QueryResult<()> {
    let backend = MultiBackend::of(out.backend().backend());
    limit.walk_ast(out.reborrow())?;
    if backend.backend() == Backend::Sqlite
        && limit.is_noop(backend)?
        && !offset.is_noop(backend)?
    {
        out.push_sql(" LIMIT -1 ");
    }
    offset.walk_ast(out)
}

impl<'a, L, O> IntoBoxedClause<'a, MultiBackend> for LimitOffsetClause<L, O>
where
    L: QueryFragment<MultiBackend> + Send + 'a,
    O: QueryFragment<MultiBackend> + Send + 'a,
{
    type BoxedClause = BoxedLimitOffsetClause<'a, MultiBackend>;

    fn into_boxed(self) -> Self::BoxedClause {
        BoxedLimitOffsetClause {
            limit: Some(Box::new(self.limit_clause)),
            offset: Some(Box::new(self.offset_clause)),
        }
    }
}

/// `eq_any` and `ne_all`: `= ANY(array)` on PostgreSQL, one prepared statement for all lengths, and `IN (…)` on SQLite.
#[derive(Debug)]
pub struct ArrayComparison;

macro_rules! array_comparison {
    ($node:ident, $with_array:literal, $with_list:literal, $of_nothing:literal) => {
        impl<T, U> QueryFragment<MultiBackend, ArrayComparison> for $node<T, U>
        where
            T: QueryFragment<MultiBackend>,
            U: QueryFragment<MultiBackend> + InExpression,
        {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
                let is_array =
                    out.backend().backend() == Backend::Postgres && !self.values.is_array();
                if !is_array && self.values.is_empty() {
                    out.push_sql($of_nothing);
                    return Ok(());
                }
                self.left.walk_ast(out.reborrow())?;
                out.push_sql(if is_array { $with_array } else { $with_list });
                self.values.walk_ast(out.reborrow())?;
                out.push_sql(")");
                Ok(())
            }
        }
    };
}

array_comparison!(In, " = ANY(", " IN (", "1=0");
array_comparison!(NotIn, " != ALL(", " NOT IN (", "1=1");

impl<ST, I> QueryFragment<MultiBackend, ArrayComparison> for Many<ST, I>
where
    ST: SingleValue,
    MultiBackend: HasSqlType<ST> + HasSqlType<Array<ST>>,
    I: ToSql<ST, MultiBackend>,
    Vec<I>: ToSql<Array<ST>, MultiBackend>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        if out.backend().backend() == Backend::Postgres && !ST::IS_ARRAY {
            return out.push_bind_param::<Array<ST>, Vec<I>>(&self.values);
        }
        out.unsafe_to_cache_prepared();
        for (index, value) in self.values.iter().enumerate() {
            if index > 0 {
                out.push_sql(", ");
            }
            out.push_bind_param::<ST, I>(value)?;
        }
        Ok(())
    }
}

/// A default value in an `INSERT`: the keyword `DEFAULT` on PostgreSQL. SQLite has no such keyword, so the column is
/// left out.
#[derive(Debug)]
pub struct DefaultKeyword;

impl<E> QueryFragment<MultiBackend, DefaultKeyword> for DefaultableColumnInsertValue<E>
where
    E: QueryFragment<MultiBackend>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        match self {
            Self::Expression(inner) => inner.walk_ast(out.reborrow())?,
            Self::Default if out.backend().backend() == Backend::Postgres => {
                out.push_sql("DEFAULT");
            }
            Self::Default => {}
        }
        Ok(())
    }
}

impl<C, E> InsertValues<MultiBackend, C::Table>
    for DefaultableColumnInsertValue<ColumnInsertValue<C, E>>
where
    C: Column,
    E: Expression<SqlType = C::SqlType> + AppearsOnTable<NoFromClause>,
    Self: QueryFragment<MultiBackend>,
{
    fn column_names(&self, mut out: AstPass<'_, '_, MultiBackend>) -> QueryResult<()> {
        if out.backend().backend() == Backend::Postgres || matches!(self, Self::Expression(_)) {
            out.push_identifier(C::NAME)?;
        }
        Ok(())
    }
}

/// A batch of rows in one `INSERT`. On SQLite, the rows must leave out the same columns.
#[derive(Debug)]
pub struct BatchInsert;

impl<V, Tab, Id, const STATIC: bool> CanInsertInSingleQuery<MultiBackend>
    for DieselBatchInsert<Vec<ValuesClause<V, Tab>>, Tab, Id, STATIC>
{
    fn rows_to_insert(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// The columns of one row of a batch.
struct Columns<'a, V, Tab>(&'a V, PhantomData<Tab>);

impl<V, Tab> QueryFragment<MultiBackend> for Columns<'_, V, Tab>
where
    V: InsertValues<MultiBackend, Tab>,
    Tab: Table,
{
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        self.0.column_names(out)
    }
}

impl<V, Tab, Id, const STATIC: bool> QueryFragment<MultiBackend, BatchInsert>
    for DieselBatchInsert<Vec<ValuesClause<V, Tab>>, Tab, Id, STATIC>
where
    Tab: Table,
    V: InsertValues<MultiBackend, Tab>,
    ValuesClause<V, Tab>: QueryFragment<MultiBackend>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        if !STATIC {
            out.unsafe_to_cache_prepared();
        }
        let Some((first, rest)) = self.values.split_first() else {
            return Ok(());
        };
        if out.backend().backend() == Backend::Sqlite && !rest.is_empty() {
            let columns = |row: &ValuesClause<V, Tab>| -> QueryResult<String> {
                let mut sql = MultiQueryBuilder::new(Backend::Sqlite);
                let columns = Columns(&row.values, PhantomData::<Tab>);
                columns.to_sql(&mut sql, MultiBackend::of(Backend::Sqlite))?;
                Ok(sql.finish())
            };
            let of_first = columns(first)?;
            for row in rest {
                if columns(row)? != of_first {
                    return Err(DbError::unsupported(
                        "a batch whose rows leave out different columns: SQLite has no DEFAULT in VALUES. \
                         Insert the rows one by one, or set `treat_none_as_default_value = false`",
                    ));
                }
            }
        }
        first.walk_ast(out.reborrow())?;
        for row in rest {
            out.push_sql(", (");
            row.values.walk_ast(out.reborrow())?;
            out.push_sql(")");
        }
        Ok(())
    }
}

/// `SELECT`. The locks of `for_update` and its relatives exist only on PostgreSQL, where SQLite has one writer anyway,
/// and so does `DISTINCT ON`.
///
/// diesel does not name the types of these clauses, so they are built for PostgreSQL on both backends.
#[derive(Debug)]
pub struct Select;

impl<F, S, D, W, O, LO, G, H, LC> QueryFragment<MultiBackend, Select>
    for SelectStatement<F, S, D, W, O, LO, G, H, LC>
where
    F: QueryFragment<MultiBackend>,
    S: QueryFragment<MultiBackend>,
    D: QueryFragment<Pg>,
    W: QueryFragment<MultiBackend>,
    O: QueryFragment<MultiBackend>,
    LO: QueryFragment<MultiBackend>,
    G: QueryFragment<MultiBackend>,
    H: QueryFragment<MultiBackend>,
    LC: QueryFragment<Pg>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        let backend = out.backend().backend();
        out.push_sql("SELECT ");
        if backend == Backend::Postgres {
            walk_for_postgres(&self.distinct, out.reborrow())?;
        } else {
            let mut sql = <Pg as diesel::backend::Backend>::QueryBuilder::default();
            self.distinct.to_sql(&mut sql, &Pg)?;
            let sql = QueryBuilder::<Pg>::finish(sql);
            if sql.contains(" ON ") {
                return Err(DbError::unsupported("DISTINCT ON: SQLite does not have it"));
            }
            out.push_sql(&sql);
        }
        self.select.walk_ast(out.reborrow())?;
        self.from.walk_ast(out.reborrow())?;
        self.where_clause.walk_ast(out.reborrow())?;
        self.group_by.walk_ast(out.reborrow())?;
        self.having.walk_ast(out.reborrow())?;
        self.order.walk_ast(out.reborrow())?;
        self.limit_offset.walk_ast(out.reborrow())?;
        if backend == Backend::Postgres {
            walk_for_postgres(&self.locking, out.reborrow())?;
        }
        Ok(())
    }
}

/// Walks a part of a query that is built for PostgreSQL. The query must be one for PostgreSQL too.
fn walk_for_postgres<'b, T: QueryFragment<Pg>>(
    node: &'b T,
    out: AstPass<'_, 'b, MultiBackend>,
) -> QueryResult<()> {
    const IS_POSTGRES: &str = "the caller has checked that the query is for PostgreSQL";
    static PG: Pg = Pg;
    node.walk_ast(out.cast_database::<Pg>(
        |binds| match binds {
            MultiBindCollector::Postgres(binds) => binds,
            #[cfg(feature = "sqlite")]
            MultiBindCollector::Sqlite(_) => unreachable!("{IS_POSTGRES}"),
        },
        |builder| match builder {
            MultiQueryBuilder::Postgres(builder) => builder,
            #[cfg(feature = "sqlite")]
            MultiQueryBuilder::Sqlite(_) => unreachable!("{IS_POSTGRES}"),
        },
        |_| &PG,
        |lookup| postgres_lookup(lookup).expect(IS_POSTGRES),
    ))
}

impl<ST, QS, GB> QueryFragment<MultiBackend, Select>
    for BoxedSelectStatement<'_, ST, QS, MultiBackend, GB>
where
    QS: QueryFragment<MultiBackend>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        self.build_query(pass, |where_clause, pass| where_clause.walk_ast(pass))
    }
}

/// The types that `cast` converts to: those that both databases know by the same name. SQLite makes a number of any name
/// that it does not know.
macro_rules! cast_names {
    ($($sql_type:ident => $name:literal),* $(,)?) => {$(
        impl KnownCastSqlTypeName<MultiBackend> for sql_types::$sql_type {
            const SQL_TYPE_NAME: &'static str = $name;
        }
    )*};
}

cast_names! {
    Integer => "integer", BigInt => "bigint", Float => "real", Double => "double precision", Text => "text",
}

impl SupportsCombinationClause<Union, Distinct> for MultiBackend {}
impl SupportsCombinationClause<Union, All> for MultiBackend {}
impl SupportsCombinationClause<Intersect, Distinct> for MultiBackend {}
impl SupportsCombinationClause<Except, Distinct> for MultiBackend {}

/// The parts of a `UNION` and its relatives. SQLite does not accept them in parentheses.
impl<T: QueryFragment<MultiBackend>> QueryFragment<MultiBackend> for ParenthesisWrapper<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, MultiBackend>) -> QueryResult<()> {
        out.push_sql(match out.backend().backend() {
            Backend::Postgres => "(",
            Backend::Sqlite => "SELECT * FROM (",
        });
        self.inner.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}
