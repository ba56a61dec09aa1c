//! The plan of a migration run: pure data, computed from the source's migrations and the history of the database.

use super::history::{AppliedMigration, EVERYTHING, History};
use super::script::{Script, dropped_names};
use super::source::Migration;
use super::{MigrationState, MigrationStatus, PlannedMigration};
use crate::backend::Backend;
use crate::error::MigrationError;
use crate::sql::statements;

/// The steps of a run, in order.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    steps: Vec<Step<'a>>,
}

/// One step of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// Applies a migration. `done` is the number of its statements that an earlier, failed run has applied.
    Apply {
        migration: &'a Migration,
        done: Option<usize>,
    },
    /// Records a migration as applied, without running it.
    Record {
        migration: &'a Migration,
        /// Whether the run reports the version to its caller.
        is_reported: bool,
        /// The note in the history about tables that the migration did not create.
        adopted: Option<&'a str>,
    },
    /// Reverts a migration.
    Revert {
        migration: &'a Migration,
        record: Option<&'a AppliedMigration>,
    },
}

impl<'a> Plan<'a> {
    /// Plans the pending migrations.
    ///
    /// # Errors
    ///
    /// Returns an error if applied migrations were changed or are missing in the source, or if one to apply contains a
    /// statement that is refused.
    pub(crate) fn apply(
        migrations: &'a [Migration],
        history: &'a History,
        set: &str,
        backend: Backend,
    ) -> Result<Self, MigrationError> {
        check(migrations, history, set)?;
        let mut steps = Vec::new();
        for migration in migrations {
            let record = history.records.get(&migration.version);
            if !history.applied.contains(&migration.version) {
                let done = history.done(&migration.version);
                Script::check(migration, &migration.up, backend)?;
                steps.push(Step::Apply { migration, done });
            } else if record.is_none_or(|record| record.set != set && !set.is_empty()) {
                // diesel's own tools applied it, so its checksum at that time is unknown, or the source had no name.
                // The present text is recorded.
                steps.push(Step::Record {
                    migration,
                    is_reported: false,
                    adopted: record.and_then(|record| record.adopted.as_deref()),
                });
            }
        }
        Ok(Plan { steps })
    }

    /// Plans to revert the last `count` migrations that are applied, also in part, newest first.
    ///
    /// # Errors
    ///
    /// Returns an error if one of them cannot be reverted, and the errors of [`apply`](Plan::apply).
    pub(crate) fn revert(
        migrations: &'a [Migration],
        history: &'a History,
        set: &str,
        count: usize,
        backend: Backend,
    ) -> Result<Self, MigrationError> {
        check(migrations, history, set)?;
        let is_begun = |migration: &&Migration| {
            history.applied.contains(&migration.version)
                || history.done(&migration.version).is_some()
        };
        let newest_first = migrations.iter().rev().filter(is_begun).take(count);
        let step = |migration: &'a Migration| {
            let Some(down) = &migration.down else {
                return Err(MigrationError::Irreversible {
                    migration: migration.name.clone(),
                });
            };
            Script::check(migration, down, backend)?;
            let record = history.records.get(&migration.version);
            if let Some(record) = record {
                check_drops(migration, down, record, backend)?;
            }
            Ok(Step::Revert { migration, record })
        };
        Ok(Plan {
            steps: newest_first.map(step).collect::<Result<_, _>>()?,
        })
    }

    /// Plans to record migrations that are not recorded with their present text.
    pub(crate) fn baseline(migrations: &'a [Migration], history: &'a History) -> Self {
        let is_new = |migration: &&Migration| {
            !history.applied.contains(&migration.version) || history.is_changed(migration)
        };
        let record = |migration: &'a Migration| Step::Record {
            migration,
            is_reported: true,
            adopted: match history.records.get(&migration.version) {
                Some(record) => record.adopted.as_deref(),
                None => Some(EVERYTHING),
            },
        };
        Plan {
            steps: migrations.iter().filter(is_new).map(record).collect(),
        }
    }

    pub(crate) fn steps(&self) -> &[Step<'a>] {
        &self.steps
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the versions that a run of the plan reports to its caller.
    pub(crate) fn reported_versions(&self) -> Vec<String> {
        let version = |step: &Step<'_>| match step {
            Step::Record {
                is_reported: false, ..
            } => None,
            Step::Apply { migration, .. }
            | Step::Record { migration, .. }
            | Step::Revert { migration, .. } => Some(migration.version.clone()),
        };
        self.steps.iter().filter_map(version).collect()
    }

    /// Returns the migrations to apply, as users see them.
    pub(crate) fn pending(&self) -> Vec<PlannedMigration> {
        let planned = |step: &Step<'_>| match *step {
            Step::Apply { migration, done } => Some(PlannedMigration {
                version: migration.version.clone(),
                name: migration.name.clone(),
                sql: migration.up.clone(),
                in_transaction: migration.in_transaction,
                done: done.unwrap_or(0),
            }),
            Step::Record { .. } | Step::Revert { .. } => None,
        };
        self.steps.iter().filter_map(planned).collect()
    }
}

/// Returns the migrations up to a version.
pub(crate) fn up_to<'a>(
    migrations: &'a [Migration],
    version: &str,
) -> Result<&'a [Migration], MigrationError> {
    let last = migrations
        .iter()
        .position(|migration| migration.version == version);
    match last {
        Some(last) => Ok(&migrations[..=last]),
        None => Err(MigrationError::UnknownVersion {
            version: version.to_owned(),
        }),
    }
}

/// Returns the states of all migrations of the source, and of applied ones that it lacks, in order.
pub(crate) fn status(
    migrations: &[Migration],
    history: &History,
    set: &str,
) -> Vec<MigrationStatus> {
    let missing = missing(migrations, history, set).map(|(version, name)| MigrationStatus {
        version: version.to_owned(),
        name: name.to_owned(),
        applied: true,
        state: MigrationState::Missing,
    });
    let known = migrations.iter().map(|migration| {
        let applied = history.applied.contains(&migration.version);
        let state = match history.done(&migration.version) {
            Some(done) => MigrationState::Incomplete { done },
            None if history.is_changed(migration) => MigrationState::Changed,
            None if applied => MigrationState::Applied,
            None => MigrationState::Pending,
        };
        MigrationStatus {
            version: migration.version.clone(),
            name: migration.name.clone(),
            applied,
            state,
        }
    });
    let mut all: Vec<_> = missing.chain(known).collect();
    all.sort_by(|left, right| left.version.cmp(&right.version));
    all
}

/// Returns an error if applied migrations were changed or are missing in the source.
fn check(migrations: &[Migration], history: &History, set: &str) -> Result<(), MigrationError> {
    let changed = migrations
        .iter()
        .filter(|migration| history.is_changed(migration));
    let (begun, changed): (Vec<&Migration>, Vec<&Migration>) =
        changed.partition(|migration| history.done(&migration.version).is_some());
    // Another source without a name can have applied it.
    let other = changed
        .iter()
        .filter(|_| set.is_empty())
        .find_map(|migration| {
            let record = history.records.get(&migration.version)?;
            (record.name != migration.name).then_some((migration, record))
        });
    if let Some((migration, record)) = other {
        return Err(MigrationError::VersionInUse {
            migration: migration.name.clone(),
            applied: record.name.clone(),
        });
    }
    if !changed.is_empty() {
        let migrations = changed
            .iter()
            .map(|migration| migration.name.clone())
            .collect();
        return Err(MigrationError::Drift { migrations });
    }
    if let Some(migration) = begun.first() {
        return Err(MigrationError::Incomplete {
            migration: migration.name.clone(),
            done: history.done(&migration.version).unwrap_or(0),
        });
    }
    // A newer version of the program may have applied newer migrations and run beside this one.
    let newest = migrations
        .last()
        .map_or("", |migration| migration.version.as_str());
    let missing: Vec<String> = missing(migrations, history, set)
        .filter(|(version, _)| *version < newest)
        .map(|(_, name)| name.to_owned())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(MigrationError::Missing {
            migrations: missing,
        })
    }
}

/// Returns an error if reverting would drop what the migration did not create, as far as the script shows it. In a
/// transaction, the tables are compared too.
fn check_drops(
    migration: &Migration,
    down: &str,
    record: &AppliedMigration,
    backend: Backend,
) -> Result<(), MigrationError> {
    let adopted = |tables| {
        Err(MigrationError::Adopted {
            migration: migration.name.clone(),
            tables,
        })
    };
    if record.adopted.as_deref() == Some(EVERYTHING) {
        return adopted(Vec::new());
    }
    if migration.in_transaction {
        return Ok(());
    }
    let mut tables = record.adopted_tables();
    let dropped: Vec<_> = statements(down, backend)
        .iter()
        .map(|statement| dropped_names(statement.text, backend))
        .collect();
    tables.retain(|table| {
        let name = table.rsplit('.').next().unwrap_or(table).to_lowercase();
        dropped.iter().any(|names| names.contains(&name))
    });
    match tables.is_empty() {
        true => Ok(()),
        false => adopted(tables),
    }
}

/// Returns the version and name of each applied migration of the set that the source lacks.
fn missing<'a>(
    migrations: &'a [Migration],
    history: &'a History,
    set: &'a str,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let lacks = |version: &str| {
        migrations
            .iter()
            .all(|migration| migration.version != version)
    };
    history
        .records
        .iter()
        .filter(move |(_, record)| !set.is_empty() && record.set == set)
        .filter(move |(version, _)| history.applied.contains(*version) && lacks(version))
        .map(|(version, record)| (version.as_str(), record.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::super::history::AppliedMigration;
    use super::*;

    fn migration(version: &str, down: Option<&str>) -> Migration {
        Migration {
            version: version.to_owned(),
            name: format!("{version}_name"),
            up: "SELECT 1".to_owned(),
            down: down.map(str::to_owned),
            in_transaction: true,
            checksum: "present".to_owned(),
            marked_checksum: None,
        }
    }

    fn record(checksum: &str, done: Option<usize>) -> AppliedMigration {
        AppliedMigration {
            name: String::new(),
            set: "set".to_owned(),
            checksum: checksum.to_owned(),
            done,
            adopted: None,
        }
    }

    #[test]
    fn pending_migrations_are_applied_and_those_of_diesel_recorded() {
        let migrations = ["1", "2", "3", "4"].map(|version| migration(version, None));
        let mut history = History::default();
        // diesel's tools applied 1, this crate applied 2, and 3 failed after two statements.
        history.applied.extend(["1".to_owned(), "2".to_owned()]);
        history
            .records
            .insert("2".to_owned(), record("present", None));
        history
            .records
            .insert("3".to_owned(), record("present", Some(2)));
        let plan = Plan::apply(&migrations, &history, "set", Backend::Postgres).unwrap();
        assert_eq!(plan.steps().len(), 3);
        assert_eq!(plan.reported_versions(), ["3", "4"]);
        let done: Vec<usize> = plan.pending().iter().map(|planned| planned.done).collect();
        assert_eq!(done, [2, 0]);
    }

    #[test]
    fn changed_migrations_stop_each_plan_except_a_baseline() {
        let migrations = [migration("1", Some("SELECT 1"))];
        let mut history = History::default();
        history.applied.insert("1".to_owned());
        history
            .records
            .insert("1".to_owned(), record("earlier", None));
        assert!(Plan::apply(&migrations, &history, "set", Backend::Postgres).is_err());
        assert!(Plan::revert(&migrations, &history, "set", 1, Backend::Postgres).is_err());
        let plan = Plan::baseline(up_to(&migrations, "1").unwrap(), &history);
        assert_eq!(plan.reported_versions(), ["1"]);
    }

    #[test]
    fn revert_is_refused_as_a_whole_if_one_migration_has_no_down_script() {
        let migrations = [migration("1", None), migration("2", Some("SELECT 1"))];
        let mut history = History::default();
        history.applied.extend(["1".to_owned(), "2".to_owned()]);
        let plan = Plan::revert(&migrations, &history, "set", 1, Backend::Postgres).unwrap();
        assert_eq!(plan.reported_versions(), ["2"]);
        let error = Plan::revert(&migrations, &history, "set", 2, Backend::Postgres).unwrap_err();
        assert!(matches!(error, MigrationError::Irreversible { .. }));
    }
}
