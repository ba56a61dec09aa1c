//! Text for parameters of any type, as a literal in the statement would be: PostgreSQL is asked once what type
//! each parameter has, and text is cast to it there.

use std::fmt::Write;
use std::sync::Arc;

use crate::error::DbError;
use crate::multi::DbConnection as Connection;
use crate::observer::{self, Known};
use crate::params::Params;
use crate::scanner::{Parsed, Piece};
use crate::statement::Casts;

/// The types that text needs no cast for.
const TEXTS: [&str; 6] = [
    "text",
    "character varying",
    "character",
    "\"char\"",
    "name",
    "unknown",
];

impl Connection {
    /// Finds out what text is to be cast to in a statement; nothing where the server cannot tell.
    pub(crate) fn casts(&mut self, sql: &str, parsed: &Parsed<'_>) -> Option<Casts> {
        if let Some(known) = self.observer()?.casts.get(sql) {
            return Some(Arc::clone(known));
        }
        let asked = observer::with_known(Known::OURS, || self.ask(parsed));
        let casts: Casts = asked.unwrap_or_default().into();
        let observer = self.observer()?;
        // As with prepared statements: who writes values into statements must not fill the memory.
        if observer.casts.len() >= 1024 {
            observer.casts.clear();
        }
        observer.casts.insert(sql.to_owned(), Arc::clone(&casts));
        Some(casts)
    }

    fn ask(&mut self, parsed: &Parsed<'_>) -> Result<Vec<Option<String>>, DbError> {
        const NAME: &str = "db_service_parameters";
        let mut prepare = format!("PREPARE {NAME} AS ");
        for piece in &parsed.pieces {
            match piece {
                Piece::Text(text) => prepare.push_str(text),
                // Writing to a string does not fail.
                Piece::Parameter(index) => drop(write!(prepare, "${}", index + 1)),
            }
        }
        // A statement that cannot be prepared would abort the transaction; outside of one, PgBouncer in transaction mode would send
        // each of ours to another server.
        let nested = self.transaction_depth() > 0
            || self.observer().is_some_and(|seen| seen.raw_transaction);
        let (begin, end, undo) = if nested {
            (
                "SAVEPOINT db_service_parameters",
                "RELEASE SAVEPOINT db_service_parameters",
                "ROLLBACK TO SAVEPOINT db_service_parameters",
            )
        } else {
            ("BEGIN", "COMMIT", "ROLLBACK")
        };
        self.run(begin)?;
        let types = self.run(&prepare).map_err(DbError::from).and_then(|()| {
            let sql = format!(
                "SELECT parameter::text AS name FROM pg_catalog.pg_prepared_statements, \
                 unnest(parameter_types) WITH ORDINALITY AS parameters (parameter, position) \
                 WHERE name = '{NAME}' ORDER BY position"
            );
            let rows = self.execute_query(&sql, Params::new());
            self.run(&format!("DEALLOCATE {NAME}"))?;
            rows?.iter().map(|row| row.get::<String>("name")).collect()
        });
        self.run(if types.is_ok() { end } else { undo })?;
        let types: Vec<String> = types?;
        let cast = |name: String| Some(name).filter(|name| !TEXTS.contains(&name.as_str()));
        Ok(types.into_iter().map(cast).collect())
    }
}
