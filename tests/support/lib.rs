//! Databases and servers for tests.
//!
//! | type | what it is | needs |
//! |---|---|---|
//! | [`TestDatabase`] | an empty database for one test | nothing for SQLite; a PostgreSQL server for PostgreSQL |
//! | [`TestServer`] | a PostgreSQL server to stop, crash, freeze, copy or promote | PostgreSQL's programs |
//! | [`TestPgBouncer`] | a PgBouncer in front of a [`TestServer`] | PgBouncer |
//!
//! Each value removes its files, databases and processes when it is dropped. The servers also end when the test process
//! is killed.
//!
//! # PostgreSQL
//!
//! [`TestDatabase::postgres`] creates its databases on the server that `TEST_DATABASE_URL` names. Its user needs the
//! privilege `CREATEDB`. If the variable is not set or empty, the first call starts a temporary server for the whole
//! test process.
//!
//! Servers are started with the programs `initdb`, `pg_ctl` and `pg_basebackup` from `PATH`, or else from the newest
//! version in `/usr/lib/postgresql`. They do not run as root. In a test process of root, they run as the user
//! `postgres`, or `nobody` if there is no such user.
//!
//! If a program is not installed, the constructors print a line that starts with `SKIPPED` to standard error and return
//! `None`, and the test returns early. With `REQUIRE_POSTGRES=1` they panic.
//!
//! # Examples
//!
//! ```
//! use db_service::{DatabaseService, params};
//! use tests::TestDatabase;
//!
//! fn inserted_rows_are_counted(database: &TestDatabase) {
//!     let table = database.scope().run(|| {
//!         DatabaseService::execute_query("CREATE TABLE items (name TEXT)", params! {})?;
//!         DatabaseService::execute_query(
//!             "INSERT INTO items VALUES (:name)",
//!             params! { "name" => "apple" },
//!         )?;
//!         DatabaseService::get_table_info("items")
//!     });
//!     assert_eq!(table.unwrap().row_count, 1);
//! }
//!
//! inserted_rows_are_counted(&TestDatabase::sqlite());
//! if let Some(database) = TestDatabase::postgres() {
//!     inserted_rows_are_counted(&database);
//! }
//! ```

mod database;
mod migrations;
mod pgbouncer;
mod server;
mod shared_server;
mod unprivileged;

pub use database::{TestDatabase, cheap_passwords};
pub use migrations::{ENDLESS_MIGRATIONS, QUICK_MIGRATIONS, SHOP_MIGRATIONS};
pub use pgbouncer::TestPgBouncer;
pub use server::{FrozenServer, TestServer};
