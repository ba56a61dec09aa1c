//! The settings of read replicas.

use std::time::Duration;

use super::error::ConfigFault;
use super::url::DatabaseUrl;
use super::variables::{NotUnicode, Variables};
use crate::backend::Backend;

/// The settings of the standbys that [`DatabaseService::read`](crate::DatabaseService::read) reads from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplicaSettings {
    /// The standbys, one URL per server (`DB_REPLICA_URLS`, separated by white space, none).
    pub urls: Vec<DatabaseUrl>,
    /// The maximum replication lag of a standby that is read from, or `None` for unlimited (`DB_REPLICA_MAX_LAG`, 10
    /// s).
    pub max_lag: Option<Duration>,
}

impl Default for ReplicaSettings {
    fn default() -> Self {
        ReplicaSettings {
            urls: Vec::new(),
            max_lag: Some(Duration::from_secs(10)),
        }
    }
}

impl ReplicaSettings {
    pub(crate) fn read<L>(variables: &mut Variables<L>) -> Self
    where
        L: Fn(&'static str) -> Option<Result<String, NotUnicode>>,
    {
        let text = variables.text("DB_REPLICA_URLS").unwrap_or_default();
        let mut urls = Vec::new();
        // Commas separate the hosts inside a URL.
        for text in text.split_whitespace() {
            match DatabaseUrl::parse(text) {
                Ok(url) => urls.push(url),
                Err(error) => variables.faults.push(ConfigFault::InvalidReplicaUrl(error)),
            }
        }
        let max_lag = variables.seconds("DB_REPLICA_MAX_LAG", 10, true);
        ReplicaSettings { urls, max_lag }
    }

    /// Returns whether the replicas are PostgreSQL servers like the primary. SQLite has no replicas.
    pub(crate) fn support(&self, primary: Backend) -> bool {
        let mut backends = self.urls.iter().map(DatabaseUrl::backend);
        self.urls.is_empty()
            || primary == Backend::Postgres && backends.all(|backend| backend == Backend::Postgres)
    }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::config::DatabaseConfig;
    use crate::config::environment;

    fn read(variables: &[(&str, &str)]) -> Result<DatabaseConfig, String> {
        let found = |name: &str| variables.iter().find(|(known, _)| *known == name);
        environment::read(|name| found(name).map(|(_, value)| Ok((*value).to_owned())))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn error_for_an_invalid_url_does_not_contain_it() {
        let error = read(&[
            ("DATABASE_URL", "hunter2://hunter2"),
            ("DB_REPLICA_URLS", "sqlite://hunter2"),
        ])
        .unwrap_err();
        assert_eq!(
            error,
            "Invalid database configuration: DATABASE_URL: the scheme is none of postgres://, postgresql:// and sqlite://; \
             Invalid database configuration: DB_REPLICA_URLS: a sqlite:// URL names a file after three slashes: \
             sqlite:///data.db is relative to the working directory, sqlite:////var/lib/data.db is absolute"
        );
    }

    #[test]
    fn maximum_lag_has_a_default_and_can_be_turned_off() {
        let lag = |value| {
            let url = ("DATABASE_URL", "sqlite::memory:");
            read(&[url, ("DB_REPLICA_MAX_LAG", value)]).map(|config| config.replicas.max_lag)
        };
        assert_eq!(lag(""), Ok(Some(Duration::from_secs(10))));
        assert_eq!(lag("3"), Ok(Some(Duration::from_secs(3))));
        assert_eq!(lag("-1"), Ok(None));
        let error = "DB_REPLICA_MAX_LAG must be more than 0, or -1 for never";
        assert_eq!(lag("0"), Err(error.to_owned()));
    }

    #[test]
    fn replicas_are_refused_on_sqlite() {
        let mut config = DatabaseConfig::new("sqlite::memory:".parse().unwrap());
        config.replicas.urls.push("sqlite:///a.db".parse().unwrap());
        assert_eq!(
            config.check().unwrap_err().to_string(),
            "DB_REPLICA_URLS must be URLs of PostgreSQL, as DATABASE_URL then is"
        );
    }

    #[test]
    #[cfg(feature = "postgres")]
    fn urls_are_separated_by_white_space() {
        let urls = "\n postgresql://a:1,b:2/d?target_session_attrs=prefer-standby\tpostgresql://u:secret@c/d ";
        let config = read(&[
            ("DATABASE_URL", "postgresql://h/d"),
            ("DB_REPLICA_URLS", urls),
        ])
        .unwrap();
        let shown: Vec<_> = config
            .replicas
            .urls
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "postgresql://a:1,b:2/d?target_session_attrs=prefer-standby",
                "postgresql://u:***@c/d"
            ]
        );
        assert_eq!(config.check(), Ok(()));
    }
}
