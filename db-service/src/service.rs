//! `DatabaseService`, the public service.

mod fake;
mod migrations;
mod reading;
mod rows;
mod schema;

use std::fmt;
use std::panic::Location;
use std::time::{Duration, Instant};

use diesel::result::QueryResult;
pub use reading::ReadOptions;
use serde::de::DeserializeOwned;
use singleton_core::__private::shutdown_request;
use singleton_core::{Service, guarded, requires, service};

use crate::config::{ConfigService, DatabaseConfig};
use crate::connection::{Connection, Purpose, TransactionOptions, transact};
use crate::error::DbError;
use crate::pool::CHECK_TIMEOUT;
use crate::pool::{ConnectionPool, PooledConnection};
use crate::replicas::Replicas;
use crate::statistics::DatabaseStatistics;
use crate::statistics::PoolStatus;
use crate::values::Params;
use crate::values::Row;
use crate::values::deserialize_rows;
use fake::FakeDatabase;

/// The first pause between two attempts. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The maximum pause. A start is delayed by at most this time after the server is ready.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The process's database: a connection pool for the database that `DATABASE_URL` names.
#[service]
#[requires(ConfigService)]
pub struct DatabaseService {
    source: Source,
    replicas: Replicas,
}

enum Source {
    Pool(Box<ConnectionPool>),
    Fake(FakeDatabase),
}

impl Service for DatabaseService {
    fn initialize() -> anyhow::Result<Self> {
        let config = ConfigService::get_config()?;
        config.check()?;
        let pool = open_pool(config)?;
        log::info!(
            "connected to {} with a pool of {}",
            config.url,
            config.pool_size
        );
        Ok(DatabaseService {
            source: Source::Pool(Box::new(pool)),
            replicas: Replicas::open(config)?,
        })
    }

    fn ping(&self) -> anyhow::Result<()> {
        match &self.source {
            Source::Pool(pool) => {
                let connection = pool.get()?;
                let (_connection, answer) =
                    connection.bounded(CHECK_TIMEOUT, |connection| connection.run("SELECT 1"))?;
                Ok(answer.map_err(DbError::from)?)
            }
            Source::Fake(_) => Ok(()),
        }
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        self.replicas.refuse();
        if let Source::Pool(pool) = &self.source {
            // All waits end before the first wait for a connection in use.
            pool.refuse();
            self.replicas.close();
            pool.close();
        }
        Ok(())
    }
}

/// Opens the pool. Within `start_timeout`, tries again as long as there is no server to connect to.
fn open_pool(config: &DatabaseConfig) -> Result<ConnectionPool, DbError> {
    let started_at = Instant::now();
    let mut pause = FIRST_PAUSE;
    let mut is_logged = false;
    loop {
        let error = match ConnectionPool::open(config) {
            Ok(pool) => return Ok(pool),
            Err(error) => error,
        };
        let left = config.start_timeout.saturating_sub(started_at.elapsed());
        if left.is_zero() || !error.is_without_server() {
            return Err(error);
        }
        if !is_logged {
            log::warn!(
                "{error}; trying again for at most {:?} (DB_START_TIMEOUT)",
                config.start_timeout
            );
            is_logged = true;
        }
        let is_shut_down = shutdown_request().is_none_or(|request| request.wait(pause.min(left)));
        if is_shut_down {
            return Err(error);
        }
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}

impl DatabaseService {
    /// Creates a service for unit tests that opens no database and answers each statement with `answer`.
    ///
    /// Only calls that return rows work. [`connection`](Self::connection) and [`transaction`](Self::transaction) return
    /// [`DbError::Fake`], and there are no migrations to run.
    ///
    /// # Examples
    ///
    /// ```
    /// use db_service::{DatabaseService, DbError, Row, params};
    /// use singleton_core::testing::Scope;
    ///
    /// let fake = DatabaseService::fake(|sql, params| {
    ///     assert!(sql.contains("FROM users"));
    ///     Ok(vec![Row::new([("name", params.get("name").cloned().unwrap_or_default())])])
    /// });
    /// let rows = Scope::new()
    ///     .provide(fake)
    ///     .run(|| DatabaseService::execute_query("SELECT name FROM users WHERE name = :name", params! { "name" => "Ada" }))?;
    /// assert_eq!(rows[0].get::<String>("name")?, "Ada");
    /// # Ok::<(), DbError>(())
    /// ```
    pub fn fake(
        answer: impl Fn(&str, &Params) -> Result<Vec<Row>, DbError> + Send + Sync + 'static,
    ) -> Self {
        DatabaseService {
            source: Source::Fake(FakeDatabase::new(answer)),
            replicas: Replicas::default(),
        }
    }

    /// Executes one statement with `:name` parameters, commits its changes, and returns its rows.
    ///
    /// The statement is prepared once per connection. A parameter can occur several times. Strings, comments, quoted
    /// names, `$$` bodies and `::casts` contain no parameters, and on PostgreSQL `\:` stands for a colon. Strings are
    /// scanned with `standard_conforming_strings` on, PostgreSQL's default; with `off`, PostgreSQL would treat
    /// backslashes as escapes.
    ///
    /// A text takes the type of its place, like a literal: a date, a uuid, JSON, an array. A list can be the parameter of
    /// `IN (:ids)`, `NOT IN (:ids)` and `= ANY (:ids)`. [Values](crate#values) describes both, and what they cost. A NULL
    /// gets the type that PostgreSQL infers from its place. If PostgreSQL cannot infer it, as in `:name IS NULL`, write a
    /// cast: `:name::int IS NULL`.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::MissingParameter`] or [`DbError::UnusedParameter`] if `params` does not match the statement,
    /// [`DbError::PoolTimeout`] if no connection is available in time, and the server's error otherwise.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute_query("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT)", params! {})?;
    /// DatabaseService::execute_query("INSERT INTO pets (name) VALUES (:name)", params! { "name" => "Rex" })?;
    /// let rows = DatabaseService::execute_query("SELECT * FROM pets WHERE id = :id", params! { "id" => 1 })?;
    /// assert_eq!(rows[0].get::<String>("name")?, "Rex");
    /// let rows = DatabaseService::execute_query("SELECT * FROM pets WHERE id IN (:ids)", params! { "ids" => [1, 2, 3] })?;
    /// assert_eq!(rows.len(), 1);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    #[track_caller]
    pub fn execute_query(&self, sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.execute_query(sql, params)),
            Source::Fake(fake) => fake.execute_query(sql, &params),
        }
    }

    /// Executes one statement with `:name` parameters, commits its changes, and returns the number of affected rows.
    ///
    /// This is the number of rows that the statement has inserted, updated or deleted. Rows that a trigger or a foreign
    /// key changes do not count. Rows that the statement returns are discarded. On both backends:
    ///
    /// | statement | result |
    /// |---|---|
    /// | `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `REPLACE`, also with `WITH` before it or `RETURNING` | its rows; an updated row counts even if the new values equal the old ones |
    /// | `INSERT … ON CONFLICT`, `REPLACE` | the rows inserted or updated; a row that `REPLACE` deletes does not count |
    /// | `COPY … FROM` a file | its rows |
    /// | any other: `SELECT`, also of changes in its `WITH`, `CREATE TABLE … AS`, `EXPLAIN`, `EXECUTE`, `CALL`, `TRUNCATE` | 0 |
    ///
    /// The backends differ for a view with an `INSTEAD OF` trigger: PostgreSQL counts the rows for which the trigger
    /// returns a row, and SQLite counts none.
    ///
    /// On a [`fake`](Self::fake), the result is the number of rows of the answer.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Self::execute_query).
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT)", params! {})?;
    /// DatabaseService::execute("INSERT INTO pets (name) VALUES ('Rex'), ('Tom')", params! {})?;
    /// let delete = "DELETE FROM pets WHERE name = :name";
    /// assert_eq!(DatabaseService::execute(delete, params! { "name" => "Rex" })?, 1);
    /// assert_eq!(DatabaseService::execute(delete, params! { "name" => "Rex" })?, 0);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    #[track_caller]
    pub fn execute(&self, sql: &str, params: Params) -> Result<u64, DbError> {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.execute(sql, params)),
            Source::Fake(fake) => fake.execute(sql, &params),
        }
    }

    /// Executes one statement, like [`execute_query`](Self::execute_query), and deserializes its rows.
    ///
    /// | `T` | reads |
    /// |---|---|
    /// | a struct or a map | the columns by name. Columns without a field are ignored, unless the struct has `deny_unknown_fields`. Two columns of one name are an error |
    /// | a tuple | all columns, in their order |
    /// | a `Vec`, except `Vec<u8>` | all columns, in their order |
    /// | any other type, such as `i64`, `String` or an enum | the only column |
    ///
    /// | field | reads |
    /// |---|---|
    /// | `Option` | NULL as `None` |
    /// | a number | numbers without loss, like [`Row::get`]; anything else is an error |
    /// | `bool` | a bool; on SQLite 0 and 1 |
    /// | `String` | text, JSON as it is stored, and dates, times, uuids and decimals as text |
    /// | an enum | text with the name of a variant; a variant with data from JSON |
    /// | a type of chrono or uuid, `BigDecimal`, with their feature `serde` | the same values as [`Row::get`] |
    /// | `Vec<u8>`, `[u8; N]`, `serde_bytes` | bytes |
    /// | another `Vec`, array or tuple | an array of PostgreSQL, or JSON |
    /// | a struct, a map, `serde_json::Value` | JSON, also if it is stored as text, as on SQLite. A number that does not fit is an error |
    ///
    /// An `Option` without a column is `None`, as always in serde. To detect misspelled names, use `deny_unknown_fields`.
    ///
    /// serde buffers the columns of `#[serde(flatten)]` fields, untagged enums and enums with a tag before it knows their
    /// types. There, a value on SQLite is what is stored: a `bool` cannot be read from 0 and 1, a `NaiveDateTime` only from
    /// text with a `T`, a timestamp with zone only from text with a zone, and a struct not from text that holds JSON. A
    /// number cannot be read from a numeric of PostgreSQL. These are errors. Read such columns outside, or by a function for
    /// `deserialize_with`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Self::execute_query), and [`DbError::Deserialize`] for a row that is no `T`.
    /// It contains no values. The statement's changes are committed then.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use db_service::Params;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct Pet {
    ///     id: i64,
    ///     name: String,
    ///     kind: Kind,
    ///     owner: Option<Owner>,
    /// }
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// enum Kind {
    ///     Dog,
    ///     Cat,
    /// }
    ///
    /// #[derive(Debug, PartialEq, Serialize, Deserialize)]
    /// struct Owner {
    ///     name: String,
    /// }
    ///
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::execute_query("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, kind TEXT, owner JSON)", params! {})?;
    /// let rex = Pet { id: 1, name: "Rex".into(), kind: Kind::Dog, owner: Some(Owner { name: "Ada".into() }) };
    /// let insert = "INSERT INTO pets (id, name, kind, owner) VALUES (:id, :name, :kind, :owner)";
    /// DatabaseService::execute_query(insert, Params::from_serialize(&rex)?)?;
    ///
    /// let pets: Vec<Pet> = DatabaseService::query_as("SELECT * FROM pets", params! {})?;
    /// assert_eq!(pets, [rex]);
    /// let count: Vec<i64> = DatabaseService::query_as("SELECT COUNT(*) FROM pets", params! {})?;
    /// assert_eq!(count, [1]);
    ///
    /// let wrong = DatabaseService::query_as::<(i64, i64)>("SELECT id, name FROM pets", params! {}).unwrap_err();
    /// assert_eq!(wrong.to_string(), r#"cannot deserialize row 1, column "name": text cannot be read as i64"#);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[guarded]
    #[track_caller]
    pub fn query_as<T: DeserializeOwned>(
        &self,
        sql: &str,
        params: Params,
    ) -> Result<Vec<T>, DbError> {
        let rows = match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.execute_query(sql, params)),
            Source::Fake(fake) => fake.execute_query(sql, &params),
        };
        deserialize_rows(&rows?)
    }

    /// Executes one statement for each set of parameters, in one transaction, and returns the number of affected rows.
    ///
    /// On PostgreSQL, an `INSERT … VALUES (…)` is sent with many rows at once.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`execute_query`](Self::execute_query). After an error, nothing is changed.
    #[guarded]
    #[track_caller]
    pub fn execute_many(&self, sql: &str, rows: &[Params]) -> Result<u64, DbError> {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.execute_many(sql, rows)),
            Source::Fake(fake) => fake.execute_many(sql, rows),
        }
    }

    /// Runs `work` in a transaction. Commits on `Ok`, and rolls back on `Err` and on panic.
    ///
    /// Only statements on the connection that `work` receives are part of the transaction. Inside,
    /// [`Connection::transaction`] creates a savepoint.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the checkout and of the transaction's begin and end.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// let paid: Result<(), DbError> = DatabaseService::transaction(|connection| {
    ///     connection.execute_query("CREATE TABLE bills (id INTEGER)", params! {})?;
    ///     connection.execute_query("INSERT INTO bils VALUES (1)", params! {})?;
    ///     Ok(())
    /// });
    /// assert!(paid.is_err());
    /// assert!(DatabaseService::get_table_info("bills").is_err(), "it was rolled back");
    /// # });
    /// # Ok::<(), db_service::UrlError>(())
    /// ```
    ///
    /// The `?` behind a call converts the error, so it does not determine the type:
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// DatabaseService::transaction(|connection| {
    ///     connection.execute_query("CREATE TABLE bills (id INTEGER)", params! {})?;
    ///     Ok::<_, DbError>(())
    /// })?;
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// ```compile_fail,E0283
    /// # use db_service::{DatabaseService, DbError, params};
    /// # fn bills() -> Result<(), DbError> {
    /// DatabaseService::transaction(|connection| {
    ///     connection.execute_query("CREATE TABLE bills (id INTEGER)", params! {})?;
    ///     Ok(())
    /// })?;
    /// # Ok(())
    /// # }
    /// ```
    #[track_caller]
    pub fn transaction<T, E, F>(work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E>,
        E: From<DbError>,
    {
        let mut connection = Self::connection()?;
        let outcome = transact(&mut *connection, Connection::begin, work);
        outcome.map_err(|failure| failure.into_error(&mut connection))
    }

    /// Runs `work` in a transaction, like [`transaction`](Self::transaction), with an isolation level, read-only, or
    /// with retries.
    ///
    /// A retry runs the whole of `work` again, so `work` should have no effects except through its connection.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Connection::transaction_with`], and those of the checkout.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use db_service::TransactionOptions;
    ///
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// # DatabaseService::execute_query("CREATE TABLE accounts (id INTEGER, balance INTEGER)", params! {})?;
    /// let options = TransactionOptions { retries: 5, ..TransactionOptions::default() };
    /// DatabaseService::transaction_with(&options, |connection| {
    ///     connection.execute_query("UPDATE accounts SET balance = balance - 10 WHERE id = 1", params! {})?;
    ///     connection.execute_query("UPDATE accounts SET balance = balance + 10 WHERE id = 2", params! {})
    /// })?;
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn transaction_with<T, E, F>(options: &TransactionOptions, work: F) -> Result<T, E>
    where
        F: FnMut(&mut Connection) -> Result<T, E>,
        E: From<DbError>,
    {
        Self::connection()?.transaction_with(options, work)
    }

    /// Checks out a connection, runs `work` on it, and returns the connection. For queries of diesel's DSL.
    ///
    /// Each statement commits by itself. For several that belong together, use
    /// [`transaction`](Self::transaction). A statement whose prepared plan is stale, because a table was changed, is
    /// prepared and executed again by the connection; `work` runs once.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the checkout. An error of this crate that `work` has converted with
    /// `?` comes back as it was.
    ///
    /// # Examples
    ///
    /// ```
    /// # use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
    /// # use singleton_core::testing::Scope;
    /// use diesel::prelude::*;
    ///
    /// diesel::table! {
    ///     pets (id) {
    ///         id -> Integer,
    ///         name -> Text,
    ///     }
    /// }
    /// # let memory = ConfigService::new(DatabaseConfig::new("sqlite::memory:".parse()?));
    /// # Scope::new().provide(memory).run(|| {
    /// # DatabaseService::execute_query("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL)", params! {})?;
    /// let names: Vec<String> = DatabaseService::with_connection(|connection| {
    ///     diesel::insert_into(pets::table).values(pets::name.eq("Rex")).execute(connection)?;
    ///     pets::table.select(pets::name).load(connection)
    /// })?;
    /// assert_eq!(names, ["Rex"]);
    /// # Ok::<(), DbError>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn with_connection<T>(
        work: impl FnOnce(&mut Connection) -> QueryResult<T>,
    ) -> Result<T, DbError> {
        let mut connection = Self::connection()?;
        work(&mut connection).map_err(|error| connection.classify_timeout(error.into()))
    }

    /// Checks out a connection. Dropping it rolls back an open transaction and returns the connection to the pool.
    ///
    /// # Errors
    ///
    /// Returns [`DbError::PoolTimeout`] if no connection is available within `DB_POOL_TIMEOUT`.
    #[guarded]
    #[track_caller]
    pub fn connection(&self) -> Result<PooledConnection, DbError> {
        self.pool("connections")?.get()
    }

    /// Returns the state of the pool, and the counters since the start of the service.
    ///
    /// # Errors
    ///
    /// Returns an error if the service could not be initialized.
    #[guarded]
    pub fn get_pool_status(&self) -> Result<PoolStatus, DbError> {
        Ok(self.pool("pool")?.status())
    }

    /// Returns the statistics since the start of the service: of the pool, of transactions, and of each statement.
    ///
    /// # Errors
    ///
    /// Returns an error if the service could not be initialized.
    #[guarded]
    pub fn statistics(&self) -> Result<DatabaseStatistics, DbError> {
        let pool = self.pool("statistics")?;
        Ok(DatabaseStatistics {
            pool: pool.status(),
            statements: pool.statistics.statements.snapshot(),
            replicas: self.replicas.statistics(),
            reads_on_primary: self.replicas.reads_on_primary.get(),
        })
    }

    fn pool(&self, what: &'static str) -> Result<&ConnectionPool, DbError> {
        match &self.source {
            Source::Pool(pool) => Ok(pool),
            Source::Fake(_) => Err(DbError::Fake { what }),
        }
    }
}

impl fmt::Debug for DatabaseService {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Pool(pool) => formatter
                .debug_tuple("DatabaseService")
                .field(&pool.status())
                .finish(),
            Source::Fake(fake) => formatter
                .debug_tuple("DatabaseService")
                .field(fake)
                .finish(),
        }
    }
}

/// Counts a call as one query, regardless of its outcome and of the number of its statements.
#[track_caller]
fn counted<R>(
    pool: &ConnectionPool,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    counted_at(Location::caller(), pool, work)
}

/// Counts a call at `at`.
fn counted_at<R>(
    at: &'static Location<'static>,
    pool: &ConnectionPool,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    let result = pool.get_at(at).and_then(|mut connection| {
        connection.set_purpose_until_return(Purpose::PartOfCall);
        work(&mut connection)
    });
    let counter = match result {
        Ok(_) => &pool.statistics.successful_queries,
        Err(_) => &pool.statistics.failed_queries,
    };
    counter.increment();
    result
}
