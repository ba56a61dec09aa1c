//! Rows from PostgreSQL through a cursor, in chunks.
//!
//! If possible, the server keeps the result in a cursor, so that a caller that stops early does not wait for the rest.
//! Within a chunk, and without a cursor, rows arrive one by one, so that large rows do not accumulate in memory.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};

use diesel::pg::Pg;

use super::stream::Each;
use crate::backend::Backend;
use crate::connection::Connection;
use crate::connection::{self, StatementContext};
use crate::dialect::Statement;
use crate::error::DbError;
use crate::sql::{self, ParsedStatement, Piece};
use crate::tokens::{Kind, Tokens};
use crate::values::Params;

const DECLARE: &str = "DECLARE db_service_rows NO SCROLL CURSOR FOR ";
const CLOSE: &str = "CLOSE db_service_rows";
/// The number of rows in the first chunk. Each later chunk has twice as many. A caller that stops early discards the
/// rest of a chunk.
const FETCHED_FIRST: u32 = 16;
const FETCHED_AT_MOST: u32 = 2048;

/// Runs a statement and passes its rows to the caller.
pub(crate) fn stream_rows(
    connection: &mut Connection,
    sql: &str,
    parsed: &ParsedStatement<'_>,
    params: &Params,
    known: StatementContext,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let is_query = is_query(sql);
    let mut sent = parsed.clone();
    // Preparing is no faster here, and a prepared statement can have a stale plan.
    sent.is_cached = false;
    if is_query {
        sent.pieces.insert(0, Piece::Text(DECLARE));
    }
    connection.with_stale_plan_retry(sql, parsed, params.has_text(), |connection, casts| {
        let mut has_begun = false;
        let statement = Statement::new(&sent, params, casts)?;
        let result = attempt(connection, statement, is_query, known, &mut |row| {
            has_begun = true;
            each(row)
        });
        // Each row is passed to the caller once, so a failure after the first row is not retried.
        if has_begun {
            Ok(result)
        } else {
            result.map(Ok)
        }
    })?
}

fn attempt(
    connection: &mut Connection,
    statement: Statement<'_, Pg>,
    is_query: bool,
    known: StatementContext,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let is_in_transaction = connection.transaction_depth() > 0
        || connection
            .observer()
            .is_some_and(|observer| observer.has_raw_transaction);
    let work = |connection: &mut Connection| {
        let _ = run(connection, statement, known, each)?;
        if is_query {
            fetch(connection, known, each)?;
        }
        Ok(())
    };
    if is_query && !is_in_transaction {
        let outcome = connection.transact(Connection::begin, work);
        outcome.map_err(|failure| failure.into_error(connection))
    } else {
        work(connection)
    }
}

/// Fetches from the cursor until its end or until the caller stops, and closes the cursor.
fn fetch(
    connection: &mut Connection,
    known: StatementContext,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let all = || {
        let none = Params::new();
        let mut wanted = FETCHED_FIRST;
        loop {
            let sql = format!("FETCH FORWARD {wanted} FROM db_service_rows");
            let parsed = sql::parse(&sql, Backend::Postgres)?;
            let statement = Statement::new(&parsed, &none, None)?;
            let mut fetched = 0;
            let flow = run(connection, statement, known, &mut |row| {
                fetched += 1;
                each(row)
            })?;
            if flow.is_break() || fetched < wanted {
                return Ok(());
            }
            wanted = FETCHED_AT_MOST.min(wanted * 2);
        }
    };
    // A caller that catches the panic may continue in the same transaction, so the cursor must be closed.
    let result = panic::catch_unwind(AssertUnwindSafe(all));
    let closed = connection.run(CLOSE);
    match result {
        Ok(Ok(())) => Ok(closed?),
        // A failed transaction has no open cursor.
        Ok(Err(error)) => Err(error),
        Err(payload) => panic::resume_unwind(payload),
    }
}

fn run(
    connection: &mut Connection,
    statement: Statement<'_, Pg>,
    known: StatementContext,
    each: &mut Each<'_>,
) -> Result<ControlFlow<()>, DbError> {
    let flow = match connection {
        Connection::Postgres(inner) => connection::with_context(known, || {
            crate::dialect::postgres::for_each(inner, statement, each)
        }),
        // The caller has checked the backend.
        #[cfg(feature = "sqlite")]
        Connection::Sqlite(_) => Ok(ControlFlow::Break(())),
    };
    connection.end_statement();
    flow
}

/// Returns whether a statement can have a cursor: by its words, it only reads.
fn is_query(sql: &str) -> bool {
    let mut words = Tokens::new(sql, Backend::Postgres)
        .filter(|token| !matches!(token.kind, Kind::Space | Kind::Semicolon))
        .map(|token| (token.kind == Kind::Word).then_some(token.text));
    let is_one_of =
        |word: &str, known: &[&str]| known.iter().any(|known| known.eq_ignore_ascii_case(word));
    let Some(Some(first)) = words.next() else {
        return false;
    };
    let mut others = words.flatten();
    if is_one_of(first, &["WITH"]) {
        !others.any(|word| is_one_of(word, &["INSERT", "UPDATE", "DELETE", "MERGE", "INTO"]))
    } else {
        is_one_of(first, &["SELECT", "VALUES", "TABLE"])
            && !others.any(|word| is_one_of(word, &["INTO"]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_queries_use_a_cursor() {
        for sql in [
            "SELECT 1",
            " /* x */ select 'into' FROM \"into\" FOR UPDATE;",
            "VALUES (1)",
            "TABLE pets",
            "WITH a AS (SELECT 'DELETE' AS n) SELECT n FROM a",
        ] {
            assert!(is_query(sql), "{sql}");
        }
        for sql in [
            "",
            "INSERT INTO a VALUES (1) RETURNING n",
            "SELECT 1 INTO a",
            "WITH a AS (DELETE FROM b RETURNING n) SELECT n FROM a",
            "EXPLAIN SELECT 1",
            "SHOW all",
            "'SELECT'",
        ] {
            assert!(!is_query(sql), "{sql}");
        }
    }
}
