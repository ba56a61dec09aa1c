//! Spans and metrics, with the features `tracing` and `metrics`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use singleton_core::{PingOptions, Service, registry, requires, service};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

#[service]
struct Base;

#[service]
#[requires(Base)]
struct Middle;

#[service]
#[requires(Middle)]
struct Top;

macro_rules! plain {
    ($($name:ident)*) => {
        $(impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                Ok($name)
            }
        })*
    };
}
plain! { Base Middle Top }

/// The parent of each opened span, by the names of their services.
#[derive(Clone, Default)]
struct Nesting(Arc<Mutex<HashMap<String, Option<String>>>>);

#[derive(Clone)]
struct ServiceName(String);

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Nesting {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        struct NameVisitor(Option<String>);
        impl tracing::field::Visit for NameVisitor {
            fn record_str(&mut self, _: &tracing::field::Field, value: &str) {
                self.0 = Some(value.to_owned());
            }

            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        let mut visitor = NameVisitor(None);
        attributes.record(&mut visitor);
        let name = visitor.0.unwrap();
        let span = context.span(id).unwrap();
        let parent = span.parent().and_then(|parent| {
            parent
                .extensions()
                .get::<ServiceName>()
                .map(|name| name.0.clone())
        });
        span.extensions_mut().insert(ServiceName(name.clone()));
        self.0.lock().unwrap().insert(name, parent);
    }
}

#[test]
fn spans_nest_along_dependencies_and_transitions_are_counted() {
    let recorder = DebuggingRecorder::new();
    let measurements = recorder.snapshotter();
    recorder.install().unwrap();
    let nesting = Nesting::default();
    let subscriber = tracing_subscriber::registry().with(nesting.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();

    Top::instance().unwrap();
    registry().ping_all(&PingOptions::new());
    registry().shutdown_all();

    let nesting = nesting.0.lock().unwrap();
    assert_eq!(nesting["Top"], None);
    assert_eq!(nesting["Middle"].as_deref(), Some("Top"));
    assert_eq!(nesting["Base"].as_deref(), Some("Middle"));

    let mut counts = HashMap::new();
    for (key, _, _, value) in measurements.snapshot().into_vec() {
        let labels: Vec<_> = key
            .key()
            .labels()
            .map(|label| label.value().to_owned())
            .collect();
        if labels[0] == "Base" {
            let count = match value {
                DebugValue::Counter(count) => count,
                DebugValue::Histogram(values) => values.len() as u64,
                DebugValue::Gauge(_) => continue,
            };
            counts.insert((key.key().name().to_owned(), labels.get(1).cloned()), count);
        }
    }
    let count = |name: &str, outcome: Option<&str>| {
        counts
            .get(&(name.to_owned(), outcome.map(str::to_owned)))
            .copied()
    };
    assert_eq!(
        count("singleton_initializations_total", Some("ready")),
        Some(1)
    );
    assert_eq!(count("singleton_initialization_seconds", None), Some(1));
    assert_eq!(count("singleton_pings_total", Some("healthy")), Some(2));
    assert_eq!(count("singleton_ping_seconds", None), Some(2));
    assert_eq!(count("singleton_shutdowns_total", Some("done")), Some(1));
    assert_eq!(count("singleton_shutdown_seconds", None), Some(1));
}
