//! Applies and reverts one migration.

use std::panic::{self, AssertUnwindSafe};

use super::foreign_keys::{self, Violations};
use super::history::{self, AppliedMigration, Store};
use super::script::{Bracket, Script, bracket, dropped_names, names, sets_session};
use super::source::Migration;
use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::connection::{Connection, transact};
use crate::error::DbError;
use crate::error::{MigrationError, MigrationStop};
use crate::sql::{ScriptStatement, facts, statements};

/// The context of all steps of a run.
pub(crate) struct Run<'a> {
    pub(crate) config: &'a DatabaseConfig,
    pub(crate) store: &'a Store,
    pub(crate) set: &'a str,
}

impl Run<'_> {
    /// Applies a migration. Skips its first `done` statements, which an earlier run has applied.
    pub(crate) fn apply(
        &self,
        connection: &mut Connection,
        migration: &Migration,
        done: Option<usize>,
    ) -> Result<(), DbError> {
        // After a failure, the earlier run has recorded them.
        let adopted = match done {
            None => adopted(connection, migration)?,
            Some(_) => None,
        };
        let adopted = adopted.as_deref();
        let record = |connection: &mut Connection, done| {
            self.store
                .record(connection, migration, self.set, done, adopted)
        };
        if migration.in_transaction {
            return self.whole(connection, migration, &migration.up, |connection| {
                record(connection, None)
            });
        }
        self.run_statements(
            connection,
            migration,
            &migration.up,
            done.unwrap_or(0),
            |connection, done| record(connection, Some(done)),
        )?;
        record(connection, None)
    }

    /// Reverts a migration. Outside a transaction, the whole `down.sql` runs, even if the migration was applied only in
    /// part.
    pub(crate) fn revert(
        &self,
        connection: &mut Connection,
        migration: &Migration,
        record: Option<&AppliedMigration>,
    ) -> Result<(), DbError> {
        let down = migration.down.as_deref().unwrap_or_default();
        let set = record.map_or(self.set, |record| &record.set);
        let forget =
            |connection: &mut Connection| self.store.forget(connection, &migration.version, set);
        if !migration.in_transaction {
            self.run_statements(connection, migration, down, 0, |_, _| Ok(()))?;
            return forget(connection);
        }
        let mut kept = record.map_or_else(Vec::new, AppliedMigration::adopted_tables);
        if !kept.is_empty() {
            let before = history::tables(connection)?;
            kept.retain(|table| before.contains(table));
        }
        self.whole(connection, migration, down, |connection| {
            if !kept.is_empty() {
                let after = history::tables(connection)?;
                kept.retain(|table| !after.contains(table));
            }
            if kept.is_empty() {
                return forget(connection);
            }
            Err(MigrationError::Adopted {
                migration: migration.name.clone(),
                tables: kept,
            }
            .into())
        })
    }

    /// Runs a script, and `note`, which records the result, in one transaction.
    fn whole(
        &self,
        connection: &mut Connection,
        migration: &Migration,
        script: &str,
        note: impl FnOnce(&mut Connection) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let script = Script::check(migration, script, connection.backend())?;
        if let Some(enforced) = script.foreign_keys {
            // It has no effect inside a transaction.
            foreign_keys::enforce(connection, enforced)?;
        }
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            let before = match script.foreign_keys {
                // An error means that the keys do not fit their tables, which the migration may correct.
                Some(false) => Violations::find(connection).ok(),
                _ => None,
            };
            let outcome = transact(connection, Connection::begin, |connection| {
                super::lock::hold_until_commit(connection)?;
                execute_script(connection, migration, script.text)?;
                if let Some(before) = before {
                    before.compare(connection, migration)?;
                }
                // The history is written, and the next migration runs, as the role and with the settings of the service.
                connection.reset_settings()?;
                note(connection)
            });
            outcome.map_err(|failure| failure.into_error(connection))
        }));
        let restored = self.restore(connection);
        let outcome = outcome.unwrap_or_else(|payload| panic::resume_unwind(payload));
        outcome.map_err(|error| match error {
            // It is unknown whether the migration was rolled back.
            DbError::OutcomeUnknown(_) => error,
            // These say it themselves.
            DbError::Migration(_) => error,
            error => failed(migration, MigrationStop::RolledBack, error),
        })?;
        restored
    }

    /// Runs the statements of a script after the first `done`, each outside a transaction, and calls `note` after each.
    /// The statements from `BEGIN` to `COMMIT` count as one.
    fn run_statements(
        &self,
        connection: &mut Connection,
        migration: &Migration,
        script: &str,
        done: usize,
        mut note: impl FnMut(&mut Connection, usize) -> Result<(), DbError>,
    ) -> Result<(), DbError> {
        let backend = connection.backend();
        let statements = statements(script, backend);
        let count = statements.len();
        let mut is_open = false;
        let mut run = |connection: &mut Connection, index: usize, text: &str| {
            if index < done {
                // The session of the earlier run is gone.
                return match !is_open && sets_session(text, backend) {
                    true => execute(connection, text),
                    false => Ok(()),
                };
            }
            match bracket(text, backend) {
                Bracket::Begin => {
                    is_open = true;
                    execute(connection, text)
                }
                Bracket::Commit => {
                    is_open = false;
                    note_as_service(connection, |connection| note(connection, index + 1))?;
                    execute(connection, text)
                }
                _ if is_open => execute(connection, text),
                _ => {
                    execute_checked(connection, migration, text, &statements[index + 1..])?;
                    note_as_service(connection, |connection| note(connection, index + 1))
                }
            }
        };
        let mut result = Ok(());
        for (index, ScriptStatement { text, line }) in statements.iter().enumerate() {
            let stop = MigrationStop::At {
                statement: index + 1,
                statements: count,
                line: *line,
            };
            result = run(connection, index, text).map_err(|error| failed(migration, stop, error));
            if result.is_err() {
                break;
            }
        }
        if result.is_err() && connection.is_in_transaction() {
            // `BEGIN` without its `COMMIT`. The next run repeats it.
            let _ = execute(connection, "ROLLBACK");
        }
        let restored = self.restore(connection);
        result.and(restored)
    }

    /// Restores the state of the session for the next migration, if the words of the last one show a change.
    fn restore(&self, connection: &mut Connection) -> Result<(), DbError> {
        if !connection.may_have_changed_session() || connection.is_lost() {
            return Ok(());
        }
        connection.reset_after_migration(self.config)
    }
}

/// Runs the script of a migration that runs in a transaction.
fn execute_script(
    connection: &mut Connection,
    migration: &Migration,
    script: &str,
) -> Result<(), DbError> {
    let backend = connection.backend();
    let statements = statements(script, backend);
    // libpq reports an error for an empty text.
    if backend == Backend::Postgres && !statements.is_empty() {
        return execute(connection, script);
    }
    for (index, statement) in statements.iter().enumerate() {
        execute_checked(
            connection,
            migration,
            statement.text,
            &statements[index + 1..],
        )?;
    }
    Ok(())
}

/// Runs a statement, after a check that it does not delete rows of other tables by dropping their parent.
fn execute_checked(
    connection: &mut Connection,
    migration: &Migration,
    sql: &str,
    rest: &[ScriptStatement<'_>],
) -> Result<(), DbError> {
    let backend = connection.backend();
    let dropped = match backend {
        Backend::Sqlite => dropped_names(sql, backend),
        Backend::Postgres => Default::default(),
    };
    if !dropped.is_empty() {
        let later: Vec<_> = rest
            .iter()
            .map(|statement| dropped_names(statement.text, backend))
            .collect();
        let is_dropped_later = |table: &str| {
            let table = table.to_lowercase();
            later.iter().any(|names| names.contains(&table))
        };
        foreign_keys::check_drop(connection, migration, &dropped, is_dropped_later)?;
    }
    execute(connection, sql)
}

/// Writes the history outside the migration's own transaction, or in one that it has begun, as the role of the service.
fn note_as_service(
    connection: &mut Connection,
    note: impl FnOnce(&mut Connection) -> Result<(), DbError>,
) -> Result<(), DbError> {
    const ROLE: &str = "SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL ROLE NONE";
    if connection.backend() == Backend::Sqlite || !connection.may_have_changed_session() {
        return note(connection);
    }
    if connection.is_in_transaction() {
        connection.run(ROLE)?;
        return note(connection);
    }
    let outcome = transact(
        connection,
        |connection| connection.begin_with("BEGIN READ WRITE"),
        |connection| {
            connection.run(ROLE)?;
            note(connection)
        },
    );
    outcome.map_err(|failure| failure.into_error(connection))
}

/// Returns the tables that exist before the migration, that its scripts name and that it does not drop, as JSON.
fn adopted(connection: &mut Connection, migration: &Migration) -> Result<Option<String>, DbError> {
    let backend = connection.backend();
    let down = migration.down.as_deref().unwrap_or_default();
    let mut named = names(&migration.up, backend);
    named.append(&mut names(down, backend));
    for statement in statements(&migration.up, backend) {
        for name in dropped_names(statement.text, backend) {
            named.remove(&name);
        }
    }
    let mut tables = history::tables(connection)?;
    tables.retain(|table| {
        let name = match backend {
            Backend::Postgres => table
                .split_once('.')
                .map_or(table.as_str(), |(_, name)| name),
            Backend::Sqlite => table,
        };
        named.contains(&name.to_lowercase())
    });
    Ok((!tables.is_empty()).then(|| serde_json::json!(tables).to_string()))
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
