//! A database for one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, params};
use singleton_core::testing::Scope;
use tempfile::TempDir;
use user_repo::{Argon2Params, PasswordService};

use crate::cluster;

/// A database of a test's own, removed on drop.
#[derive(Debug)]
pub struct TestDatabase {
    url: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folder {
        _folder: TempDir,
    },
    Server {
        administration: String,
        name: String,
    },
}

impl TestDatabase {
    /// Makes an empty SQLite file.
    pub fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let url = format!("sqlite:///{}", folder.path().join("test.db").display());
        TestDatabase {
            url,
            place: Place::Folder { _folder: folder },
        }
    }

    /// Makes an empty database on a PostgreSQL server; `None`, and a line that says so, where there is no server.
    pub fn postgres() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let administration = cluster::url()?.to_owned();
        let name = format!(
            "test_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        execute(&administration, &format!("CREATE DATABASE {name}"));
        let (location, query) = administration.split_once('?').map_or(
            (administration.as_str(), String::new()),
            |(location, query)| (location, format!("?{query}")),
        );
        let (server, _) = location
            .rsplit_once('/')
            .filter(|(server, _)| !server.ends_with('/'))
            .unwrap_or((location, ""));
        Some(TestDatabase {
            url: format!("{server}/{name}{query}"),
            place: Place::Server {
                administration,
                name,
            },
        })
    }

    /// The URL, as it would stand in `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The settings to open it with, with a time limit that a failing test need not wait long for.
    pub fn config(&self) -> DatabaseConfig {
        let mut config = DatabaseConfig::new(self.url.parse().expect("a valid URL"));
        config.pool_timeout = Duration::from_secs(10);
        config
    }

    /// A scope in which all services are fresh and the database is this one.
    pub fn scope(&self) -> Scope {
        self.scope_with(|_| {})
    }

    /// As [`scope`](Self::scope), with settings changed.
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
        if let Place::Server {
            administration,
            name,
        } = &self.place
        {
            execute(
                administration,
                &format!("DROP DATABASE {name} WITH (FORCE)"),
            );
        }
    }
}

/// Password hashes that cost next to nothing.
pub fn cheap_passwords() -> PasswordService {
    PasswordService::new(Argon2Params {
        memory_kib: 8,
        iterations: 1,
        parallelism: 1,
    })
    .expect("valid parameters")
}

fn execute(url: &str, sql: &str) {
    let config = ConfigService::new(DatabaseConfig::new(url.parse().expect("a valid URL")));
    let result = Scope::new()
        .provide(config)
        .run(|| db_service::DatabaseService::execute_query(sql, params! {}));
    result.expect("the server of the tests does what it is told");
}
