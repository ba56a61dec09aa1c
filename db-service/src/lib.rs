#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::panic))]

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!(
    "db-service needs a backend: turn on the feature `sqlite`, `postgres` or `postgres-bundled`"
);

// Named so that the linker takes in what they bring: libpq and OpenSSL from source.
#[cfg(feature = "postgres-bundled")]
extern crate openssl_sys as _;
#[cfg(feature = "postgres-bundled")]
extern crate pq_src as _;

mod backend;
mod batch;
mod bounded;
mod bulk;
#[cfg(feature = "postgres")]
mod casts;
mod config;
mod config_error;
mod connection;
#[cfg(feature = "postgres")]
mod copy;
#[cfg(feature = "postgres")]
mod cursor;
mod echo;
mod environment;
mod error;
mod escaped;
mod gate;
mod ledger;
mod limits;
mod loans;
mod manager;
mod migration_error;
mod migration_lock;
mod migration_run;
mod migration_set;
mod migrations;
#[allow(
    missing_docs,
    reason = "what the derive of diesel makes is not documented"
)]
mod multi;
mod names;
mod observer;
mod opener;
mod params;
mod pool;
mod pool_metrics;
#[cfg(feature = "postgres")]
mod postgres;
mod postgres_url;
mod prepared;
#[cfg(feature = "sqlite")]
mod private_file;
mod relations;
#[cfg(feature = "postgres")]
mod relay;
#[cfg(feature = "postgres")]
mod relayed;
mod replica_settings;
mod replica_watch;
mod replicas;
mod report;
mod row;
mod scanner;
mod schema;
mod script;
mod server_error;
mod service;
mod settings;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "sqlite")]
mod sqlite_rows;
mod statement;
mod statement_statistics;
mod statistics;
mod streaming;
mod testing;
mod tokens;
mod traces;
mod transaction;
mod url;
mod value;
mod variables;
mod violation;
#[cfg(feature = "postgres")]
mod watch;
mod write_position;

pub use backend::Backend;
pub use config::{ConfigService, DatabaseConfig};
pub use config_error::{ConfigError, ConfigFault};
pub use error::DbError;
pub use loans::Holder;
pub use migration_error::{MigrationError, MigrationStop};
pub use migrations::{MigrationState, MigrationStatus, Migrations, PlannedMigration};
pub use multi::{DbConnection as Connection, MultiBackend};
pub use params::Params;
pub use pool::PooledConnection;
pub use replica_settings::ReplicaSettings;
pub use report::{DatabaseStatistics, ReplicaStatistics};
pub use row::Row;
pub use schema::{ColumnInfo, ForeignKeyInfo, IndexInfo, TableInfo};
pub use server_error::{ConnectError, ServerError};
pub use service::{DatabaseService, ReadOptions};
pub use settings::{PostgresSettings, SqliteSettings, Synchronous, TlsMode};
pub use statement_statistics::StatementStatistics;
pub use statistics::PoolStatus;
pub use transaction::{Isolation, TransactionOptions};
pub use url::{DatabaseUrl, UrlError};
pub use value::{FromValue, Value};
pub use write_position::{WritePosition, WritePositionError};
