//! Values that take their type from their place in the statement, like literals: text, JSON and arrays.
//!
//! PostgreSQL reports once per statement which types its parameters have. A text for a parameter of the type `text` is
//! sent as a parameter. For all other types it is written as a literal, so that the server resolves it in each
//! execution: the type of a column may have changed since, and a cast to the former type could change the value without
//! an error. A statement of this process that may change types makes all connections ask again.
//!
//! The question is a `PREPARE` in the extended protocol, which accepts only one statement. So a text with several
//! statements is refused, and none of them is executed, even if this crate's own scan misses the second one.

use std::fmt::Write;

use diesel::RunQueryDsl;
use diesel::result::Error as DieselError;

use super::Connection;
use super::known_statements::KnownStatement;
use crate::backend::Backend;
use crate::dialect::{Needs, ParameterTypes, postgres};
use crate::error::DbError;
use crate::sql::{ParsedStatement, Piece, SideEffects};
use crate::values::Params;

/// The types of a statement's parameters, as PostgreSQL has reported them.
#[derive(Debug)]
pub(crate) struct AskedTypes {
    /// The number of statements that may have changed types before.
    redefinitions: u64,
    /// The parameters that were lists.
    lists: Vec<bool>,
    types: ParameterTypes,
}

/// The prepared statement of a question.
const NAME: &str = "db_service_parameters";

/// The types of its parameters.
const TYPES: &str = "SELECT CAST(parameter AS pg_catalog.oid) AS oid FROM pg_catalog.pg_prepared_statements AS s, \
     pg_catalog.unnest(s.parameter_types) WITH ORDINALITY AS parameters (parameter, position) \
     WHERE s.name OPERATOR(pg_catalog.=) 'db_service_parameters' ORDER BY position";

impl Connection {
    /// Returns the types of the parameters, if a value needs them and the backend is PostgreSQL.
    pub(super) fn parameter_types(
        &mut self,
        statement: &KnownStatement,
        needs: &Needs,
    ) -> ParameterTypes {
        if !needs.types || self.backend() != Backend::Postgres {
            return ParameterTypes::NotNeeded;
        }
        if !statement.parsed.is_preparable {
            return ParameterTypes::Unknown;
        }
        let now = self.session().observed.statistics.redefinitions.get();
        if let Some(asked) = &*statement.types.lock()
            && asked.redefinitions == now
            && asked.lists == needs.lists
        {
            return asked.types.clone();
        }
        self.ask_for_types(statement, needs)
    }

    /// Asks PostgreSQL for the types of a statement's parameters.
    pub(super) fn ask_for_types(
        &mut self,
        statement: &KnownStatement,
        needs: &Needs,
    ) -> ParameterTypes {
        if !needs.types || !statement.parsed.is_preparable {
            return self.parameter_types(statement, needs);
        }
        let redefinitions = self.session().observed.statistics.redefinitions.get();
        let asked = self.internally(|connection| connection.ask(&statement.parsed, needs));
        // An error about something else, such as a timeout, says nothing about the statement.
        let is_answer = matches!(asked, Ok(_) | Err(DbError::Query(_) | DbError::Syntax(_)));
        let types = match asked.map(|types| by_name(&statement.parsed, &types)) {
            Ok(Some(types)) => ParameterTypes::Known(types.into()),
            _ => ParameterTypes::Unknown,
        };
        *statement.types.lock() = is_answer.then(|| AskedTypes {
            redefinitions,
            lists: needs.lists.clone(),
            types: types.clone(),
        });
        types
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

    /// Returns the type of each parameter, in the order of the statement. A name that occurs twice is asked for twice.
    fn ask(&mut self, parsed: &ParsedStatement, needs: &Needs) -> Result<Vec<u32>, DbError> {
        let mut prepare = format!("PREPARE {NAME} AS ");
        let pieces: Vec<_> = parsed.pieces().collect();
        let mut count = 0;
        for (position, piece) in pieces.iter().enumerate() {
            match piece {
                Piece::Text(text) => prepare.push_str(text),
                Piece::List(text, operator) => {
                    let list = postgres::list_operator(*operator).unwrap_or(text);
                    let is_list = needs.is_list(&pieces[position..]);
                    prepare.push_str(if is_list { list } else { text });
                }
                Piece::Parameter(_) => {
                    count += 1;
                    // Writing to a string cannot fail.
                    let _ = write!(prepare, "${count}");
                }
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
                let none = Params::new();
                let rows = self.load(&types, &none, ParameterTypes::NotNeeded, None);
                self.run(&format!("DEALLOCATE {NAME}"))?;
                is_left = false;
                rows?.iter().map(|row| row.get::<u32>("oid")).collect()
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
        types
    }
}

/// Returns the type of each name, or `None` if a name occurs at places with different types.
fn by_name(parsed: &ParsedStatement, types: &[u32]) -> Option<Vec<u32>> {
    let places = parsed.pieces().filter_map(|piece| match piece {
        Piece::Parameter(index) => Some(index),
        _ => None,
    });
    let mut found: Vec<Option<u32>> = vec![None; parsed.names.len()];
    for (index, oid) in places.zip(types) {
        // Both have the same operators and the same values.
        let oid = if *oid == postgres::VARCHAR {
            postgres::TEXT
        } else {
            *oid
        };
        if found[index]
            .replace(oid)
            .is_some_and(|before| before != oid)
        {
            return None;
        }
    }
    found.into_iter().collect()
}
