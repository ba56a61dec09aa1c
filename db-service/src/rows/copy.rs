//! Rows into PostgreSQL by `COPY … FROM STDIN`, in its text format: what a column takes as a literal it takes here.
//!
//! diesel sends `COPY` by the extended protocol, and libpq then ends it with a second `Sync`. If the server fails before it
//! reads the first row, it answers both: one answer too many, which a later statement would take for its own. So `COPY` is used
//! only for tables where nothing of the user's runs before the first row ([`supports_copy`]); all others get `INSERT`s of the same
//! texts. After any failure the caller checks that the connection is still in step.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::mem;

use chrono::{Datelike, NaiveDate};
use diesel::ExecuteCopyFromDsl;
use diesel::pg::{CopyTarget, Pg, PgConnection};
use diesel::query_builder::AstPass;
use diesel::result::{Error as DieselError, QueryResult};

use super::bulk::Rows;
use crate::connection::{Connection, execute_many};
use crate::error::DbError;
use crate::params;
use crate::sql::TableName;
use crate::values::Params;
use crate::values::Value;
use crate::watchdog;

/// How much is gathered before it is sent, in bytes.
const CHUNK: usize = 64 * 1024;

/// How many rows an `INSERT` of [`insert`] gets at a time: as many as are sent in one statement.
const ROWS: usize = 512;

/// Whether a relation takes `COPY` without a chance to fail before its first row: a table without a statement trigger that fires
/// before an insert. Views, foreign tables and all others do not.
pub(crate) fn supports_copy(
    connection: &mut Connection,
    table: &TableName,
) -> Result<bool, DbError> {
    // The numbers are `TRIGGER_TYPE_ROW`, `_BEFORE` and `_INSERT` of PostgreSQL's `catalog/pg_trigger.h`.
    let rows = connection.execute_query(
        "SELECT c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t \
         WHERE t.tgrelid = c.oid AND t.tgtype & 1 = 0 AND t.tgtype & 2 <> 0 AND t.tgtype & 4 <> 0) AS supports_copy \
         FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(:table)",
        params! { "table" => table.quoted() },
    )?;
    rows.first().map_or(Ok(false), |row| row.get("takes_copy"))
}

/// Inserts all rows into `target`, a table and its columns, by `INSERT`, and returns how many the server says there were.
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
                let mut text = String::new();
                write_literal(&value, &mut text)
                    .map_err(|problem| rows.unstorable(column, problem))?;
                let text = (value != Value::Null).then_some(text);
                params = params.with(names[column].clone(), text);
            }
            batch.push(params);
        }
        if batch.is_empty() {
            return Ok(inserted);
        }
        inserted += execute_many(connection, &sql, &batch)?;
    }
}

/// Copies all rows into `target`, a table and its columns, and returns how many there were.
pub(crate) fn copy(
    connection: &mut PgConnection,
    target: &str,
    rows: &mut Rows<'_>,
) -> Result<u64, DbError> {
    let rows = RefCell::new(rows);
    let stopped = RefCell::new(None);
    // Should this panic, libpq ends what it has begun before it sends the next command.
    let send = |out: &mut dyn Write| {
        send(&mut rows.borrow_mut(), out).map_err(|stop| match stop {
            Stop::Write(error) => error,
            Stop::Row(error) => {
                stopped.replace(Some(error));
                // It is told to the server, and stands in its log.
                DieselError::SerializationError("the client has no more rows to send".into())
            }
        })
    };
    let copied = Target::with(target, || {
        diesel::copy_from(dynamic::table)
            .from_raw_data(Target, send)
            .execute(connection)
    });
    match stopped.into_inner() {
        Some(error) => Err(error),
        None => Ok(copied? as u64),
    }
}

/// Why rows are not sent.
enum Stop {
    Row(DbError),
    Write(DieselError),
}

fn send(rows: &mut Rows<'_>, out: &mut dyn Write) -> Result<(), Stop> {
    let mut text = String::with_capacity(CHUNK);
    loop {
        // As long as it takes to make the rows there is nothing for the server to answer.
        let has_more = watchdog::paused(|| gather(rows, &mut text)).map_err(Stop::Row)?;
        let written = out.write_all(text.as_bytes());
        written.map_err(|error| Stop::Write(DieselError::SerializationError(error.into())))?;
        if !has_more {
            return Ok(());
        }
        text.clear();
    }
}

/// Writes rows until there is enough to be sent; `false` where there are no more.
fn gather(rows: &mut Rows<'_>, text: &mut String) -> Result<bool, DbError> {
    let mut row = Vec::with_capacity(rows.columns.len());
    while rows.read(&mut row)? {
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

/// Writes a value as the text format has it.
fn write(value: &Value, out: &mut String) -> Result<(), &'static str> {
    match value {
        Value::Null => out.push_str("\\N"),
        Value::Text(_) | Value::Json(_) | Value::Bytes(_) | Value::Other { .. } => {
            let mut text = String::new();
            write_literal(value, &mut text)?;
            escape(&text, out);
        }
        _ => write_literal(value, out)?,
    }
    Ok(())
}

/// Writes a value as it would stand between the quotes of a literal; nothing for NULL.
fn write_literal(value: &Value, out: &mut String) -> Result<(), &'static str> {
    // Writing to a string does not fail.
    let _ = match value {
        Value::Null => Ok(()),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        Value::Float(value) if value.is_infinite() && *value > 0.0 => out.write_str("Infinity"),
        Value::Float(value) if value.is_infinite() => out.write_str("-Infinity"),
        // Not a few hundred digits, and whole numbers without a fraction, which columns of integers take.
        Value::Float(value) if value.abs() >= 1e15 => write!(out, "{value:e}"),
        Value::Float(value) => write!(out, "{value}"),
        Value::Text(value) if value.contains('\0') => {
            return Err("PostgreSQL takes no text that holds a NUL");
        }
        Value::Text(value) => out.write_str(value),
        Value::Bytes(value) | Value::Other { bytes: value, .. } => {
            out.push_str("\\x");
            value.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
        }
        Value::Date(value) => write!(out, "{}{}", Day(*value), era(*value)),
        Value::Time(value) => write!(out, "{}", value.format("%H:%M:%S%.6f")),
        Value::Timestamp(value) => {
            let (day, time) = (value.date(), value.time());
            write!(
                out,
                "{} {}{}",
                Day(day),
                time.format("%H:%M:%S%.6f"),
                era(day)
            )
        }
        Value::TimestampTz(value) => {
            let (day, time) = (value.date_naive(), value.time());
            write!(
                out,
                "{} {}+00{}",
                Day(day),
                time.format("%H:%M:%S%.6f"),
                era(day)
            )
        }
        Value::Uuid(value) => write!(out, "{value}"),
        Value::Decimal(value) => write!(out, "{value}"),
        Value::Json(value) => write!(out, "{value}"),
    };
    Ok(())
}

/// Writes text such that nothing in it ends a value or a row, or means NULL.
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

/// A date as PostgreSQL reads it, whose years before 1 end in `BC`.
struct Day(NaiveDate);

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, year) = self.0.year_ce();
        write!(
            formatter,
            "{year:04}-{:02}-{:02}",
            self.0.month(),
            self.0.day()
        )
    }
}

fn era(date: NaiveDate) -> &'static str {
    if date.year() > 0 { "" } else { " BC" }
}

// diesel wants a table that is known to the compiler; this one is there only to name it.
diesel::table! {
    dynamic (column) {
        column -> Text,
    }
}

/// What is copied into: known at run time only, though diesel asks the type and not a value.
struct Target;

thread_local! {
    static TARGET: RefCell<String> = const { RefCell::new(String::new()) };
}

impl Target {
    /// Runs `work`, in which this type stands for `target`.
    fn with<R>(target: &str, work: impl FnOnce() -> R) -> R {
        struct Restore(String);
        impl Drop for Restore {
            fn drop(&mut self) {
                TARGET.set(mem::take(&mut self.0));
            }
        }
        // Where the rows come from, others may be copied.
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
