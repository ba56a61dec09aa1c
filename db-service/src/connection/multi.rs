//! The connection type.

#[cfg(feature = "postgres")]
use diesel::pg::PgConnection;
#[cfg(feature = "sqlite")]
use diesel::sqlite::SqliteConnection;

use crate::backend::Backend;

/// A connection to either backend, for diesel's DSL and for SQL texts.
///
/// It is a [`diesel::Connection`] with the backend [`MultiBackend`](crate::MultiBackend): diesel's methods take
/// `&mut Connection`. The page [`dsl`](crate::dsl) shows a program.
///
/// For what only one driver can do, `match` on the variants and use the driver's connection. Its statements count, and
/// appear in the logs and statistics like others, but the connection cannot refuse them: after a `COMMIT` there, or after
/// an error that ends a SQLite transaction, further statements on the driver's connection run outside the transaction.
pub enum Connection {
    /// A connection to a PostgreSQL server.
    #[cfg(feature = "postgres")]
    Postgres(PgConnection),
    /// A connection to a SQLite database.
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteConnection),
}

/// Evaluates an expression on the driver's connection of either backend.
macro_rules! on_each {
    ($connection:expr, $inner:ident => $work:expr) => {
        match $connection {
            #[cfg(feature = "postgres")]
            $crate::connection::Connection::Postgres($inner) => $work,
            #[cfg(feature = "sqlite")]
            $crate::connection::Connection::Sqlite($inner) => $work,
        }
    };
}
pub(crate) use on_each;

impl Connection {
    /// Returns the connection's backend.
    pub fn backend(&self) -> Backend {
        match self {
            #[cfg(feature = "postgres")]
            Connection::Postgres(_) => Backend::Postgres,
            #[cfg(feature = "sqlite")]
            Connection::Sqlite(_) => Backend::Sqlite,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Connection({})", self.backend())
    }
}
