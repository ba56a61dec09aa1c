//! The table that the load writes to. Each number should be in it once, but no constraint ensures that.

use std::collections::HashMap;
use std::panic;

use db_service::{Backend, Connection, DatabaseService, DbError, params};
use diesel::prelude::{ExpressionMethods, OptionalExtension, QueryDsl, QueryResult, RunQueryDsl};

use crate::wait;

/// The payload of the panics that are part of a fault.
pub(crate) const INTENTIONAL_PANIC: &str = "intentional panic";

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WriteMethod {
    /// A single statement outside a transaction.
    Statement,
    Transaction,
    /// A transaction that panics after its statement.
    PanickingTransaction,
}

/// How statements are written.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) enum Queries {
    /// As SQL texts.
    #[default]
    Text,
    /// With diesel's DSL.
    Dsl,
}

diesel::table! {
    numbers (number) {
        number -> BigInt,
    }
}

/// Creates the table.
pub(crate) fn create() -> Result<(), DbError> {
    // The index is not unique. A unique index would prevent the duplicates that the checks look for.
    for sql in [
        "CREATE TABLE numbers (number bigint NOT NULL)",
        "CREATE INDEX numbers_number ON numbers (number)",
    ] {
        DatabaseService::execute_query(sql, params! {})?;
    }
    Ok(())
}

/// Inserts a number.
pub(crate) fn write(number: i64, method: WriteMethod, queries: Queries) -> Result<(), DbError> {
    if method == WriteMethod::Statement {
        return match queries {
            Queries::Text => {
                let params = params! { "number" => number };
                DatabaseService::execute_query(INSERT, params).map(drop)
            }
            Queries::Dsl => {
                DatabaseService::with_connection(|connection| insert(connection, number))
            }
        };
    }
    DatabaseService::transaction(|connection| {
        match queries {
            Queries::Text => {
                connection.execute_query(INSERT, params! { "number" => number })?;
            }
            Queries::Dsl => insert(connection, number)?,
        }
        if method == WriteMethod::PanickingTransaction {
            panic::panic_any(INTENTIONAL_PANIC);
        }
        Ok(())
    })
}

const INSERT: &str = "INSERT INTO numbers (number) VALUES (:number)";

fn insert(connection: &mut Connection, number: i64) -> QueryResult<()> {
    diesel::insert_into(numbers::table)
        .values(numbers::number.eq(number))
        .execute(connection)
        .map(drop)
}

/// Returns whether a number is in the table.
pub(crate) fn contains(number: i64, queries: Queries) -> Result<bool, DbError> {
    match queries {
        Queries::Text => {
            let sql = "SELECT number FROM numbers WHERE number = :number";
            let rows = DatabaseService::execute_query(sql, params! { "number" => number })?;
            Ok(!rows.is_empty())
        }
        Queries::Dsl => DatabaseService::with_connection(|connection| {
            let found = numbers::table.find(number).select(numbers::number);
            let found = found.get_result::<i64>(connection);
            Ok(found.optional()?.is_some())
        }),
    }
}

/// Waits until no other session can write any more, and returns all numbers and how often each is in the table.
pub(crate) fn counts() -> anyhow::Result<HashMap<i64, u64>> {
    wait_for_other_sessions()?;
    let sql = "SELECT number, count(*) AS times FROM numbers GROUP BY number";
    let rows = DatabaseService::execute_query(sql, params! {})?;
    rows.iter()
        .map(|row| Ok((row.get("number")?, row.get("times")?)))
        .collect()
}

/// Waits until this session is the only one on a PostgreSQL server, which may still execute a statement after its
/// caller has received an error.
///
/// SQLite executes statements within the call.
fn wait_for_other_sessions() -> anyhow::Result<()> {
    if DatabaseService::connection()?.backend() != Backend::Postgres {
        return Ok(());
    }
    let sql = "SELECT count(*) AS others FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    wait::until("the sessions of the load to end", || {
        let rows = DatabaseService::execute_query(sql, params! {})?;
        Ok(rows[0].get::<i64>("others")? == 0)
    })
}
