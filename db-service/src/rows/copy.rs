//! Bulk inserts into PostgreSQL by `COPY … FROM STDIN`, in the text format, which accepts the same texts as literals.
//!
//! diesel sends `COPY` in the extended protocol, and libpq ends it with a second `Sync`. If the server fails before it
//! reads the first row, it answers both, and a later statement would take the surplus answer for its own. So `COPY` is
//! used only for tables where no user code runs before the first row ([`supports_copy`]). All others get `INSERT`s of
//! the same texts, and so do all rows from the first one with a [`Value::Other`], which has no text. After each failure, the caller checks that answers belong to their statements.

use std::cell::RefCell;
use std::io::Write;
use std::mem;

use diesel::ExecuteCopyFromDsl;
use diesel::pg::{CopyTarget, Pg, PgConnection};
use diesel::query_builder::AstPass;
use diesel::result::{Error as DieselError, QueryResult};

use super::bulk::Rows;
use crate::connection::Connection;
use crate::dialect::Dialect;
use crate::dialect::postgres::write_literal;
use crate::error::DbError;
use crate::params;
use crate::sql::TableName;
use crate::values::Params;
use crate::values::Value;
use crate::watchdog::AnswerTimeout;

/// The size of a chunk of rows in bytes.
const CHUNK: usize = 64 * 1024;

/// The number of rows in one `INSERT` statement of [`insert`].
const ROWS: usize = 512;

/// Returns whether `COPY` into a relation cannot fail before its first row: it is a table without a `BEFORE INSERT`
/// statement trigger, not a view, a foreign table or something else.
pub(crate) fn supports_copy(
    connection: &mut Connection,
    table: &TableName,
) -> Result<bool, DbError> {
    // The numbers are `TRIGGER_TYPE_ROW`, `_BEFORE` and `_INSERT` in PostgreSQL's `catalog/pg_trigger.h`.
    let rows = connection.execute_query(
        "SELECT c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
         WHERE t.tgrelid = c.oid AND t.tgtype & 1 = 0 AND t.tgtype & 2 <> 0 AND t.tgtype & 4 <> 0) AS supports_copy \
         FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(:table)",
        params! { "table" => table.quoted() },
    )?;
    rows.first()
        .map_or(Ok(false), |row| row.get("supports_copy"))
}

/// Inserts all rows into `target`, a table and its columns, by `INSERT`. Returns the number of rows that the server
/// reports.
pub(crate) fn insert(
    connection: &mut Connection,
    target: &str,
    rows: &mut Rows<'_>,
) -> Result<u64, DbError> {
    let names: Vec<_> = (0..rows.columns.len())
        .map(|column| format!("c{column}"))
        .collect();
    let sql = format!("INSERT INTO {target} VALUES (:{})", names.join(", :"));
    let (mut inserted, mut row) = (0, Vec::with_capacity(names.len()));
    loop {
        let mut batch = Vec::new();
        while batch.len() < ROWS && rows.read(&mut row)? {
            let mut params = Params::new();
            for (column, value) in row.drain(..).enumerate() {
                let value = if value.has_no_text() {
                    match Pg::problem(&value) {
                        Some(problem) => return Err(rows.unstorable(column, problem)),
                        None => value,
                    }
                } else {
                    let mut text = String::new();
                    write_literal(&value, &mut text)
                        .map_err(|problem| rows.unstorable(column, problem))?;
                    Value::Text(text)
                };
                params = params.with(names[column].clone(), value);
            }
            batch.push(params);
        }
        if batch.is_empty() {
            return Ok(inserted);
        }
        let batch = connection.execute_many(&sql, &batch);
        inserted += batch.map_err(|error| rows.named(error, &names))?;
    }
}

/// Copies all rows into `target`, a table and its columns. Returns their number, and the error of a row that could not
/// be sent, if there was one.
pub(crate) fn copy(
    connection: &mut PgConnection,
    target: &str,
    answer: &AnswerTimeout,
    rows: &mut Rows<'_>,
) -> (QueryResult<usize>, Option<DbError>) {
    let rows = RefCell::new(rows);
    let stopped = RefCell::new(None);
    // If this panics, libpq ends the `COPY` before it sends the next command.
    let send = |out: &mut dyn Write| {
        send(&mut rows.borrow_mut(), answer, out).map_err(|stop| match stop {
            Stop::Write(error) => error,
            Stop::Row(error) => {
                stopped.replace(Some(error));
                // The server receives this text and logs it.
                DieselError::SerializationError("the client has no more rows to send".into())
            }
        })
    };
    let copied = Target::with(target, || {
        diesel::copy_from(dynamic::table)
            .from_raw_data(Target, send)
            .execute(connection)
    });
    (copied, stopped.into_inner())
}

/// The reason why no more rows are sent.
enum Stop {
    Row(DbError),
    Write(DieselError),
}

fn send(rows: &mut Rows<'_>, answer: &AnswerTimeout, out: &mut dyn Write) -> Result<(), Stop> {
    let mut text = String::with_capacity(CHUNK);
    loop {
        // The server has nothing to answer while the caller produces rows.
        let has_more = answer
            .paused(|| gather(rows, &mut text))
            .map_err(Stop::Row)?;
        let written = out.write_all(text.as_bytes());
        written.map_err(|error| Stop::Write(DieselError::SerializationError(error.into())))?;
        if !has_more {
            return Ok(());
        }
        text.clear();
    }
}

/// Collects rows up to the size of a chunk. Returns `false` after the last row, or before a row with a value that has no
/// text.
fn gather(rows: &mut Rows<'_>, text: &mut String) -> Result<bool, DbError> {
    let mut row = Vec::with_capacity(rows.columns.len());
    while rows.read(&mut row)? {
        if row
            .iter()
            .any(|value| *value != Value::Null && value.has_no_text())
        {
            rows.hold_back(row);
            return Ok(false);
        }
        for (column, value) in row.drain(..).enumerate() {
            if column > 0 {
                text.push('\t');
            }
            write(&value, text).map_err(|problem| rows.unstorable(column, problem))?;
        }
        text.push('\n');
        if text.len() >= CHUNK {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes a value in the text format of `COPY`.
fn write(value: &Value, out: &mut String) -> Result<(), &'static str> {
    match value {
        Value::Null => out.push_str("\\N"),
        Value::Text(_) | Value::Json(_) | Value::Bytes(_) | Value::Array(_) => {
            let mut text = String::new();
            write_literal(value, &mut text)?;
            escape(&text, out);
        }
        _ => write_literal(value, out)?,
    }
    Ok(())
}

/// Writes text with the characters escaped that end a value or a row, or mean NULL.
fn escape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(position) = rest.find(['\\', '\t', '\n', '\r']) {
        let (before, behind) = rest.split_at(position);
        out.push_str(before);
        out.push_str(match behind.as_bytes()[0] {
            b'\\' => "\\\\",
            b'\t' => "\\t",
            b'\n' => "\\n",
            _ => "\\r",
        });
        rest = &behind[1..];
    }
    out.push_str(rest);
}

// diesel requires a table that is known at compile time. This one only names it.
diesel::table! {
    dynamic (column) {
        column -> Text,
    }
}

/// The target of the `COPY`. It is known only at run time, but diesel asks the type, not a value, so it is in a
/// thread-local.
struct Target;

thread_local! {
    static TARGET: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Target {
    /// Runs `work` with `target` as the type's table and columns.
    fn with<R>(target: &str, work: impl FnOnce() -> R) -> R {
        struct Restore(String);
        impl Drop for Restore {
            fn drop(&mut self) {
                TARGET.set(mem::take(&mut self.0));
            }
        }
        // The iterator of the rows may run another `COPY`.
        let _restore = Restore(TARGET.replace(target.to_owned()));
        work()
    }
}

impl CopyTarget for Target {
    type Table = dynamic::table;
    type SqlType = diesel::sql_types::Text;

    fn walk_target(mut out: AstPass<'_, '_, Pg>) -> QueryResult<()> {
        TARGET.with_borrow(|target| out.push_sql(target));
        Ok(())
    }
}
