//! The table that the load writes to: numbers, each of which is to be there once, though nothing makes sure of it.

use std::collections::HashMap;
use std::panic;

use db_service::{Backend, DatabaseService, DbError, params};

use crate::wait;

/// The panic of a closure, which is part of a fault.
pub(crate) const ON_PURPOSE: &str = "a panic on purpose";

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Write {
    /// By a statement of its own.
    Alone,
    InTransaction,
    InTransactionThatPanics,
}

pub(crate) fn create() -> Result<(), DbError> {
    // Not unique: then nothing could be doubled.
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

/// Tells whether a number is there.
pub(crate) fn read(number: i64) -> Result<bool, DbError> {
    let sql = "SELECT number FROM ledger WHERE number = :number";
    let rows = DatabaseService::execute_query(sql, params! { "number" => number })?;
    Ok(!rows.is_empty())
}

/// All numbers, and how often each is there, once nobody is left who might still write.
pub(crate) fn all() -> anyhow::Result<HashMap<i64, u64>> {
    wait_until_alone()?;
    let sql = "SELECT number, count(*) AS times FROM ledger GROUP BY number";
    let rows = DatabaseService::execute_query(sql, params! {})?;
    rows.iter()
        .map(|row| Ok((row.get("number")?, row.get("times")?)))
        .collect()
}

/// A server may still execute a statement whose caller has gone; on SQLite the call is the execution.
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
