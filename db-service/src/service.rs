//! The service itself: what its users call.

mod fake;
mod migrations;
mod reading;
mod rows;
mod schema;

use std::fmt;

pub use reading::ReadOptions;
use singleton_core::{Service, guarded, requires, service};

use crate::config::ConfigService;
use crate::connection::Connection;
use crate::connection::TransactionOptions;
use crate::connection::{self, StatementContext};
use crate::error::DbError;
use crate::pool::CHECK;
use crate::pool::{ConnectionPool, PooledConnection};
use crate::replicas::Replicas;
use crate::statistics::DatabaseStatistics;
use crate::statistics::PoolStatus;
use crate::values::Params;
use crate::values::Row;
use fake::FakeDatabase;

/// The process's database: a pool of connections to whatever `DATABASE_URL` names.
#[service]
#[requires(ConfigService)]
pub struct DatabaseService {
    source: Source,
    replicas: Replicas,
}

enum Source {
    Pool(ConnectionPool),
    Fake(FakeDatabase),
}

impl Service for DatabaseService {
    fn initialize() -> anyhow::Result<Self> {
        let config = ConfigService::get_config()?;
        config.check()?;
        let pool = ConnectionPool::open(config)?;
        log::info!(
            "connected to {} with a pool of {}",
            config.url,
            config.pool_size
        );
        Ok(DatabaseService {
            source: Source::Pool(pool),
            replicas: Replicas::open(config)?,
        })
    }

    fn ping(&self) -> anyhow::Result<()> {
        match &self.source {
            Source::Pool(pool) => {
                let connection = pool.get()?;
                let (_connection, answer) =
                    connection.bounded(CHECK, |connection| connection.run("SELECT 1"))?;
                Ok(answer.map_err(DbError::from)?)
            }
            Source::Fake(_) => Ok(()),
        }
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        self.replicas.close();
        if let Source::Pool(pool) = &self.source {
            pool.close();
        }
        Ok(())
    }
}

impl DatabaseService {
    /// Makes a service that opens no database and answers every statement from `answer`, for unit tests.
    ///
    /// It has rows and nothing else: [`connection`](Self::connection) and [`transaction`](Self::transaction)
    /// are [`DbError::Fake`], and migrations are none.
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

    /// Executes one statement with `:name` parameters, commits what it changes, and returns its rows.
    ///
    /// It is prepared once on each connection. A parameter may be repeated; within strings, comments,
    /// quoted names, `$$` bodies and `::casts` there are none, and on PostgreSQL `\:` stands for a plain colon. Strings are
    /// read as PostgreSQL reads them unless its `standard_conforming_strings` was turned off, which takes backslashes for escapes.
    /// Text goes wherever a literal would, into a date, a uuid, JSON or an array as well: PostgreSQL is asked once for
    /// each statement and connection what the parameters are.
    /// A NULL takes the type of the place where it stands; where PostgreSQL cannot tell, as in
    /// `:name IS NULL`, write a cast, as in `:name::int IS NULL`.
    ///
    /// # Errors
    ///
    /// Parameters that are missing or too many, no connection within the time limit, and whatever the server says.
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

    /// Executes one statement once for each row of parameters, in one transaction, and returns the number of rows affected.
    ///
    /// On PostgreSQL an `INSERT … VALUES (…)` is sent with many rows at a time.
    ///
    /// # Errors
    ///
    /// As [`execute_query`](Self::execute_query); then nothing is changed.
    #[guarded]
    #[track_caller]
    pub fn execute_many(&self, sql: &str, rows: &[Params]) -> Result<u64, DbError> {
        match &self.source {
            Source::Pool(pool) => counted(pool, |connection| connection.execute_many(sql, rows)),
            Source::Fake(fake) => fake.execute_many(sql, rows),
        }
    }

    /// Runs `work` in a transaction: committed on `Ok`, rolled back on `Err` and on panic.
    ///
    /// `work` gets the connection, and only what runs on it is part of the transaction.
    /// [`Connection::transaction`] inside makes a savepoint.
    ///
    /// # Errors
    ///
    /// Those of `work`, and what goes wrong at the beginning or end.
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
    /// assert!(DatabaseService::get_table_info("bills").is_err(), "nothing is left of it");
    /// # });
    /// # Ok::<(), db_service::UrlError>(())
    /// ```
    #[track_caller]
    pub fn transaction<T, E, F>(work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Connection) -> Result<T, E>,
        E: From<DbError>,
    {
        let mut connection = Self::connection()?;
        let outcome = connection.transact(Connection::begin, work);
        outcome.map_err(|failure| failure.into_error(&mut connection))
    }

    /// The same as `options` say: how it is isolated, whether it may write, and how often it is repeated.
    ///
    /// It is repeated from the start, so `work` should do nothing but through its connection.
    ///
    /// # Errors
    ///
    /// As [`Connection::transaction_with`].
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

    /// Takes a connection from the pool; it goes back on drop, and what was not committed is rolled back.
    ///
    /// # Errors
    ///
    /// No connection within the time limit.
    #[guarded]
    #[track_caller]
    pub fn connection(&self) -> Result<PooledConnection, DbError> {
        self.pool("connections")?.get()
    }

    /// Tells the state of the pool and what was counted since the service started.
    ///
    /// # Errors
    ///
    /// The service could not be initialised.
    #[guarded]
    pub fn get_pool_status(&self) -> Result<PoolStatus, DbError> {
        Ok(self.pool("pool")?.status())
    }

    /// Tells all that was counted and measured since the service started: of the pool, the transactions and each statement.
    ///
    /// # Errors
    ///
    /// The service could not be initialised.
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

/// Counts a call as one query, however it went and however many statements it took.
#[track_caller]
fn counted<R>(
    pool: &ConnectionPool,
    work: impl FnOnce(&mut Connection) -> Result<R, DbError>,
) -> Result<R, DbError> {
    let result = pool
        .get()
        .and_then(|mut connection| connection::with_context(WHOLE, || work(&mut connection)));
    let counter = match result {
        Ok(_) => &pool.statistics.successful_queries,
        Err(_) => &pool.statistics.failed_queries,
    };
    counter.increment();
    result
}

/// What is counted as a whole, and measured where it is executed.
const WHOLE: StatementContext = StatementContext {
    is_measured: true,
    ..StatementContext::OURS
};

/// Keeps what the service does on its own account out of the counts of queries.
fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    connection::with_context(StatementContext::OURS, work)
}
