//! The table that the load writes to: numbers that should be there once, without a unique constraint.

use std::collections::HashMap;
use std::panic;

use db_service::{Backend, DatabaseService, DbError, params};

use crate::wait;

/// The message of a panic that is part of a fault.
pub(crate) const ON_PURPOSE: &str = "a panic on purpose";

/// The way in which a number is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Write {
    /// By a statement outside a transaction.
    Alone,
    InTransaction,
    InTransactionThatPanics,
}

pub(crate) fn create() -> Result<(), DbError> {
    // No unique constraint, because it would hide duplicates.
    for sql in [
        "CREATE TABLE ledger (number bigint NOT NULL)",
        "CREATE INDEX ledger_number ON ledger (number)",
    ] {
        DatabaseService::execute_query(sql, params! {})?;
    }
    Ok(())
}

pub(crate) fn write(number: i64, how: Write) -> Result<(), DbError> {
    let sql = "INSERT INTO ledger (number) VALUES (:number)";
    let params = params! { "number" => number };
    if how == Write::Alone {
        return DatabaseService::execute_query(sql, params).map(drop);
    }
    DatabaseService::transaction(|connection| {
        connection.execute_query(sql, params)?;
        if how == Write::InTransactionThatPanics {
            panic::panic_any(ON_PURPOSE);
        }
        Ok(())
    })
}

/// Returns whether a number is in the table.
pub(crate) fn read(number: i64) -> Result<bool, DbError> {
    let sql = "SELECT number FROM ledger WHERE number = :number";
    let rows = DatabaseService::execute_query(sql, params! { "number" => number })?;
    Ok(!rows.is_empty())
}

/// Returns all numbers and how often each is in the table, after all connections of the load have ended.
pub(crate) fn all() -> anyhow::Result<HashMap<i64, u64>> {
    wait_until_alone()?;
    let sql = "SELECT number, count(*) AS times FROM ledger GROUP BY number";
    let rows = DatabaseService::execute_query(sql, params! {})?;
    rows.iter()
        .map(|row| Ok((row.get("number")?, row.get("times")?)))
        .collect()
}

/// Waits until no connection of the load is left, because a server may still execute a statement whose caller is gone.
fn wait_until_alone() -> anyhow::Result<()> {
    if DatabaseService::connection()?.backend() != Backend::Postgres {
        return Ok(());
    }
    let sql = "SELECT count(*) AS others FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    wait::until("the connections of the load to end", || {
        let rows = DatabaseService::execute_query(sql, params! {})?;
        Ok(rows[0].get::<i64>("others")? == 0)
    })
}
