//! Foreign keys of SQLite in migrations: turned off while tables are rebuilt, and checked before the commit.
//!
//! SQLite documents the procedure at <https://www.sqlite.org/lang_altertable.html#otheralter>.

use std::collections::{BTreeMap, BTreeSet};

use super::history;
use super::source::Migration;
use crate::connection::Connection;
use crate::error::{DbError, MigrationError};
use crate::params;
use crate::sql::{SideEffects, quote};

/// The rows whose parent is missing, counted by table, and all tables.
pub(crate) struct Violations {
    counts: BTreeMap<String, u64>,
    tables: BTreeSet<String>,
}

impl Violations {
    /// Finds them.
    ///
    /// # Errors
    ///
    /// Returns the database's error if a foreign key does not fit its parent's columns.
    pub(crate) fn find(connection: &mut Connection) -> Result<Self, DbError> {
        let sql =
            "SELECT \"table\" AS name, count(*) AS n FROM pragma_foreign_key_check GROUP BY 1";
        let mut counts = BTreeMap::new();
        for row in connection.execute_query(sql, params! {})? {
            let count: i64 = row.get("n")?;
            counts.insert(row.get("name")?, count.unsigned_abs());
        }
        Ok(Violations {
            counts,
            tables: history::tables(connection)?,
        })
    }

    /// Compares them with those at the end of the migration.
    ///
    /// # Errors
    ///
    /// Returns [`MigrationError::ForeignKeys`] if the migration has added some. Those of a table that is gone may have
    /// moved to a new table.
    pub(crate) fn compare(
        &self,
        connection: &mut Connection,
        migration: &Migration,
    ) -> Result<(), DbError> {
        let after = Violations::find(connection)?;
        let gone = self
            .counts
            .iter()
            .filter(|(table, _)| !after.tables.contains(*table));
        let mut moved: u64 = gone.map(|(_, count)| count).sum();
        let mut added = Vec::new();
        for (table, &count) in &after.counts {
            let mut before = self.counts.get(table).copied().unwrap_or(0);
            if !self.tables.contains(table) {
                before = count.min(moved);
                moved -= before;
            }
            if count > before {
                added.push((table.clone(), count - before));
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        Err(MigrationError::ForeignKeys {
            migration: migration.name.clone(),
            tables: added,
        }
        .into())
    }
}

/// Turns the enforcement of foreign keys on or off.
pub(crate) fn enforce(connection: &mut Connection, enforced: bool) -> Result<(), DbError> {
    // The pool closes the connection, in case the setting is not restored.
    let side_effects = SideEffects {
        session: true,
        ..SideEffects::default()
    };
    let sql = format!("PRAGMA foreign_keys = {}", i32::from(enforced));
    connection.run_text(&sql, side_effects)?;
    match is_enforced(connection)? == enforced {
        true => Ok(()),
        false => Err(DbError::Unsupported {
            what: "a change of foreign keys inside a transaction",
        }),
    }
}

fn is_enforced(connection: &mut Connection) -> Result<bool, DbError> {
    let sql = "SELECT foreign_keys AS enforced FROM pragma_foreign_keys";
    let rows = connection.execute_query(sql, params! {})?;
    let enforced: i64 = rows.first().ok_or(DbError::NoRow)?.get("enforced")?;
    Ok(enforced != 0)
}

/// Checks that dropping a table changes no rows of another one, unless that is dropped too. While foreign keys are
/// enforced, `DROP TABLE` first deletes all rows.
///
/// # Errors
///
/// Returns [`MigrationError::CascadingDrop`].
pub(crate) fn check_drop(
    connection: &mut Connection,
    migration: &Migration,
    dropped: &BTreeSet<String>,
    is_dropped_later: impl Fn(&str) -> bool,
) -> Result<(), DbError> {
    if !is_enforced(connection)? {
        return Ok(());
    }
    let sql = "SELECT m.name AS child, f.\"from\" AS key, f.\"table\" AS parent \
               FROM main.sqlite_schema AS m JOIN pragma_foreign_key_list(m.name) AS f \
               WHERE m.type = 'table' AND f.on_delete IN ('CASCADE', 'SET NULL', 'SET DEFAULT') \
               AND lower(m.name) <> lower(f.\"table\")";
    for row in connection.execute_query(sql, params! {})? {
        let (child, key): (String, String) = (row.get("child")?, row.get("key")?);
        let parent: String = row.get("parent")?;
        if !dropped.contains(&parent.to_lowercase()) || is_dropped_later(&child) {
            continue;
        }
        let refers = format!(
            "SELECT EXISTS (SELECT 1 FROM main.{} WHERE {} IS NOT NULL) \
             AND EXISTS (SELECT 1 FROM main.{}) AS found",
            quote(&child),
            quote(&key),
            quote(&parent)
        );
        let rows = connection.execute_query(&refers, params! {})?;
        if rows.first().ok_or(DbError::NoRow)?.get("found")? {
            return Err(MigrationError::CascadingDrop {
                migration: migration.name.clone(),
                table: parent,
                child,
            }
            .into());
        }
    }
    Ok(())
}
