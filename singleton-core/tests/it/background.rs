//! Background services: their threads, restarts and shutdown.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use singleton_core::testing::Scope;
use singleton_core::{
    BackgroundService, Error, Health, PingOptions, Service, ShutdownOutcome, Stop, guarded,
    registry, requires, service,
};

static EVENTS: Mutex<Option<Sender<String>>> = Mutex::new(None);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn send_event(event: impl Into<String>) {
    let events = EVENTS.lock().unwrap();
    events.as_ref().unwrap().send(event.into()).unwrap();
}

#[service]
struct Queue;

impl Service for Queue {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Queue)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        send_event("queue stops");
        Ok(())
    }
}

#[service(background, tags("worker"))]
#[requires(Queue)]
struct Worker;

impl Service for Worker {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Worker)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        send_event("worker stops");
        Ok(())
    }
}

impl Worker {
    #[guarded]
    fn name(&self) -> Result<&'static str, Error> {
        Ok("worker")
    }
}

impl BackgroundService for Worker {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        // `run` can call the service itself, in its scope.
        send_event(format!(
            "{} runs on {}",
            Worker::name()?,
            thread::current().name().unwrap()
        ));
        stop.wait_for_request();
        assert!(stop.wait(Duration::from_secs(600)) && stop.is_requested());
        send_event("run ends");
        Ok(())
    }
}

#[test]
fn run_has_a_thread_with_the_services_name_until_shutdown() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let (sender, events) = mpsc::channel();
    *EVENTS.lock().unwrap() = Some(sender);
    Scope::new().run(|| {
        let options = PingOptions::new().tag("worker");
        let report = registry().ping_all(&options);
        assert_eq!(report.services()[0].health(), Health::NotStarted);
        assert_eq!(
            report.health(),
            Health::Unhealthy,
            "a background service must be started"
        );
        Worker::instance().unwrap();
        assert_eq!(events.recv().unwrap(), "worker runs on Worker");
        assert_eq!(registry().ping_all(&options).health(), Health::Healthy);
        let report = registry().ping_all(&PingOptions::new().tag("worker"));
        assert_eq!(report.services()[0].restarts(), Some(0));
        assert!(registry().shutdown_all().is_clean());
    });
    let rest: Vec<_> = events.try_iter().collect();
    assert_eq!(rest, ["run ends", "worker stops", "queue stops"]);
}

static RUNS: AtomicU32 = AtomicU32::new(0);

#[service(background, tags("unstable"))]
struct Unstable;

impl Service for Unstable {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Unstable)
    }
}

impl BackgroundService for Unstable {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        match RUNS.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            1 => anyhow::bail!("connection lost"),
            2 => panic!("out of range"),
            _ => {
                send_event("stable");
                stop.wait_for_request();
                panic!("panics when it stops, too")
            }
        }
    }
}

#[test]
fn run_that_ends_early_is_restarted_and_counted() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let (sender, events) = mpsc::channel();
    *EVENTS.lock().unwrap() = Some(sender);
    super::log_capture::install();
    Scope::new().run(|| {
        Unstable::instance().unwrap();
        assert_eq!(events.recv().unwrap(), "stable");
        let report = registry().ping_all(&PingOptions::new().tag("unstable"));
        let health = &report.services()[0];
        assert_eq!(
            (health.restarts(), health.health()),
            (Some(3), Health::Degraded)
        );
        assert_eq!(
            health.error(),
            Some("restarted after: panicked: out of range")
        );
        assert!(registry().shutdown_all().is_clean());
    });
    let logged = super::log_capture::warnings_with("run of Unstable ended before it was asked to");
    for reason in ["it returned", "connection lost", "panicked: out of range"] {
        assert_eq!(
            logged.iter().filter(|line| line.contains(reason)).count(),
            1,
            "{logged:?}"
        );
    }
}

static IGNORES_STOP: Mutex<Option<(Sender<()>, mpsc::Receiver<()>)>> = Mutex::new(None);

#[service(background, shutdown_timeout = "20ms")]
struct IgnoresStop;

impl Service for IgnoresStop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(IgnoresStop)
    }
}

impl BackgroundService for IgnoresStop {
    fn run(&self, _: &Stop) -> anyhow::Result<()> {
        let (started, gate) = IGNORES_STOP.lock().unwrap().take().unwrap();
        started.send(())?;
        let _ = gate.recv();
        Ok(())
    }
}

#[test]
fn run_that_ignores_stop_does_not_block_the_shutdown() {
    let (open, gate) = mpsc::channel();
    let (started, has_started) = mpsc::channel();
    *IGNORES_STOP.lock().unwrap() = Some((started, gate));
    Scope::new().run(|| {
        IgnoresStop::instance().unwrap();
        has_started.recv().unwrap();
        let report = registry().shutdown_all();
        assert_eq!(*report.services()[0].outcome(), ShutdownOutcome::Overran);
    });
    drop(open);
}

#[test]
fn provided_background_service_starts_no_thread() {
    let (sender, events) = mpsc::channel();
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    *EVENTS.lock().unwrap() = Some(sender);
    Scope::new()
        .provide(Worker)
        .run(|| assert_eq!(Worker::name().unwrap(), "worker"));
    *EVENTS.lock().unwrap() = None;
    assert_eq!(events.iter().collect::<Vec<_>>(), ["worker stops"]);
}
