//! The errors of migrations.

use std::error::Error as StdError;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Chain, DbError};
use crate::backend::Backend;
use singleton_core::__private::Escaped;

/// The reason why migrations were not applied, reverted or listed.
///
/// A migration's name is the name of its folder.
///
/// `Display` is one line that ends with the messages of all causes, so [`source`](StdError::source) returns `None`.
/// [`cause`](MigrationError::cause) returns the error below.
// A field `r#source` has the name `source`, and thiserror does not return it from `source()`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The source has no migrations for the backend in use.
    #[error("there are no migrations for {backend}")]
    #[non_exhaustive]
    Unsupported {
        /// The backend.
        backend: Backend,
    },
    /// The source cannot be read.
    #[error("the migrations cannot be read: {}", Chain(&**.0))]
    Unreadable(Box<dyn StdError + Send + Sync>),
    /// Two migrations of the source have the same version.
    #[error(
        "{} and {} have the same version; rename one of them",
        Escaped(first),
        Escaped(second)
    )]
    #[non_exhaustive]
    Duplicate {
        /// One migration.
        first: String,
        /// The other migration.
        second: String,
    },
    /// Migrations were changed after they were applied.
    #[error(
        "changed after they were applied: {}; restore them and write a new migration, or accept the change with \
         baseline_migrations", Escaped(migrations.join(", "))
    )]
    #[non_exhaustive]
    Drift {
        /// The changed migrations.
        migrations: Vec<String>,
    },
    /// The source lacks migrations that were applied to the database, although they are older than its newest one.
    #[error("applied, but not in the source: {}; was a migration deleted or renamed?", Escaped(migrations.join(", ")))]
    #[non_exhaustive]
    Missing {
        /// The migrations.
        migrations: Vec<String>,
    },
    /// A migration failed.
    #[error("{} failed {stop}: {source}", Escaped(migration))]
    #[non_exhaustive]
    Failed {
        /// The migration.
        migration: String,
        /// How much of it was applied.
        stop: MigrationStop,
        /// The server's error.
        r#source: Box<DbError>,
    },
    /// A migration that runs outside a transaction failed partway, and its file has been changed since.
    #[error(
        "{} was changed after it failed with {done} of its statements applied; restore it, or finish it manually \
         and accept it with baseline_migrations",
        Escaped(migration)
    )]
    #[non_exhaustive]
    Incomplete {
        /// The migration.
        migration: String,
        /// The number of applied statements.
        done: usize,
    },
    /// A migration cannot be reverted because it has no `down.sql`. Nothing was reverted.
    #[error("{} has no down.sql, so it cannot be reverted", Escaped(migration))]
    #[non_exhaustive]
    Irreversible {
        /// The migration.
        migration: String,
    },
    /// The source has no migration of this version.
    #[error(
        "there is no migration of version {version:?}; a version consists of the leading digits of the migration's name"
    )]
    #[non_exhaustive]
    UnknownVersion {
        /// The requested version.
        version: String,
    },
    /// Another process held the migration lock until the timeout.
    #[error(
        "another process has been migrating for {limit:?}; wait for it, or raise the timeout with Migrations::lock_timeout"
    )]
    #[non_exhaustive]
    LockTimeout {
        /// The timeout.
        limit: Duration,
    },
    /// The lock file cannot be locked. It must be a regular file without hard links, and its owner must be this
    /// process's user, root, or the owner of the database.
    #[error("the lock file {} cannot be used: {}", Escaped(path.display()), Chain(r#source))]
    #[non_exhaustive]
    LockFile {
        /// The file.
        path: PathBuf,
        /// The system's error, or the reason why the file was refused.
        r#source: std::io::Error,
    },
}

impl MigrationError {
    /// Returns the error below, for a downcast to its type: the source's error for
    /// [`Unreadable`](MigrationError::Unreadable), a [`DbError`] for [`Failed`](MigrationError::Failed), and an
    /// [`io::Error`](std::io::Error) for [`LockFile`](MigrationError::LockFile).
    pub fn cause(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            MigrationError::Unreadable(error) => Some(&**error),
            MigrationError::Failed { source, .. } => Some(&**source),
            MigrationError::LockFile { source, .. } => Some(source),
            MigrationError::Unsupported { .. }
            | MigrationError::Duplicate { .. }
            | MigrationError::Drift { .. }
            | MigrationError::Missing { .. }
            | MigrationError::Incomplete { .. }
            | MigrationError::Irreversible { .. }
            | MigrationError::UnknownVersion { .. }
            | MigrationError::LockTimeout { .. } => None,
        }
    }
}

/// The state in which a failed migration left the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationStop {
    /// The migration ran in a transaction and was rolled back.
    RolledBack,
    /// The migration ran outside a transaction. The statements before the failed one stay applied.
    #[non_exhaustive]
    At {
        /// The position of the failed statement, from 1.
        statement: usize,
        /// The number of statements in the migration.
        statements: usize,
        /// The first line of the failed statement, from 1.
        line: usize,
    },
}

impl fmt::Display for MigrationStop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MigrationStop::RolledBack => formatter.write_str("and was rolled back"),
            MigrationStop::At {
                statement,
                statements,
                line,
            } => write!(
                formatter,
                "at statement {statement} of {statements}, line {line}, and the statements before it stay applied"
            ),
        }
    }
}
