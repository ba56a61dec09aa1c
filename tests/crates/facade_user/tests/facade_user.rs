//! All attributes in a package that depends only on a re-export of singleton-core.
#![deny(warnings)]

use std::fmt::Display;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use facade::anyhow;
use facade::singleton_core::testing::Scope;
use facade::singleton_core::{
    AsyncService, BackgroundService, Error, Service, Stop, guarded, registry, requires, service,
    setup,
};
use facade_user::Clock;
use plugin as _; // Links its services, to which no code refers.

static CONFIGURED: AtomicBool = AtomicBool::new(false);

#[setup(crate = facade::singleton_core)]
fn configure() -> anyhow::Result<()> {
    CONFIGURED.store(true, Ordering::Relaxed);
    Ok(())
}

#[service(crate = facade::singleton_core)]
trait Language: Send + Sync {
    fn greeting(&self) -> &'static str;
}

#[service(crate = facade::singleton_core)]
struct English;

impl Service for English {
    fn initialize() -> anyhow::Result<Self> {
        Ok(English)
    }
}

impl Language for English {
    fn greeting(&self) -> &'static str {
        "Hello"
    }
}

#[requires(Clock)]
#[requires(dyn Language)]
#[service(crate = facade::singleton_core, init_timeout = "10s", retry(attempts = 2), tags("readiness"))]
struct Greeter {
    names: Vec<&'static str>,
}

impl Service for Greeter {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Greeter {
            names: vec!["Ada", "Grace"],
        })
    }
}

impl Greeter {
    #[guarded]
    fn greet(&self, position: usize) -> Result<String, Error> {
        let language = <dyn Language>::instance()?;
        Ok(format!("{}, {}", language.greeting(), self.names[position]))
    }

    #[guarded]
    fn show<T: Display>(&self, value: T) -> Result<String, Error> {
        Ok(value.to_string())
    }

    #[guarded]
    fn names(&self) -> Result<impl Iterator<Item = &&'static str>, Error> {
        Ok(self.names.iter())
    }

    #[guarded]
    fn is_ready() -> Result<bool, Error> {
        Ok(Self::is_initialized())
    }
}

#[service(async, crate = facade::singleton_core)]
#[requires(Greeter)]
struct Session;

impl AsyncService for Session {
    async fn initialize() -> anyhow::Result<Self> {
        Ok(Session)
    }
}

impl Session {
    #[guarded]
    async fn open(&self, number: u32) -> Result<u32, Error> {
        Ok(number)
    }
}

#[service(background, crate = facade::singleton_core)]
struct Worker;

impl Service for Worker {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Worker)
    }
}

impl BackgroundService for Worker {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        while !stop.wait(Duration::from_secs(10)) {}
        Ok(())
    }
}

#[test]
fn all_attributes_work_through_a_re_export() {
    Scope::new().run(|| {
        <dyn Language>::bind::<English>().unwrap();
        assert_eq!(Greeter::greet(1).unwrap(), "Hello, Grace");
        assert_eq!(Greeter::show(7).unwrap(), "7");
        assert_eq!(Greeter::names().unwrap().count(), 2);
        assert!(Greeter::is_ready().unwrap());
        assert_eq!(pollster::block_on(Session::open(3)).unwrap(), 3);
        Worker::instance().unwrap();
        assert!(CONFIGURED.load(Ordering::Relaxed));
        assert_eq!(Clock::hour().unwrap(), 9);
    });
}

#[test]
fn requires_above_and_below_service_lists_the_dependencies() {
    let services = registry().services();
    let dependencies = |name| {
        let service = services.iter().find(|service| service.name() == name);
        service.unwrap().dependencies()
    };
    let mut of_greeter = dependencies("Greeter");
    of_greeter.sort_unstable();
    assert_eq!(of_greeter, ["Clock", "dyn Language"]);
    assert_eq!(dependencies("Session"), ["Greeter"]);
}

#[test]
fn mistakes_are_explained() {
    let _ = writeln!(
        io::stderr(),
        "compile-fail cases: checking the dependencies once more, in target/tests"
    );
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}

#[test]
fn unreferenced_service_is_registered() {
    let services = registry().services();
    assert!(
        services
            .iter()
            .any(|service| service.path() == "plugin::Plugin")
    );
    let report = Scope::new().run(|| registry().start_eager().unwrap());
    let starts = report.services();
    assert!(
        starts.iter().any(|start| start.name() == "Plugin"),
        "{report}"
    );
}
