//! Shutdown: in order, with timeouts, and final.

use std::sync::mpsc::{self, Receiver};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use singleton_core::testing::Scope;
use singleton_core::{
    AsyncService, BackgroundService, Error, ErrorKind, Service, ServiceContext, ShutdownOptions,
    ShutdownOutcome, ShutdownReport, Stop, env, guarded, registry, requires, service,
};

use super::gate::gate;

static EVENTS: Mutex<Vec<&str>> = Mutex::new(Vec::new());
static SLOW_GATE: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static SIDES: Barrier = Barrier::new(2);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

macro_rules! services {
    ($($name:ident ($($requirement:ident)*) $([$($policy:tt)*])? => $shutdown:expr;)*) => {$(
        #[service($($($policy)*)?)]
        #[requires($($requirement),*)]
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                Ok($name)
            }

            fn shutdown(&self) -> anyhow::Result<()> {
                let shutdown: fn() -> anyhow::Result<()> = $shutdown;
                let result = std::panic::catch_unwind(shutdown);
                EVENTS.lock().unwrap().push(stringify!($name));
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            }
        }
    )*};
}

services! {
    Ground() => || Ok(());
    // Both are independent, and each waits at the barrier for the other one.
    East(Ground) => || { SIDES.wait(); Ok(()) };
    West(Ground) => || { SIDES.wait(); Ok(()) };
    StoppingTop(East West) => || {
        assert!(Ground::is_initialized(), "a dependency must shut down after its dependent");
        Ok(())
    };
    Fails(Ground) => || anyhow::bail!("the tape is full");
    Panics(Ground) => || panic!("the tape broke");
    StoppingSlow(Ground) [shutdown_timeout = "20ms"] => || {
        let gate = SLOW_GATE.lock().unwrap().take();
        if let Some(gate) = gate { let _ = gate.recv(); }
        Ok(())
    };
    Unused() => || panic!("an unused service must not shut down");
}

#[service]
struct User;

impl Service for User {
    fn initialize() -> anyhow::Result<Self> {
        StoppingUsed::instance()?;
        Ok(User)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            StoppingUsed::is_initialized(),
            "the dependency shut down first"
        );
        Ok(())
    }
}

services! {
    StoppingUsed() => || Ok(());
}

fn outcome<'a>(report: &'a ShutdownReport, name: &str) -> &'a ShutdownOutcome {
    let mut services = report.services().iter();
    services
        .find(|service| service.name() == name)
        .unwrap()
        .outcome()
}

#[test]
fn dependents_shut_down_first_and_independent_services_in_parallel() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        StoppingTop::instance().unwrap();
        EVENTS.lock().unwrap().clear();
        let report = registry().shutdown_all();
        assert!(report.is_clean(), "{report}");
        let events = EVENTS.lock().unwrap().clone();
        assert_eq!(
            (events[0], events[3]),
            ("StoppingTop", "Ground"),
            "{events:?}"
        );
        assert_eq!(report.services().len(), 4);
        assert!(report.to_string().contains("Ground   "), "{report}");
        for error in [
            Ground::instance().err().unwrap(),
            Unused::instance().err().unwrap(),
        ] {
            assert!((error.kind() == ErrorKind::ShutDown), "{error}");
        }
        assert!(registry().start::<StoppingTop>().is_err());
        assert!(
            registry().shutdown_all().services().is_empty(),
            "a second shutdown must find no services"
        );
    });
}

#[test]
fn failures_and_panics_do_not_stop_the_shutdown_of_others() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        Fails::instance().unwrap();
        Panics::instance().unwrap();
        let report = registry().shutdown_all();
        assert!(!report.is_clean());
        assert_eq!(
            *outcome(&report, "Fails"),
            ShutdownOutcome::Failed("the tape is full".to_owned())
        );
        assert_eq!(
            *outcome(&report, "Panics"),
            ShutdownOutcome::Failed("panicked: the tape broke".to_owned())
        );
        assert_eq!(*outcome(&report, "Ground"), ShutdownOutcome::Done);
    });
}

#[test]
fn service_that_exceeds_its_timeout_does_not_block_others() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let (open, gate) = mpsc::channel();
    *SLOW_GATE.lock().unwrap() = Some(gate);
    Scope::new().run(|| {
        StoppingSlow::instance().unwrap();
        // The service's own timeout overrides this one.
        let report =
            registry().shutdown_all_with(&ShutdownOptions::new().timeout(Duration::from_secs(60)));
        assert_eq!(*outcome(&report, "StoppingSlow"), ShutdownOutcome::Overran);
        assert_eq!(*outcome(&report, "Ground"), ShutdownOutcome::Done);
        assert!(matches!(
            StoppingSlow::instance().map_err(|error| error.kind()),
            Err(ErrorKind::ShutDown)
        ));
    });
    drop(open);
}

#[test]
fn undeclared_dependency_shuts_down_after_its_dependent() {
    Scope::new().run(|| {
        User::instance().unwrap();
        let report = registry().shutdown_all();
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.services()[0].name(), "User");
    });
}

static STARTING: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static STARTED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);

#[service(shutdown_timeout = "20ms")]
#[requires(StoppingUsed)]
struct Starting;

impl Service for Starting {
    fn initialize() -> anyhow::Result<Self> {
        STARTED.lock().unwrap().take().unwrap().send(())?;
        let gate = STARTING.lock().unwrap().take().unwrap();
        let _ = gate.recv();
        Ok(Starting)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        ORPHANED.lock().unwrap().as_ref().unwrap().send(())?;
        Ok(())
    }
}

static ORPHANED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);

#[test]
fn shutdown_waits_for_running_initializations_up_to_the_timeout() {
    let (started, has_started) = mpsc::channel();
    let (open, gate) = mpsc::channel();
    let (orphan, orphaned) = mpsc::channel();
    *STARTED.lock().unwrap() = Some(started);
    *STARTING.lock().unwrap() = Some(gate);
    *ORPHANED.lock().unwrap() = Some(orphan);
    Scope::new().run(|| {
        let starter = thread::spawn(ServiceContext::current().wrap(Starting::instance));
        has_started.recv().unwrap();
        let report = registry().shutdown_all();
        assert_eq!(
            *outcome(&report, "Starting"),
            ShutdownOutcome::StillInitializing
        );
        assert_eq!(*outcome(&report, "StoppingUsed"), ShutdownOutcome::Done);
        drop(open);
        let error = starter.join().unwrap().err().unwrap();
        assert_eq!(error.to_string(), "Starting has been shut down");
        orphaned.recv().expect("the late instance is shut down");
    });
}

gate!(OUTBOX_RUNS);
static OWN_CALLS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[service]
struct Archive;

impl Service for Archive {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Archive)
    }
}

impl Archive {
    #[guarded]
    fn store(&self, text: &str) -> Result<(), Error> {
        record_own_call(text);
        Ok(())
    }
}

/// Records a call in the test's scope. A test that starts all background services is not recorded.
fn record_own_call(text: &str) {
    if env::var("OWN_CALLS").is_ok() {
        OWN_CALLS.lock().unwrap().push(text.to_owned());
    }
}

#[service(background)]
#[requires(Archive)]
struct Outbox;

impl Service for Outbox {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Outbox)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        Ok(Outbox::flush("shutdown")?)
    }
}

impl BackgroundService for Outbox {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        if env::var("OWN_CALLS").is_ok() {
            OUTBOX_RUNS.arrive();
        }
        stop.wait_for_request();
        Ok(Outbox::flush("run")?)
    }
}

impl Outbox {
    #[guarded]
    fn flush(&self, text: &str) -> Result<(), Error> {
        Archive::store(text)
    }
}

#[service(async)]
struct AsyncOutbox;

impl AsyncService for AsyncOutbox {
    async fn initialize() -> anyhow::Result<Self> {
        Ok(AsyncOutbox)
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        std::future::ready(()).await;
        Ok(AsyncOutbox::flush().await?)
    }
}

impl AsyncOutbox {
    #[guarded]
    async fn flush(&self) -> Result<(), Error> {
        record_own_call("async");
        Ok(())
    }
}

#[test]
fn service_can_use_itself_and_its_dependencies_until_the_end_of_its_shutdown() {
    Scope::new().env("OWN_CALLS", "1").run(|| {
        Outbox::instance().unwrap();
        OUTBOX_RUNS.wait_for_arrival();
        pollster::block_on(AsyncOutbox::instance_async()).unwrap();
        let report = registry().shutdown_all();
        assert!(report.is_clean(), "{report}");
        let mut calls = OWN_CALLS.lock().unwrap().clone();
        calls.retain(|call| call != "async");
        assert_eq!(calls, ["run", "shutdown"]);
        assert_eq!(OWN_CALLS.lock().unwrap().len(), 3);
        let late = Outbox::flush("late").map_err(|error| error.kind());
        assert_eq!(late, Err(ErrorKind::ShutDown));
    });
}
