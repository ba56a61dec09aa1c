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
    /// The source has no name, and its history has another migration of the same version.
    #[error(
        "{} has the version of {}, which was applied; if they belong to two sources, give each a name with \
         Migrations::named, otherwise rename one",
        Escaped(migration),
        Escaped(applied)
    )]
    #[non_exhaustive]
    VersionInUse {
        /// The migration of the source.
        migration: String,
        /// The applied migration.
        applied: String,
    },
    /// Migrations are pending, and `DB_MIGRATE=check` only checks. Nothing was changed.
    #[error(
        "pending: {}; apply them with DB_MIGRATE=apply, for example as a role that may create tables",
        Escaped(migrations.join(", "))
    )]
    #[non_exhaustive]
    Pending {
        /// The migrations, in order.
        migrations: Vec<String>,
    },
    /// Reverting the migration would drop tables that it did not create. It was not reverted.
    #[error(
        "{} cannot be reverted: {}",
        Escaped(migration),
        Escaped(adopted_text(tables))
    )]
    #[non_exhaustive]
    Adopted {
        /// The migration.
        migration: String,
        /// The tables that existed before the migration was applied. Empty if the migration was recorded by
        /// `baseline_migrations` and never ran.
        tables: Vec<String>,
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
    /// A migration contains a statement that would not do what it says. Nothing of the run was applied or reverted.
    #[error("{}, statement {statement}, line {line}: {reason}", Escaped(migration))]
    #[non_exhaustive]
    Refused {
        /// The migration.
        migration: String,
        /// The position of the statement, from 1.
        statement: usize,
        /// The first line of the statement, from 1.
        line: usize,
        /// Why it is refused, and what to do.
        reason: RefusedStatement,
    },
    /// A migration of SQLite that ran without foreign keys has left rows without their parents. It was rolled back.
    #[error(
        "{} was rolled back: it leaves rows whose parent is missing: {}",
        Escaped(migration),
        Escaped(row_counts(tables))
    )]
    #[non_exhaustive]
    ForeignKeys {
        /// The migration.
        migration: String,
        /// The tables, each with its number of such rows that the migration added.
        tables: Vec<(String, u64)>,
    },
    /// A migration of SQLite drops a table, and the foreign keys would change rows of another table. Nothing of the
    /// migration was applied.
    #[error(
        "{} drops the table {}, which would delete or change rows of {}; to rebuild the table, begin the file with          PRAGMA foreign_keys = OFF, or to remove these rows, delete them before",
        Escaped(migration),
        Escaped(table),
        Escaped(child)
    )]
    #[non_exhaustive]
    CascadingDrop {
        /// The migration.
        migration: String,
        /// The table that would be dropped.
        table: String,
        /// The table whose rows would be changed.
        child: String,
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
            | MigrationError::VersionInUse { .. }
            | MigrationError::Pending { .. }
            | MigrationError::Adopted { .. }
            | MigrationError::Refused { .. }
            | MigrationError::ForeignKeys { .. }
            | MigrationError::CascadingDrop { .. }
            | MigrationError::Incomplete { .. }
            | MigrationError::Irreversible { .. }
            | MigrationError::UnknownVersion { .. }
            | MigrationError::LockTimeout { .. } => None,
        }
    }
}

fn adopted_text(tables: &[String]) -> String {
    match tables.is_empty() {
        true => "it was recorded by baseline_migrations and did not run, so it created nothing; write a new migration"
            .to_owned(),
        false => format!(
            "it did not create {}, which its down.sql drops; remove that from down.sql, or write a new migration",
            tables.join(", ")
        ),
    }
}

fn row_counts(tables: &[(String, u64)]) -> String {
    let counts = tables
        .iter()
        .map(|(table, count)| format!("{table} ({count} rows)"));
    counts.collect::<Vec<_>>().join(", ")
}

/// Why a statement of a migration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RefusedStatement {
    /// The statement begins or ends a transaction or savepoint, and the migration runs in a transaction.
    #[error(
        "{0} is not possible, because the migration runs in a transaction of its own; remove the statement, or set          run_in_transaction = false in the migration's metadata.toml"
    )]
    InTransaction(String),
    /// The statement leaves a transaction open, or ends one in another way than by `COMMIT`.
    #[error(
        "{0} has no matching BEGIN or COMMIT; outside a transaction, each BEGIN needs a COMMIT in the same file"
    )]
    OutsideTransaction(String),
    /// The pragma has no effect in a transaction, or would stay set on the connection.
    #[error("{}", Pragma(.0))]
    Pragma(String),
    /// The statement expects data from the client, as psql sends it.
    #[error(
        "the data of COPY FROM STDIN cannot be sent; use INSERT statements (pg_dump --inserts)"
    )]
    CopyFromStdin,
    /// The line is a command for psql.
    #[error("{0} is a command of psql, not of the server; remove it")]
    PsqlCommand(String),
    /// `SET LOCAL` outside a transaction.
    #[error("SET LOCAL has no effect outside a transaction; use SET")]
    SetLocal,
    /// The statement sets an encoding other than that of the migration's text.
    #[error("the encoding of a migration is UTF-8; remove the statement")]
    Encoding,
}

/// Shows why a pragma is refused.
struct Pragma<'a>(&'a str);

impl fmt::Display for Pragma<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Escaped(self.0);
        if self.0.eq_ignore_ascii_case("foreign_keys") {
            write!(
                formatter,
                "PRAGMA {name} has no effect in a transaction; write PRAGMA foreign_keys = OFF before all other \
                 statements of the file, or use DB_SQLITE_FOREIGN_KEYS"
            )
        } else {
            write!(
                formatter,
                "PRAGMA {name} has no effect in a transaction or changes the connection for others; use the settings \
                 of the service, or set run_in_transaction = false in the migration's metadata.toml"
            )
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
