//! The connection type that diesel's typed DSL runs on, whichever the backend.

#[cfg(feature = "postgres")]
use diesel::pg::PgConnection;
use diesel::prelude::*;
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;

/// A connection to either backend, on which diesel's typed DSL works as well as raw statements.
///
/// diesel writes most of it; see [`MultiBackend`] for what the DSL can and cannot do with it.
#[derive(diesel::MultiConnection)]
pub enum DbConnection {
    /// To a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    /// To a SQLite database.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
}

impl std::fmt::Debug for DbConnection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Connection({})", self.backend())
    }
}
