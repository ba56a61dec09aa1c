//! A database for one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService, params};
use singleton_core::testing::Scope;
use tempfile::TempDir;
use user_repo::{Argon2Params, PasswordService};

use crate::shared_server;

/// An empty database for one test.
///
/// Dropping it deletes the SQLite file, or drops the PostgreSQL database and closes the connections to it.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Sqlite { _directory: TempDir },
    Postgres { server_url: String, name: String },
}

impl TestDatabase {
    /// Creates an empty SQLite database in a temporary directory.
    ///
    /// # Panics
    ///
    /// Panics if the directory cannot be created.
    #[track_caller]
    pub fn sqlite() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let url = format!("sqlite:///{}", directory.path().join("test.db").display());
        TestDatabase {
            url,
            storage: Storage::Sqlite {
                _directory: directory,
            },
        }
    }

    /// Creates an empty database on the PostgreSQL server that all tests of this process share.
    ///
    /// Returns `None`, and prints why, if there is no server. The [crate documentation](crate#postgresql) describes how
    /// the server is chosen.
    ///
    /// # Panics
    ///
    /// Panics if the server does not start or does not create the database, or if there is no server and
    /// `REQUIRE_POSTGRES=1`.
    ///
    /// # Examples
    ///
    /// ```
    /// # use tests::TestDatabase;
    /// fn test() {
    ///     let Some(database) = TestDatabase::postgres() else {
    ///         return;
    ///     };
    ///     assert!(database.url().starts_with("postgres"));
    /// }
    /// # test();
    /// ```
    #[track_caller]
    pub fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server_url = shared_server::url()?.to_owned();
        let name = format!(
            "test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        execute(&server_url, &format!("CREATE DATABASE {name}"));
        let (location, query) = server_url
            .split_once('?')
            .map_or((server_url.as_str(), String::new()), |(location, query)| {
                (location, format!("?{query}"))
            });
        let (server, _) = location
            .rsplit_once('/')
            .filter(|(server, _)| !server.ends_with('/'))
            .unwrap_or((location, ""));
        Some(TestDatabase {
            url: format!("{server}/{name}{query}"),
            storage: Storage::Postgres { server_url, name },
        })
    }

    /// Returns the database's URL, in the form that `DATABASE_URL` takes.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the default settings with this database's URL and a `pool_timeout` of 10 seconds.
    ///
    /// The default of 30 seconds would make failing tests slow.
    ///
    /// # Panics
    ///
    /// Panics if the database is on a server whose URL `db-service` rejects.
    #[track_caller]
    pub fn config(&self) -> DatabaseConfig {
        let mut config = DatabaseConfig::new(self.url.parse().expect("a valid URL"));
        config.pool_timeout = Duration::from_secs(10);
        config
    }

    /// Returns a scope with separate services that use this database and [`cheap_passwords`].
    ///
    /// # Panics
    ///
    /// Panics under the condition of [`config`](Self::config).
    #[track_caller]
    pub fn scope(&self) -> Scope {
        self.scope_with(|_| {})
    }

    /// Returns a scope like [`scope`](Self::scope), with settings changed by `change`.
    ///
    /// # Panics
    ///
    /// Panics under the condition of [`config`](Self::config).
    ///
    /// # Examples
    ///
    /// ```
    /// use db_service::DatabaseService;
    /// use tests::TestDatabase;
    ///
    /// let database = TestDatabase::sqlite();
    /// let scope = database.scope_with(|config| config.pool_size = 2);
    /// let status = scope.run(DatabaseService::get_pool_status);
    /// assert_eq!(status.unwrap().pool_size, 2);
    /// ```
    #[track_caller]
    pub fn scope_with(&self, change: impl FnOnce(&mut DatabaseConfig)) -> Scope {
        let mut config = self.config();
        change(&mut config);
        Scope::new()
            .provide(ConfigService::new(config))
            .provide(cheap_passwords())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Storage::Postgres { server_url, name } = &self.storage {
            execute(server_url, &format!("DROP DATABASE {name} WITH (FORCE)"));
        }
    }
}

/// Returns a password service with the smallest Argon2 parameters: 8 KiB of memory, 1 iteration, 1 lane.
///
/// The default parameters would dominate the run time of tests. These are not secure.
pub fn cheap_passwords() -> PasswordService {
    PasswordService::new(Argon2Params {
        memory_kib: 8,
        iterations: 1,
        parallelism: 1,
    })
    .expect("valid parameters")
}

#[track_caller]
fn execute(url: &str, sql: &str) {
    let config = ConfigService::new(DatabaseConfig::new(url.parse().expect("a valid URL")));
    let result = Scope::new()
        .provide(config)
        .run(|| DatabaseService::execute_query(sql, params! {}));
    result.expect("the test server executes the statement");
}
