//! The registry's list of services.

use singleton_core::testing::Scope;
use singleton_core::{Service, ServiceInfo, State, registry, requires, service};

#[service]
struct Root;
#[service]
#[requires(Root)]
struct Left;
#[service]
#[requires(Root)]
struct Right;
#[service]
#[requires(Right, Left, Root)]
struct Diamond;

macro_rules! plain {
    ($($name:ident)*) => {
        $(impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                Ok($name)
            }
        })*
    };
}
plain! { Root Left Right Diamond }

/// Returns the services that this module defines, in the order of the registry.
fn own_services() -> Vec<ServiceInfo> {
    registry()
        .services()
        .into_iter()
        .filter(|service| service.path() == format!("{}::{}", module_path!(), service.name()))
        .collect()
}

#[test]
fn services_are_listed_in_topological_order_without_initialization() {
    Scope::new().run(|| {
        let services = own_services();
        let names: Vec<_> = services.iter().map(ServiceInfo::name).collect();
        let ranks: Vec<_> = services.iter().map(ServiceInfo::rank).collect();
        assert_eq!(names, ["Root", "Left", "Right", "Diamond"]);
        assert_eq!(ranks, [1, 2, 2, 3]);
        assert_eq!(services[3].dependencies(), ["Right", "Left", "Root"]);
        assert!(
            services
                .iter()
                .all(|service| service.state() == State::Uninitialized)
        );

        Right::instance().unwrap();
        let states: Vec<_> = own_services()
            .iter()
            .map(|service| service.state().to_string())
            .collect();
        assert_eq!(states, ["ready", "uninitialized", "ready", "uninitialized"]);
        assert!(Right::is_initialized() && !Diamond::is_initialized());
    });
}

#[test]
fn each_service_comes_after_its_dependencies() {
    let services = registry().services();
    for (position, service) in services.iter().enumerate() {
        for name in service.dependencies() {
            assert!(
                services[..position]
                    .iter()
                    .any(|earlier| earlier.name() == name),
                "{service:?}"
            );
        }
    }
}
