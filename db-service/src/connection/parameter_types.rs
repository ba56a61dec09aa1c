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
use super::known_statements::KnownStatement;
use crate::backend::Backend;
use crate::dialect::ParameterCasts;
use crate::error::DbError;
use crate::sql::{ParsedStatement, Piece, SideEffects};
use crate::values::Params;

/// The types for which text needs no cast, as [`TYPES`] names them.
const TEXTS: [&str; 6] = [
    "pg_catalog.text",
    "pg_catalog.\"varchar\"",
    "pg_catalog.bpchar",
    "pg_catalog.\"char\"",
    "pg_catalog.name",
    "pg_catalog.unknown",
];

/// The prepared statement of a question.
const NAME: &str = "db_service_parameters";

/// The types of its parameters. Internal type names have no length: `CAST(x AS character)` would truncate the text to
/// one character.
const TYPES: &str = "SELECT pg_catalog.format('%I.%I', n.nspname, t.typname) AS name \
     FROM pg_catalog.pg_prepared_statements AS s, \
     pg_catalog.unnest(s.parameter_types) WITH ORDINALITY AS parameters (parameter, position) \
     JOIN pg_catalog.pg_type t ON t.oid = parameter JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
     WHERE s.name = 'db_service_parameters' ORDER BY position";

impl Connection {
    /// Returns the parameter casts, if a parameter is text and the backend is PostgreSQL. They are empty if the server
    /// cannot determine the types.
    pub(crate) fn casts_for(
        &mut self,
        statement: &KnownStatement,
        has_text: bool,
    ) -> Option<ParameterCasts> {
        let is_asked = has_text && statement.parsed.is_preparable;
        if !is_asked || self.backend() != Backend::Postgres {
            return None;
        }
        if let Some(casts) = statement.casts.get() {
            return Some(Arc::clone(casts));
        }
        let casts = self.ask_for_casts(&statement.parsed);
        Some(Arc::clone(statement.casts.get_or_init(|| casts)))
    }

    /// Asks PostgreSQL for the types of a statement's parameters.
    pub(super) fn ask_for_casts(&mut self, parsed: &ParsedStatement) -> ParameterCasts {
        let asked = self.internally(|connection| connection.ask(parsed));
        asked.unwrap_or_default().into()
    }

    /// Runs a statement that contains text of the user, in the protocol that accepts only one statement.
    fn run_single(&mut self, sql: &str) -> Result<(), DieselError> {
        let running = self.start(SideEffects::default(), None);
        let result = match self {
            Connection::Postgres(connection) => {
                diesel::sql_query(sql).execute(connection).map(drop)
            }
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => Ok(()),
        };
        self.session().finish(&running, result.as_ref().err());
        result
    }

    fn ask(&mut self, parsed: &ParsedStatement) -> Result<Vec<Option<String>>, DbError> {
        let mut prepare = format!("PREPARE {NAME} AS ");
        for piece in parsed.pieces() {
            match piece {
                Piece::Text(text) => prepare.push_str(text),
                // Writing to a string cannot fail.
                Piece::Parameter(index) => drop(write!(prepare, "${}", index + 1)),
            }
        }
        self.check_usable()?;
        // Inside a transaction, a savepoint keeps a failed `PREPARE` from aborting it. Outside, a transaction keeps
        // PgBouncer in transaction mode from sending the statements to different servers.
        let nested = self.is_in_transaction();
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
        let failure = self.session().first_failure();
        let mut is_left = false;
        let types = self
            .run_single(&prepare)
            .map_err(DbError::from)
            .and_then(|()| {
                is_left = true;
                let types = self.known(TYPES)?;
                let rows = self.load(&types, &Params::new(), None, None);
                self.run(&format!("DEALLOCATE {NAME}"))?;
                is_left = false;
                rows?.iter().map(|row| row.get::<String>("name")).collect()
            });
        // A cancellation may have left the prepared name in use, so the next question would fail.
        if is_left {
            self.session().is_dirty = true;
        }
        if types.is_err() {
            self.undo(undo);
            // The failed question is not the user's.
            self.session().restore_first_failure(failure);
        } else if let Err(error) = self.run(end) {
            self.undo(undo);
            return Err(error.into());
        }
        let types: Vec<String> = types?;
        let cast = |name: String| Some(name).filter(|name| !TEXTS.contains(&name.as_str()));
        Ok(types.into_iter().map(cast).collect())
    }
}
