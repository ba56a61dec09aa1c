//! Rows from PostgreSQL through a cursor, in chunks.
//!
//! If possible, the server keeps the result in a cursor, so that a caller that stops early does not wait for the rest.
//! Within a chunk, and without a cursor, rows arrive one by one, so that large rows do not accumulate in memory.

use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe, Location};

use diesel::pg::Pg;

use super::stream::Each;
use crate::connection::{Connection, KnownStatement, transact};
use crate::dialect::{ColumnNames, LoadError, Needs, ParameterTypes, Statement};
use crate::error::DbError;
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
    statement: &KnownStatement,
    params: &Params,
    at: &'static Location<'static>,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let needs = Needs::of(&statement.parsed, [params]);
    connection.with_stale_plan_retry(statement, &needs, |connection, types| {
        let mut has_begun = false;
        let prefix = if statement.parsed.is_query {
            DECLARE
        } else {
            ""
        };
        // Preparing is no faster here, and a prepared statement can have a stale plan.
        let built =
            Statement::new(&statement.parsed, params, types)?.unprepared_with_prefix(prefix);
        let result = attempt(connection, statement, built, at, &mut |row| {
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
    statement: &KnownStatement,
    built: Statement<'_, Pg>,
    at: &'static Location<'static>,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let is_query = statement.parsed.is_query;
    // The driver ignores a failure after the last row, so `COMMIT` is a statement of its own.
    let must_begin = is_query || statement.parsed.is_preparable;
    let work = |connection: &mut Connection| {
        let _ = run(connection, statement, built, Some(at), each)?;
        if is_query {
            fetch(connection, &statement.columns, each)?;
        }
        Ok(())
    };
    if must_begin && !connection.is_in_transaction() {
        let outcome = transact(connection, Connection::begin, work);
        outcome.map_err(|failure| failure.into_error(connection))
    } else {
        work(connection)
    }
}

/// Fetches from the cursor until its end or until the caller stops, and closes the cursor.
fn fetch(
    connection: &mut Connection,
    columns: &ColumnNames,
    each: &mut Each<'_>,
) -> Result<(), DbError> {
    let all = || {
        let none = Params::new();
        let mut wanted = FETCHED_FIRST;
        loop {
            let fetch =
                connection.known(&format!("FETCH FORWARD {wanted} FROM db_service_rows"))?;
            let built = Statement::new(&fetch.parsed, &none, ParameterTypes::NotNeeded)?;
            let mut fetched = 0;
            let running = connection.start_statement(&fetch, None)?;
            let flow = load(connection, &built, columns, &mut |row| {
                fetched += 1;
                each(row)
            });
            let flow = connection.end_statement(&running, flow, false)?;
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
    statement: &KnownStatement,
    built: Statement<'_, Pg>,
    at: Option<&'static Location<'static>>,
    each: &mut Each<'_>,
) -> Result<ControlFlow<()>, DbError> {
    let running = connection.start_statement(statement, at)?;
    let columns = &statement.columns;
    if statement.parsed.is_query || statement.parsed.is_preparable {
        let flow = built.located(load(connection, &built, columns, each));
        return connection.end_statement(&running, flow, false);
    }
    // Such a statement commits by itself, so its answer is read to the end, in one piece.
    connection.echo().statement(&built);
    let rows = match connection {
        Connection::Postgres(inner) => crate::dialect::postgres::load(inner, &built, columns),
        // The caller has checked the backend.
        #[cfg(feature = "sqlite")]
        Connection::Sqlite(_) => Ok(Vec::new()),
    };
    let rows = connection.end_statement(&running, built.located(rows), false)?;
    Ok(rows.into_iter().try_for_each(each))
}

fn load(
    connection: &mut Connection,
    built: &Statement<'_, Pg>,
    columns: &ColumnNames,
    each: &mut Each<'_>,
) -> Result<ControlFlow<()>, LoadError> {
    let answer = connection.session().answer_timeout();
    connection.echo().statement(built);
    match connection {
        Connection::Postgres(inner) => {
            crate::dialect::postgres::for_each(inner, built, columns, &answer, each)
        }
        // The caller has checked the backend.
        #[cfg(feature = "sqlite")]
        Connection::Sqlite(_) => Ok(ControlFlow::Break(())),
    }
}
