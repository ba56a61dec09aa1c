//! Services with the same path and different types.

use singleton_core::testing::Scope;
use singleton_core::{Service, registry, requires, service};

/// Returns the instance of one of two services with the same path.
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
        struct NeedsTwin;
        impl Service for NeedsTwin {
            fn initialize() -> anyhow::Result<Self> {
                Ok(NeedsTwin)
            }
        }
        NeedsTwin::instance().map(|_| "first").unwrap()
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
        struct NeedsOther;
        impl Service for NeedsOther {
            fn initialize() -> anyhow::Result<Self> {
                Ok(NeedsOther)
            }
        }
        NeedsOther::instance().map_or("none", |_| "second")
    }
}

#[test]
fn services_with_the_same_path_are_distinct() {
    Scope::new().run(|| {
        assert_eq!((twin(true), twin(false)), ("first", "none"));
        let graph = registry().graph();
        let needs = graph
            .services()
            .iter()
            .find(|service| service.name() == "NeedsTwin");
        assert_eq!(needs.unwrap().dependencies(), ["Twin"]);
        let twins = graph
            .services()
            .iter()
            .filter(|service| service.name() == "Twin");
        let mut dependents: Vec<_> = twins.map(|twin| twin.dependents().to_vec()).collect();
        dependents.sort();
        assert_eq!(dependents, [["NeedsOther"], ["NeedsTwin"]]);
    });
}
