#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!(
    "db-service needs a backend: turn on the feature `sqlite`, `postgres` or `postgres-bundled`"
);

// Named so that the linker includes libpq and OpenSSL, which these crates build from source.
#[cfg(feature = "postgres-bundled")]
extern crate openssl_sys as _;
#[cfg(feature = "postgres-bundled")]
extern crate pq_src as _;

mod backend;
mod config;
mod connection;
mod dialect;
pub mod dsl;
mod error;
mod migrations;
mod pool;
#[cfg(feature = "sqlite")]
mod private_file;
mod replicas;
mod rows;
mod schema;
mod service;
mod sql;
mod statistics;
mod tokens;
mod values;
mod watchdog;

pub use backend::Backend;
pub use config::{
    ConfigError, ConfigFault, ConfigService, DatabaseConfig, DatabaseUrl, Migrate,
    PostgresSettings, ReplicaSettings, ResetOnReturn, SqliteSettings, Synchronous, TlsMode,
    UrlError,
};
pub use connection::{
    Connection, Isolation, MultiCursor, MultiTransactionManager, TransactionOptions,
};
pub use dsl::MultiBackend;
pub use error::{
    ConnectError, DbError, Holder, MigrationError, MigrationStop, RefusedStatement, ServerError,
};
pub use migrations::{MigrationState, MigrationStatus, Migrations, PlannedMigration};
pub use pool::PooledConnection;
pub use replicas::{WritePosition, WritePositionError};
pub use schema::{ColumnInfo, ForeignKeyInfo, IndexInfo, TableInfo};
pub use service::{DatabaseService, ReadOptions};
pub use statistics::{DatabaseStatistics, PoolStatus, ReplicaStatistics, StatementStatistics};
pub use values::{FromValue, ListElement, Params, Row, Value};
