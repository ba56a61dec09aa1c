//! Text as a parameter of any type, like a literal in the statement.
//!
//! PostgreSQL reports once per statement which type each parameter has, and text is cast to that type. The question is
//! a `PREPARE` in the extended protocol, which accepts only one statement. So a text with several statements is
//! refused, and none of them is executed, even if this crate's own scan misses the second one.

use std::fmt::Write;
use std::sync::Arc;

use diesel::RunQueryDsl;
use diesel::result::Error as DieselError;

use super::Connection;
use super::instrumentation::{self, StatementContext};
use crate::dialect::ParameterCasts;
use crate::error::DbError;
use crate::sql::{ParsedStatement, Piece};
use crate::values::Params;

/// The types for which text needs no cast, as [`ask`](Connection::ask) names them.
const TEXTS: [&str; 6] = [
    "pg_catalog.text",
    "pg_catalog.\"varchar\"",
    "pg_catalog.bpchar",
    "pg_catalog.\"char\"",
    "pg_catalog.name",
    "pg_catalog.unknown",
];

impl Connection {
    /// Returns the parameter casts of a statement, without casts if the server cannot determine the types.
    pub(crate) fn casts(
        &mut self,
        sql: &str,
        parsed: &ParsedStatement<'_>,
    ) -> Option<ParameterCasts> {
        if let Some(known) = self.observer()?.casts.get(sql) {
            return Some(known);
        }
        let asked = instrumentation::with_context(StatementContext::INTERNAL, || self.ask(parsed));
        let casts: ParameterCasts = asked.unwrap_or_default().into();
        self.observer()?.casts.insert(sql, Arc::clone(&casts));
        Some(casts)
    }

    /// Runs a statement that contains text of the user, in the protocol that accepts only one statement.
    fn run_single(&mut self, sql: &str) -> Result<(), DieselError> {
        match self {
            Connection::Postgres(connection) => {
                diesel::sql_query(sql).execute(connection).map(drop)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => Ok(()),
        }
    }

    fn ask(&mut self, parsed: &ParsedStatement<'_>) -> Result<Vec<Option<String>>, DbError> {
        const NAME: &str = "db_service_parameters";
        let mut prepare = format!("PREPARE {NAME} AS ");
        for piece in &parsed.pieces {
            match piece {
                Piece::Text(text) => prepare.push_str(text),
                // Writing to a string cannot fail.
                Piece::Parameter(index) => drop(write!(prepare, "${}", index + 1)),
            }
        }
        // Inside a transaction, a savepoint keeps a failed `PREPARE` from aborting it. Outside, a transaction keeps
        // PgBouncer in transaction mode from sending the statements to different servers.
        let nested = self.transaction_depth() > 0
            || self.observer().is_some_and(|seen| seen.has_raw_transaction);
        let (begin, end, undo) = if nested {
            (
                "SAVEPOINT db_service_parameters",
                "RELEASE SAVEPOINT db_service_parameters",
                "ROLLBACK TO SAVEPOINT db_service_parameters",
            )
        } else {
            ("BEGIN", "COMMIT", "ROLLBACK")
        };
        if let Err(error) = self.run(begin) {
            if !nested {
                self.undo(undo);
            }
            return Err(error.into());
        }
        let mut is_left = false;
        let types = self.run_single(&prepare).map_err(DbError::from).and_then(|()| {
            is_left = true;
            // Internal type names have no length. `CAST(x AS character)` would truncate the text to one character.
            let sql = format!(
                "SELECT pg_catalog.format('%I.%I', n.nspname, t.typname) AS name \
                 FROM pg_catalog.pg_prepared_statements AS s, \
                 pg_catalog.unnest(s.parameter_types) WITH ORDINALITY AS parameters (parameter, position) \
                 JOIN pg_catalog.pg_type t ON t.oid = parameter JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
                 WHERE s.name = '{NAME}' ORDER BY position"
            );
            let rows = self.execute_query(&sql, Params::new());
            self.run(&format!("DEALLOCATE {NAME}"))?;
            is_left = false;
            rows?.iter().map(|row| row.get::<String>("name")).collect()
        });
        // A cancellation may have left the prepared name in use, so the next question would fail.
        if is_left && let Some(observer) = self.observer() {
            observer.is_dirty = true;
        }
        if types.is_err() {
            self.undo(undo);
        } else if let Err(error) = self.run(end) {
            self.undo(undo);
            return Err(error.into());
        }
        let types: Vec<String> = types?;
        let cast = |name: String| Some(name).filter(|name| !TEXTS.contains(&name.as_str()));
        Ok(types.into_iter().map(cast).collect())
    }
}
