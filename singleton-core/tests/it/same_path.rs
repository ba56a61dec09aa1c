//! Services with the same path and different types.

use singleton_core::testing::Scope;
use singleton_core::{Service, registry, requires, service};

/// Uses one of two services with the same path, through its dependent. Returns which of them is ready.
fn twin(first: bool) -> &'static str {
    if first {
        #[service]
        struct Twin;
        impl Service for Twin {
            fn initialize() -> anyhow::Result<Self> {
                Ok(Twin)
            }
        }
        #[service]
        #[requires(Twin)]
        struct RequiresTwin;
        impl Service for RequiresTwin {
            fn initialize() -> anyhow::Result<Self> {
                Ok(RequiresTwin)
            }
        }
        RequiresTwin::instance().map(|_| "first").unwrap()
    } else {
        #[service]
        struct Twin;
        impl Service for Twin {
            fn initialize() -> anyhow::Result<Self> {
                anyhow::bail!("the other one")
            }
        }
        #[service]
        #[requires(Twin)]
        struct RequiresOther;
        impl Service for RequiresOther {
            fn initialize() -> anyhow::Result<Self> {
                Ok(RequiresOther)
            }
        }
        RequiresOther::instance().map_or("none", |_| "second")
    }
}

#[test]
fn services_with_the_same_path_are_distinct() {
    Scope::new().run(|| {
        assert_eq!((twin(true), twin(false)), ("first", "none"));
        let graph = registry().graph();
        let dependent = graph
            .services()
            .iter()
            .find(|service| service.name() == "RequiresTwin");
        // Only their places tell them apart.
        let place = "it::same_path::Twin (singleton-core/tests/it/same_path.rs:";
        let name = dependent.unwrap().dependencies()[0];
        assert!(name.starts_with(place), "{name}");
        let twins = graph
            .services()
            .iter()
            .filter(|service| service.path() == "it::same_path::Twin");
        let mut dependents: Vec<_> = twins.map(|twin| twin.dependents().to_vec()).collect();
        dependents.sort();
        assert_eq!(dependents, [["RequiresOther"], ["RequiresTwin"]]);
    });
}
