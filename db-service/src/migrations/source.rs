//! The embedded migrations of a source, with their texts.

use std::any::Any;

use diesel::connection::{BoxableConnection, SimpleConnection};
use diesel::migration::{Migration as DieselMigration, MigrationSource};
use diesel::result::QueryResult;
use diesel_migrations::EmbeddedMigrations;
use sha2::{Digest, Sha256};

use super::script::executable;
use crate::backend::Backend;
use crate::error::DbError;
use crate::error::MigrationError;

/// A backend for diesel's trait. The texts do not depend on it.
#[cfg(feature = "sqlite")]
type AnyBackend = diesel::sqlite::Sqlite;
#[cfg(not(feature = "sqlite"))]
type AnyBackend = diesel::pg::Pg;

/// One migration.
#[derive(Debug)]
pub(crate) struct Migration {
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) up: String,
    pub(crate) down: Option<String>,
    pub(crate) in_transaction: bool,
    /// The checksum of `up.sql`, without a byte-order mark.
    pub(crate) checksum: String,
    /// The checksum with the byte-order mark, if there is one. Earlier versions of this crate recorded it.
    pub(crate) marked_checksum: Option<String>,
}

impl Migration {
    /// Returns whether a recorded checksum is that of the present text.
    pub(crate) fn has_checksum(&self, recorded: &str) -> bool {
        self.checksum == recorded || self.marked_checksum.as_deref() == Some(recorded)
    }
}

/// Returns the migrations in the order of their versions.
pub(crate) fn read(
    source: &EmbeddedMigrations,
    backend: Backend,
) -> Result<Vec<Migration>, DbError> {
    let migrations: Vec<Box<dyn DieselMigration<AnyBackend>>> =
        source.migrations().map_err(MigrationError::Unreadable)?;
    let mut entries = migrations
        .iter()
        .map(|migration| convert(&**migration, backend))
        .collect::<Result<Vec<_>, _>>()?;
    entries.sort_by(|left, right| left.version.cmp(&right.version));
    for pair in entries.windows(2) {
        if pair[0].version == pair[1].version {
            return Err(MigrationError::Duplicate {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
            }
            .into());
        }
    }
    Ok(entries)
}

fn convert(
    migration: &dyn DieselMigration<AnyBackend>,
    backend: Backend,
) -> Result<Migration, MigrationError> {
    let mut up = Recorder::default();
    migration.run(&mut up).map_err(MigrationError::Unreadable)?;
    let mut down = Recorder::default();
    let reverts = migration.revert(&mut down).is_ok();
    let unmarked = up.0.strip_prefix('\u{feff}');
    Ok(Migration {
        version: migration.name().version().to_string(),
        name: migration.name().to_string(),
        checksum: checksum(unmarked.unwrap_or(&up.0)),
        marked_checksum: unmarked.map(|_| checksum(&up.0)),
        up: executable(&up.0, backend),
        down: reverts.then(|| executable(&down.0, backend)),
        in_transaction: migration.metadata().run_in_transaction(),
    })
}

/// Returns the checksum of a text with Unix line endings, so that a checkout with other line endings is no change.
fn checksum(text: &str) -> String {
    let digest = Sha256::digest(text.replace("\r\n", "\n"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A connection that records the statements it is given. There is no other way to get the text of an embedded
/// migration.
#[derive(Default)]
struct Recorder(String);

impl SimpleConnection for Recorder {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        self.0.push_str(query);
        Ok(())
    }
}

impl BoxableConnection<AnyBackend> for Recorder {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_endings_do_not_change_the_checksum() {
        assert_eq!(checksum("a\r\nb"), checksum("a\nb"));
        assert_ne!(checksum("a\nb"), checksum("a b"));
        assert_eq!(checksum("").len(), 64);
    }
}
