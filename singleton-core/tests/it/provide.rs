//! Provided instances, and implementations that are chosen in `main`.

use std::sync::Mutex;

use singleton_core::ErrorKind;
use singleton_core::testing::Scope;
use singleton_core::{Error, Service, ServiceContext, guarded, registry, requires, service};

#[service]
struct ProvidedBase;

impl Service for ProvidedBase {
    fn initialize() -> anyhow::Result<Self> {
        Ok(ProvidedBase)
    }
}

#[service]
#[requires(ProvidedBase)]
#[derive(Debug)]
struct Settings {
    port: u16,
}

impl Service for Settings {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Settings { port: 80 })
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.port > 0, "no port");
        Ok(())
    }
}

impl Settings {
    #[guarded]
    fn port(&self) -> Result<u16, Error> {
        Ok(self.port)
    }
}

#[test]
fn provided_instance_replaces_initialize_and_is_pinged() {
    Scope::new().run(|| {
        Settings::provide(Settings { port: 8080 }).unwrap();
        assert!(!Settings::is_initialized());
        let twice = Settings::provide(Settings { port: 1 }).unwrap_err();
        assert_eq!(twice.to_string(), "Settings has been provided already");
        assert_eq!(Settings::port().unwrap(), 8080);
        assert!(
            ProvidedBase::is_initialized(),
            "the dependencies of a provided service must be initialized"
        );
        let late = Settings::provide(Settings { port: 1 }).unwrap_err();
        assert_eq!(
            late.to_string(),
            "Settings is in use already; provide it before its first use"
        );
    });
    Scope::new().run(|| {
        Settings::provide(Settings { port: 0 }).unwrap();
        for _ in 0..2 {
            let error = Settings::port().unwrap_err();
            assert_eq!(
                error.to_string(),
                "failed to initialize Settings: ping failed: no port"
            );
        }
    });
    assert_eq!(Settings::port().unwrap(), 80);
    let ended = Scope::new().run(ServiceContext::current);
    let error = ended.sync_scope(|| Settings::provide(Settings { port: 1 }).unwrap_err());
    assert!((error.kind() == ErrorKind::ShutDown));
}

#[service]
trait Clock: Send + Sync + 'static {
    fn hour(&self) -> u32;
}

static STOPPED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An implementation that is a service itself.
#[service]
#[requires(ProvidedBase)]
struct SystemClock;

impl Service for SystemClock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(SystemClock)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        STOPPED.lock().unwrap().push("clock");
        Ok(())
    }
}

impl Clock for SystemClock {
    fn hour(&self) -> u32 {
        9
    }
}

struct Noon;

impl Clock for Noon {
    fn hour(&self) -> u32 {
        12
    }
}

#[service]
#[requires(ProvidedBase, dyn Clock)]
struct Greeter;

impl Service for Greeter {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Greeter)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        STOPPED.lock().unwrap().push("greeter");
        Ok(())
    }
}

impl Greeter {
    #[guarded]
    fn hour(&self) -> Result<u32, Error> {
        Ok(<dyn Clock>::instance()?.hour())
    }
}

#[test]
fn trait_implementation_can_be_provided_or_bound() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        let error = Greeter::hour().unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to initialize Greeter because of dyn Clock: no implementation was chosen; call its `provide` or `bind` before the first use"
        );
        <dyn Clock>::provide(Noon).unwrap();
        assert_eq!(Greeter::hour().unwrap(), 12);
        assert!(matches!(<dyn Clock>::provide(Noon).map_err(|error| error.kind()), Err(ErrorKind::ProvidedTooLate)));
    });
    Scope::new()
        .provide_trait::<dyn Clock>(Box::new(Noon))
        .run(|| {
            assert!(<dyn Clock>::is_initialized());
            assert_eq!(Greeter::hour().unwrap(), 12);
        });
}

#[test]
fn bound_service_is_part_of_the_graph() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        <dyn Clock>::bind::<SystemClock>().unwrap();
        assert!(matches!(
            <dyn Clock>::bind::<SystemClock>().map_err(|error| error.kind()),
            Err(ErrorKind::ProvidedTwice)
        ));
        let report = registry().start::<Greeter>().unwrap();
        let chain: Vec<_> = report
            .critical_chain()
            .iter()
            .map(|service| service.name())
            .collect();
        assert_eq!(
            chain,
            ["ProvidedBase", "SystemClock", "dyn Clock", "Greeter"]
        );
        assert_eq!(Greeter::hour().unwrap(), 9);
        let services = registry().services();
        let clock = services
            .iter()
            .find(|service| service.name() == "dyn Clock")
            .unwrap();
        assert_eq!(clock.dependencies(), ["SystemClock"]);
        STOPPED.lock().unwrap().clear();
    });
    assert_eq!(*STOPPED.lock().unwrap(), ["greeter", "clock"]);
}

/// A service that requires the trait to which it is bound. This cycle is found only at run time.
#[service]
#[requires(dyn Loop)]
struct Cyclic;

#[service]
trait Loop: Send + Sync + 'static {}

impl Loop for Cyclic {}

impl Service for Cyclic {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Cyclic)
    }
}

#[test]
fn cycle_through_a_trait_is_an_error() {
    Scope::new().run(|| {
        <dyn Loop>::bind::<Cyclic>().unwrap();
        let error = Cyclic::instance().err().unwrap();
        assert_eq!(
            error.to_string(),
            "circular dependency: Cyclic -> dyn Loop -> Cyclic"
        );
        let report = registry().start::<Cyclic>().unwrap_err();
        assert!(
            report.to_string().contains("circular dependency"),
            "{report}"
        );
        assert!(registry().graph().to_string().contains("Cyclic"));
    });
}

#[service]
trait Stock: Send + Sync {
    fn name(&self) -> &'static str;
}

/// A service whose path comes after that of the trait to which it is bound.
mod remote {
    use singleton_core::{AsyncService, service};

    #[service(async)]
    pub(super) struct RemoteStock;

    impl AsyncService for RemoteStock {
        async fn initialize() -> anyhow::Result<Self> {
            tokio::task::yield_now().await;
            Ok(RemoteStock)
        }
    }

    impl super::Stock for RemoteStock {
        fn name(&self) -> &'static str {
            "remote"
        }
    }
}

use remote::RemoteStock;

#[service]
#[requires(dyn Stock)]
struct Kiosk(&'static str);

impl Service for Kiosk {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Kiosk(<dyn Stock>::instance()?.name()))
    }
}

#[test]
fn async_service_can_be_bound_and_awaited() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(Scope::new().run_async(async {
        <dyn Stock>::bind::<RemoteStock>().unwrap();
        let error = Kiosk::instance().err().unwrap();
        assert!(
            error
                .to_string()
                .contains("await Kiosk::instance_async() first"),
            "{error}"
        );
        // First through a blocking service that requires the trait, then directly.
        assert_eq!(Kiosk::instance_async().await.unwrap().0, "remote");
        assert_eq!(
            <dyn Stock>::instance_async().await.unwrap().name(),
            "remote"
        );
        assert_eq!(Scope::initialized(), ["RemoteStock", "dyn Stock", "Kiosk"]);
    }));
    runtime.block_on(Scope::new().run_async(async {
        <dyn Stock>::bind::<RemoteStock>().unwrap();
        assert_eq!(
            <dyn Stock>::instance_async().await.unwrap().name(),
            "remote"
        );
    }));
}

#[test]
fn graph_shows_bound_services() {
    Scope::new().run(|| {
        <dyn Stock>::bind::<RemoteStock>().unwrap();
        let graph = registry().graph();
        let position = |name: &str| {
            let mut services = graph.services().iter();
            services.position(|service| service.name() == name).unwrap()
        };
        // Both have rank 1, and their paths are in the opposite order.
        assert!(position("RemoteStock") < position("dyn Stock"));
        assert!(position("dyn Stock") < position("Kiosk"));
        let kiosk = graph.only(|service| service.name() == "Kiosk");
        let names: Vec<_> = kiosk
            .services()
            .iter()
            .map(|service| service.name())
            .collect();
        assert_eq!(names, ["RemoteStock", "dyn Stock", "Kiosk"]);
    });
}
