//! Applies and reverts one migration.

use super::source::Migration;
use crate::connection::{Connection, transact};
use crate::error::DbError;
use crate::error::{MigrationError, MigrationStop};
use crate::sql::{ScriptStatement, facts, statements};

/// Applies a migration. Skips its first `done` statements, which an earlier run has applied.
pub(crate) fn apply(
    connection: &mut Connection,
    migration: &Migration,
    set: &str,
    done: Option<usize>,
) -> Result<(), DbError> {
    if migration.in_transaction {
        return whole(connection, migration, &migration.up, |connection| {
            super::history::record(connection, migration, set, None)
        });
    }
    run_statements(
        connection,
        migration,
        &migration.up,
        done.unwrap_or(0),
        |connection, done| super::history::record(connection, migration, set, Some(done)),
    )?;
    super::history::record(connection, migration, set, None)
}

/// Reverts a migration. Outside a transaction, the whole `down.sql` runs, even if the migration was applied only in
/// part.
pub(crate) fn revert(connection: &mut Connection, migration: &Migration) -> Result<(), DbError> {
    let down = migration.down.as_deref().unwrap_or_default();
    let forget =
        |connection: &mut Connection| super::history::forget(connection, &migration.version);
    if migration.in_transaction {
        return whole(connection, migration, down, forget);
    }
    run_statements(connection, migration, down, 0, |_, _| Ok(()))?;
    forget(connection)
}

/// Runs a script, and `note`, which records the result, in one transaction.
fn whole(
    connection: &mut Connection,
    migration: &Migration,
    script: &str,
    note: impl FnOnce(&mut Connection) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let outcome = transact(connection, Connection::begin, |connection| {
        super::lock::hold_until_commit(connection)?;
        execute(connection, script)?;
        note(connection)
    });
    outcome
        .map_err(|failure| failure.into_error(connection))
        .map_err(|error| match error {
            // It is unknown whether the migration was rolled back.
            DbError::OutcomeUnknown(_) => error,
            error => failed(migration, MigrationStop::RolledBack, error),
        })
}

/// Runs the statements of a script after the first `done`, each outside a transaction, and calls `note` after each.
fn run_statements(
    connection: &mut Connection,
    migration: &Migration,
    script: &str,
    done: usize,
    mut note: impl FnMut(&mut Connection, usize) -> Result<(), DbError>,
) -> Result<(), DbError> {
    let statements = statements(script, connection.backend());
    let count = statements.len();
    for (index, ScriptStatement { text, line }) in statements.into_iter().enumerate().skip(done) {
        let stop = MigrationStop::At {
            statement: index + 1,
            statements: count,
            line,
        };
        execute(connection, text)
            .and_then(|()| note(connection, index + 1))
            .map_err(|error| failed(migration, stop, error))?;
    }
    Ok(())
}

fn execute(connection: &mut Connection, sql: &str) -> Result<(), DbError> {
    let side_effects = facts(sql, connection.backend()).side_effects;
    Ok(connection.run_text(sql, side_effects)?)
}

fn failed(migration: &Migration, stop: MigrationStop, source: DbError) -> DbError {
    MigrationError::Failed {
        migration: migration.name.clone(),
        stop,
        source: Box::new(source),
    }
    .into()
}
