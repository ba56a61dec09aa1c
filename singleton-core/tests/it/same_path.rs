//! Services with the same name, and services with the same path.

use singleton_core::testing::Scope;
use singleton_core::{PingOptions, Service, registry, requires, service};

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

/// Defines a module with a service that another module has too.
macro_rules! namesake {
    ($module:ident, $initialize:expr) => {
        mod $module {
            use singleton_core::{Service, service};

            #[service(tags("namesakes"))]
            pub(super) struct Namesake;

            impl Service for Namesake {
                fn initialize() -> anyhow::Result<Self> {
                    $initialize
                }
            }
        }
    };
}

namesake!(works, Ok(Namesake));
namesake!(fails, anyhow::bail!("no ink"));

#[service]
#[requires(fails::Namesake, works::Namesake)]
struct RequiresNamesakes;

impl Service for RequiresNamesakes {
    fn initialize() -> anyhow::Result<Self> {
        Ok(RequiresNamesakes)
    }
}

#[test]
fn services_of_one_name_are_told_apart_by_their_modules() {
    Scope::new().run(|| {
        assert!(works::Namesake::instance().is_ok());
        assert_eq!(Scope::initialized(), ["works::Namesake"]);
        let error = RequiresNamesakes::instance().err().unwrap();
        assert_eq!(error.because_of(), Some("fails::Namesake"));
        assert_eq!(
            error.to_string(),
            "failed to initialize RequiresNamesakes because of fails::Namesake: no ink"
        );
        let graph = registry().graph().to_string();
        assert!(graph.contains("── fails::Namesake ("), "{graph}");
        assert!(graph.contains("── works::Namesake (ready"), "{graph}");
        let health = registry().ping_all(&PingOptions::new().tag("namesakes"));
        let names: Vec<_> = health
            .services()
            .iter()
            .map(|service| service.name())
            .collect();
        assert_eq!(names, ["fails::Namesake", "works::Namesake"]);
        assert_eq!(
            health.services()[0].path(),
            "it::same_path::fails::Namesake"
        );
        let start = registry()
            .start::<RequiresNamesakes>()
            .unwrap_err()
            .to_string();
        assert!(
            start.contains("because of fails::Namesake")
                || start.contains("initialize fails::Namesake"),
            "{start}"
        );
        let shutdown = registry().shutdown_all().to_string();
        assert!(shutdown.contains("works::Namesake  "), "{shutdown}");
    });
}
