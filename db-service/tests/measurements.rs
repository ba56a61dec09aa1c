//! The metrics that the pool reports with the feature `metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use singleton_core::testing::Scope;

/// The metrics recorded so far. The total of a histogram is its number of values.
struct RecordedMetrics {
    snapshotter: Snapshotter,
    totals: BTreeMap<String, f64>,
}

impl RecordedMetrics {
    /// Adds the recorder's snapshot to the totals. Taking a snapshot resets the recorder.
    fn update(&mut self) {
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

    /// Asserts the totals of metrics, named `metric` or `metric label`.
    #[track_caller]
    fn assert_totals(&mut self, expected: &[(&str, f64)]) {
        self.update();
        for (name, value) in expected {
            let recorded = self.totals.get(*name).unwrap_or(&0.0);
            assert_eq!(recorded, value, "{name} in {:?}", self.totals);
        }
    }
}

#[test]
fn pool_reports_connections_waits_and_durations() {
    let recorder = DebuggingRecorder::new();
    let mut metrics = RecordedMetrics {
        snapshotter: recorder.snapshotter(),
        totals: BTreeMap::new(),
    };
    // For all threads, because the pool opens connections on its own thread.
    recorder.install().unwrap();

    let mut config = DatabaseConfig::new("sqlite::memory:".parse().unwrap());
    (config.pool_size, config.max_overflow) = (1, 1);
    config.pool_timeout = Duration::from_millis(50);
    let scope = Scope::new().provide(ConfigService::new(config));
    scope.run(|| {
        let first = DatabaseService::connection().unwrap();
        metrics.assert_totals(&[
            ("db_pool_opened_total", 1.0),
            ("db_pool_connect_seconds", 1.0),
            ("db_pool_connections in_use", 1.0),
            ("db_pool_connections idle", 0.0),
            ("db_pool_waiting", 0.0),
        ]);
        let mut second = DatabaseService::connection().unwrap();
        let error = DatabaseService::connection().unwrap_err();
        assert!(matches!(error, DbError::PoolTimeout { .. }));
        metrics.assert_totals(&[
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
        metrics.assert_totals(&[
            ("db_pool_connections in_use", 0.0),
            ("db_pool_connections idle", 1.0),
            ("db_pool_use_seconds", 3.0),
            ("db_pool_closed_total changed", 1.0),
        ]);
    });
    metrics.assert_totals(&[("db_pool_connections idle", 0.0)]);
}
