//! Bulk inserts into SQLite, with several rows per statement.

use diesel::connection::Connection as _;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;

use super::bulk::Rows;
use crate::connection::Connection;
use crate::dialect::sqlite::{self, Bind};
use crate::dialect::{Conversions, Dialect, Place, Placeholder};
use crate::error::DbError;
use crate::sql::{MAX_TEXT, SideEffects};
use crate::values::Value;

/// SQLite's default of `SQLITE_MAX_VARIABLE_NUMBER`.
const MAX_PARAMETERS: usize = 32_766;
/// The maximum number of rows per statement. More rows are not faster.
const MAX_ROWS: usize = 128;

/// Inserts all rows with statements that begin with `head`. Returns their number.
pub(crate) fn insert(
    connection: &mut Connection,
    head: &str,
    rows: &mut Rows<'_>,
) -> Result<u64, DbError> {
    let width = rows.columns.len();
    let full = MAX_ROWS.min(MAX_PARAMETERS / width).max(1);
    let mut values: Vec<Value> = Vec::with_capacity(full * width);
    let (mut inserted, mut conversions) = (0, None);
    let mut more = true;
    while more {
        values.clear();
        let mut count = 0;
        while more && count < full {
            more = rows.read(&mut values)?;
            if more {
                check(
                    connection,
                    head,
                    rows,
                    &values[count * width..],
                    &mut conversions,
                )?;
                count += 1;
            }
        }
        if count > 0 {
            let statement = InsertRows {
                head,
                width,
                binds: values.iter().map(Sqlite::bind).collect(),
                // Each value takes `, ?`, and a row a few characters more.
                is_cached: count == full && head.len() + 4 * count * width <= MAX_TEXT,
            };
            let running = connection.start(SideEffects::default(), None);
            let count = match connection {
                Connection::Sqlite(inner) => inner.execute_returning_count(&statement),
                // The caller has checked the backend.
                #[cfg(feature = "postgres")]
                Connection::Postgres(_) => Ok(0),
            };
            inserted += connection.end_text(&running, count)? as u64;
        }
    }
    Ok(inserted)
}

/// Refuses a row with a value that SQLite would change. All rows have the same `conversions`.
fn check(
    connection: &mut Connection,
    head: &str,
    rows: &Rows<'_>,
    row: &[Value],
    conversions: &mut Conversions,
) -> Result<(), DbError> {
    for (column, value) in row.iter().enumerate() {
        let mut problem = Sqlite::problem(value);
        if !sqlite::is_exact_everywhere(value) {
            let placeholders = vec!["?"; row.len()].join(", ");
            let sql = || format!("{head}({placeholders})");
            let running = connection.start(SideEffects::default(), None);
            let found = match connection {
                Connection::Sqlite(inner) => {
                    sqlite::rounding(inner, value, column, sql, conversions)
                }
                // The caller has checked the backend.
                #[cfg(feature = "postgres")]
                Connection::Postgres(_) => Ok(None),
            };
            problem = problem.or(connection.end_text(&running, found)?);
        }
        if let Some(problem) = problem {
            return Err(rows.unstorable(column, problem));
        }
    }
    Ok(())
}

struct InsertRows<'a> {
    head: &'a str,
    width: usize,
    binds: Vec<Bind<'a>>,
    /// Whether the statement stays prepared: it will be used again and is not too long.
    is_cached: bool,
}

impl QueryFragment<Sqlite> for InsertRows<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        if !self.is_cached {
            out.unsafe_to_cache_prepared();
        }
        out.push_sql(self.head);
        for (number, row) in self.binds.chunks(self.width).enumerate() {
            out.push_sql(if number == 0 { "(" } else { ", (" });
            for (column, bind) in row.iter().enumerate() {
                if column > 0 {
                    out.push_sql(", ");
                }
                Sqlite::push(bind, Place::Any, Placeholder::Missing, &mut out)?;
            }
            out.push_sql(")");
        }
        Ok(())
    }
}

impl QueryId for InsertRows<'_> {
    type QueryId = ();
    // `false` makes diesel look the statement up by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}
