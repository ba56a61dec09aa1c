//! The pool's metrics, with the feature `metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use singleton_core::testing::Scope;

/// The metrics so far. For a histogram, the number of its values.
struct Measured {
    snapshotter: Snapshotter,
    totals: BTreeMap<String, f64>,
}

impl Measured {
    /// Adds the changes since the last snapshot, which resets the recorder.
    fn look(&mut self) {
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let (name, labels) = key.key().clone().into_parts();
            let labels = labels.iter().map(|label| label.value().to_owned());
            let name: Vec<_> = [name.as_str().to_owned()]
                .into_iter()
                .chain(labels)
                .collect();
            *self.totals.entry(name.join(" ")).or_default() += match value {
                DebugValue::Counter(count) => count as f64,
                DebugValue::Gauge(change) => change.into_inner(),
                DebugValue::Histogram(seconds) => {
                    assert!(seconds.iter().all(|time| (0.0..60.0).contains(&**time)));
                    seconds.len() as f64
                }
            };
        }
    }

    #[track_caller]
    fn expect(&mut self, expected: &[(&str, f64)]) {
        self.look();
        for (name, value) in expected {
            let measured = self.totals.get(*name).unwrap_or(&0.0);
            assert_eq!(measured, value, "{name} of {:?}", self.totals);
        }
    }
}

#[test]
fn connections_are_counted_and_timed_as_metrics() {
    let recorder = DebuggingRecorder::new();
    let mut seen = Measured {
        snapshotter: recorder.snapshotter(),
        totals: BTreeMap::new(),
    };
    // Installed for all threads, because the pool opens connections on its own threads.
    recorder.install().unwrap();

    let mut config = DatabaseConfig::new("sqlite::memory:".parse().unwrap());
    (config.pool_size, config.max_overflow) = (1, 1);
    config.pool_timeout = Duration::from_millis(50);
    let scope = Scope::new().provide(ConfigService::new(config));
    scope.run(|| {
        let first = DatabaseService::connection().unwrap();
        seen.expect(&[
            ("db_pool_opened_total", 1.0),
            ("db_pool_connect_seconds", 1.0),
            ("db_pool_connections in_use", 1.0),
            ("db_pool_connections idle", 0.0),
            ("db_pool_waiting", 0.0),
        ]);
        let mut second = DatabaseService::connection().unwrap();
        let error = DatabaseService::connection().unwrap_err();
        assert!(matches!(error, DbError::PoolTimeout { .. }));
        seen.expect(&[
            ("db_pool_opened_total", 2.0),
            ("db_pool_connections in_use", 2.0),
            ("db_pool_wait_seconds", 4.0),
            ("db_pool_timeouts_total", 1.0),
        ]);
        drop(first);
        second
            .execute_query("PRAGMA cache_size = 100", params! {})
            .unwrap();
        drop(second);
        seen.expect(&[
            ("db_pool_connections in_use", 0.0),
            ("db_pool_connections idle", 1.0),
            ("db_pool_use_seconds", 3.0),
            ("db_pool_closed_total changed", 1.0),
        ]);
    });
    seen.expect(&[("db_pool_connections idle", 0.0)]);
}
