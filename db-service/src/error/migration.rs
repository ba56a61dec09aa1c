//! What can go wrong with migrations.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::DbError;
use crate::backend::Backend;
use singleton_core::__private::Escaped;

/// Why migrations were not applied, reverted or listed.
///
/// Migrations are named as their folders are.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The source has nothing for the backend that is in use.
    #[error("there are no migrations for {backend}")]
    #[non_exhaustive]
    Unsupported {
        /// The backend.
        backend: Backend,
    },
    /// The source cannot be read.
    #[error("the migrations cannot be read: {0}")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Two migrations of the source have the same version.
    #[error("{first} and {second} have the same version; rename one of them")]
    #[non_exhaustive]
    Duplicate {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// Migrations were changed after they were applied.
    #[error(
        "changed after they were applied: {}; put back what they were and write a new migration, or accept them with \
         baseline_migrations", migrations.join(", ")
    )]
    #[non_exhaustive]
    Drift {
        /// The migrations.
        migrations: Vec<String>,
    },
    /// The database has migrations of this set which the source lacks, older than the newest that it knows.
    #[error("applied, but not in the source: {}; was a migration deleted or renamed?", migrations.join(", "))]
    #[non_exhaustive]
    Missing {
        /// The migrations.
        migrations: Vec<String>,
    },
    /// A migration failed.
    #[error("{migration} failed {stop}: {source}")]
    #[non_exhaustive]
    Failed {
        /// The migration.
        migration: String,
        /// What is left of it.
        stop: MigrationStop,
        /// What the server says.
        source: Box<DbError>,
    },
    /// A migration that runs outside of a transaction has stopped on its way, and was changed since.
    #[error(
        "{migration} was changed after it had stopped with {done} of its statements done; put back what it was, or finish it by \
         hand and accept it with baseline_migrations"
    )]
    #[non_exhaustive]
    Incomplete {
        /// The migration.
        migration: String,
        /// How many statements are done.
        done: usize,
    },
    /// A migration cannot be reverted, since it has no `down.sql`; nothing was reverted.
    #[error("{migration} has no down.sql, so it cannot be reverted")]
    #[non_exhaustive]
    Irreversible {
        /// The migration.
        migration: String,
    },
    /// The source has no migration of this version.
    #[error(
        "there is no migration of version {version:?}; versions are the digits that names begin with"
    )]
    #[non_exhaustive]
    UnknownVersion {
        /// The version asked for.
        version: String,
    },
    /// Others were migrating until the time limit.
    #[error(
        "others have been migrating for {limit:?}; wait for them, or raise the limit with Migrations::lock_timeout"
    )]
    #[non_exhaustive]
    LockTimeout {
        /// How long it was waited.
        limit: Duration,
    },
    /// The file that keeps other processes out cannot be locked. It has to be a regular file without other names, and belong
    /// to this process's user, to root, or to the owner of the database.
    #[error("the lock file {} cannot be used: {source}", Escaped(path.display()))]
    #[non_exhaustive]
    LockFile {
        /// The file.
        path: PathBuf,
        /// The system's error, or the reason why the file was refused.
        source: std::io::Error,
    },
}

/// Where a migration that failed has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MigrationStop {
    /// It ran in a transaction, so nothing of it is left.
    RolledBack,
    /// It ran outside of a transaction, so what was done before stays.
    #[non_exhaustive]
    At {
        /// The statement that failed, from 1.
        statement: usize,
        /// How many it has.
        statements: usize,
        /// The line on which that statement begins, from 1.
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
                "at statement {statement} of {statements}, line {line}, and what stands before stays done"
            ),
        }
    }
}
