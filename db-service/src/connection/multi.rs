//! The connection type, for diesel's typed DSL on both backends.

#[cfg(feature = "postgres")]
use diesel::pg::PgConnection;
use diesel::prelude::*;
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;

/// A connection to either backend, for diesel's typed DSL and for SQL texts.
///
/// diesel derives most of it. [`MultiBackend`] documents which parts of the DSL work.
#[derive(diesel::MultiConnection)]
pub enum DbConnection {
    /// A connection to a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    /// A connection to a SQLite database.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
}

impl std::fmt::Debug for DbConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Connection({})", self.backend())
    }
}
