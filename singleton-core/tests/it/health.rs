//! Health reports: in bounded time, with shared checks, and without initializing services.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{
    Degraded, Health, HealthReport, PingOptions, Service, ServiceHealth, env, registry, service,
};

macro_rules! checked {
    ($($name:ident ($($tag:literal)*) $([$($policy:tt)*])? => $ping:expr;)*) => {$(
        #[service(tags($($tag),*) $(, $($policy)*)?)]
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                anyhow::ensure!(env::var(stringify!($name)).is_err(), "does not start");
                Ok($name)
            }

            fn ping(&self) -> anyhow::Result<()> {
                let ping: fn() -> anyhow::Result<()> = $ping;
                ping()
            }
        }
    )*};
}

checked! {
    Working("states") => || Ok(());
    Limited("states") => || Err(Degraded::because("2 of 3 replicas").into());
    Failing("states") => || {
        anyhow::ensure!(FAIL.load(Ordering::SeqCst) == 0, "disk full");
        Ok(())
    };
    Lazy("states") => || panic!("must not be checked");
    Eager("eager") [eager] => || Ok(());
    CheckedPanicking("panics") => || {
        assert!(FAIL.load(Ordering::SeqCst) == 0, "boom");
        Ok(())
    };
    Hanging("hangs") => || {
        if let Some(gate) = HANG_GATE.lock().unwrap().take() {
            RUNS.fetch_add(1, Ordering::SeqCst);
            let _ = gate.recv();
        }
        Ok(())
    };
    CheckedOne("pair") => || {
        if BOTH.load(Ordering::SeqCst) { PAIR.wait(); }
        Ok(())
    };
    Other("pair") => || {
        if BOTH.load(Ordering::SeqCst) { PAIR.wait(); }
        Ok(())
    };
    Counted("counted") => || {
        COUNT.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
}

static FAIL: AtomicU32 = AtomicU32::new(0);
static HANG_GATE: Mutex<Option<Receiver<()>>> = Mutex::new(None);
static RUNS: AtomicU32 = AtomicU32::new(0);
static PAIR: Barrier = Barrier::new(2);
static BOTH: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
static COUNT: AtomicU32 = AtomicU32::new(0);
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn tagged(tag: &str) -> PingOptions {
    PingOptions::new().tag(tag).timeout(Duration::from_secs(60))
}

fn health_of<'a>(report: &'a HealthReport, name: &str) -> &'a ServiceHealth {
    let mut services = report.services().iter();
    services.find(|service| service.name() == name).unwrap()
}

#[test]
fn each_state_is_reported_and_unused_services_stay_unused() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        Working::instance().unwrap();
        Limited::instance().expect("a degraded service starts");
        Failing::instance().unwrap();
        FAIL.store(1, Ordering::SeqCst);
        let report = registry().ping_all(&tagged("states"));
        FAIL.store(0, Ordering::SeqCst);
        assert_eq!(report.services().len(), 4, "{report}");
        let states =
            ["Working", "Limited", "Failing", "Lazy"].map(|name| health_of(&report, name).health());
        assert_eq!(
            states,
            [
                Health::Healthy,
                Health::Degraded,
                Health::Unhealthy,
                Health::NotStarted
            ]
        );
        assert_eq!(
            health_of(&report, "Limited").error(),
            Some("2 of 3 replicas")
        );
        assert_eq!(health_of(&report, "Failing").error(), Some("disk full"));
        assert!(
            health_of(&report, "Working").latency().is_some()
                && health_of(&report, "Working").age().is_some()
        );
        assert!(!Lazy::is_initialized());
        assert_eq!(
            (report.health(), report.http_status()),
            (Health::Unhealthy, 503)
        );

        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["health"], "unhealthy");
        let services = json["services"].as_array().unwrap();
        let lazy = services
            .iter()
            .find(|service| service["name"] == "Lazy")
            .unwrap();
        assert_eq!(lazy["health"], "not_started");
        assert_eq!(lazy["tags"], serde_json::json!(["states"]));
        assert!(lazy["latency_ms"].is_null() && lazy["error"].is_null());
        assert!(
            report.to_string().ends_with("together: unhealthy\n"),
            "{report}"
        );
    });
}

#[test]
fn eager_service_that_is_not_started_is_unhealthy() {
    Scope::new().env("Working", "fails").run(|| {
        let report = registry().ping_all(&tagged("eager"));
        assert_eq!(health_of(&report, "Eager").health(), Health::NotStarted);
        assert_eq!(report.health(), Health::Unhealthy);
        Eager::instance().unwrap();
        assert_eq!(
            registry().ping_all(&tagged("eager")).health(),
            Health::Healthy
        );

        assert!(Working::instance().is_err());
        let report = registry().ping_all(&tagged("states"));
        assert_eq!(health_of(&report, "Working").health(), Health::Unhealthy);
        assert_eq!(
            health_of(&report, "Working").error(),
            Some("failed to initialize Working: does not start")
        );
        assert!(
            registry()
                .ping_all(&tagged("nothing"))
                .services()
                .is_empty()
        );
    });
}

#[test]
fn checks_run_in_parallel() {
    Scope::new().run(|| {
        CheckedOne::instance().unwrap();
        Other::instance().unwrap();
        // Each check waits at the barrier for the other one.
        BOTH.store(true, Ordering::SeqCst);
        let report = registry().ping_all(&tagged("pair"));
        BOTH.store(false, Ordering::SeqCst);
        assert_eq!(report.health(), Health::Healthy, "{report}");
    });
}

#[test]
fn hanging_check_times_out_and_is_not_started_twice() {
    Scope::new().run(|| {
        Hanging::instance().unwrap();
        let (open, gate) = mpsc::channel();
        *HANG_GATE.lock().unwrap() = Some(gate);
        let short = tagged("hangs").timeout(Duration::from_millis(20));
        for _ in 0..3 {
            let report = registry().ping_all(&short);
            let hanging = health_of(&report, "Hanging");
            assert_eq!(hanging.health(), Health::Unhealthy);
            assert_eq!(hanging.error(), Some("no answer within 20ms"));
            assert!(hanging.latency().unwrap() >= Duration::from_millis(20));
        }
        assert_eq!(RUNS.load(Ordering::SeqCst), 1);
        drop(open);
        assert_eq!(
            registry().ping_all(&tagged("hangs")).health(),
            Health::Healthy
        );
    });
}

#[test]
fn panic_in_ping_is_unhealthy() {
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    Scope::new().run(|| {
        CheckedPanicking::instance().unwrap();
        FAIL.store(1, Ordering::SeqCst);
        let report = registry().ping_all(&tagged("panics"));
        FAIL.store(0, Ordering::SeqCst);
        assert_eq!(
            health_of(&report, "CheckedPanicking").error(),
            Some("panicked: boom")
        );
        assert_eq!(
            registry().ping_all(&tagged("panics")).health(),
            Health::Healthy
        );
    });
}

#[test]
fn result_is_reused_up_to_the_given_age() {
    Scope::new().run(|| {
        Counted::instance().unwrap();
        let before = COUNT.load(Ordering::SeqCst);
        let options = tagged("counted").reuse_for(Duration::from_secs(600));
        let first = registry().ping_all(&options);
        let second = registry().ping_all(&options);
        assert_eq!(COUNT.load(Ordering::SeqCst), before + 1);
        assert_eq!(
            first.services()[0].latency(),
            second.services()[0].latency()
        );
        assert!(first.services()[0].age() < second.services()[0].age());
        registry().ping_all(&tagged("counted"));
        assert_eq!(COUNT.load(Ordering::SeqCst), before + 2);
        let slow = tagged("counted").degraded_after(Duration::ZERO);
        assert_eq!(registry().ping_all(&slow).health(), Health::Degraded);
    });
}

#[service(init_timeout = "20ms", tags("overdue"))]
struct Overdue;

static OVERDUE: Mutex<Option<Receiver<()>>> = Mutex::new(None);

impl Service for Overdue {
    fn initialize() -> anyhow::Result<Self> {
        let gate = OVERDUE.lock().unwrap().take();
        gate.map(|gate| gate.recv());
        Ok(Overdue)
    }
}

#[test]
fn overdue_initialization_is_unhealthy() {
    let (release, gate) = mpsc::channel::<()>();
    *OVERDUE.lock().unwrap() = Some(gate);
    Scope::new().run(|| {
        assert!(Overdue::instance().is_err());
        let report = registry().ping_all(&tagged("overdue"));
        let health = &report.services()[0];
        assert_eq!(
            (health.health(), health.error()),
            (Health::Unhealthy, Some("not ready after 20ms"))
        );
        drop(release);
        while !Overdue::is_initialized() {
            std::thread::yield_now();
        }
        let report = registry().ping_all(&tagged("overdue"));
        assert_eq!(report.health(), Health::Healthy);
    });
}

#[test]
fn unknown_tag_makes_the_report_unhealthy() {
    Scope::new().run(|| {
        let report = registry().ping_all(&tagged("states").tag("redy\nness"));
        assert_eq!(
            (report.health(), report.http_status()),
            (Health::Unhealthy, 503)
        );
        assert_eq!(report.unknown_tags(), ["redy\nness"]);
        let (text, json) = (report.to_string(), report.to_json());
        assert!(text.contains(r"no service is tagged redy\nness"));
        assert!(json.contains(r#""unknown_tags":["redy\nness"]"#));
        let report = registry().ping_all(&tagged("states"));
        assert_eq!(
            (report.http_status(), report.unknown_tags().len()),
            (200, 0)
        );
    });
}

macro_rules! blocking_together {
    ($($name:ident)*) => {
        $(
            #[service(tags("together"))]
            struct $name;

            impl Service for $name {
                fn initialize() -> anyhow::Result<Self> {
                    Ok($name)
                }

                fn ping(&self) -> anyhow::Result<()> {
                    if BLOCKS.load(Ordering::SeqCst) > 0 {
                        CHECK_STARTED.lock().unwrap().as_ref().unwrap().send(())?;
                        // Waits until the test drops its write guard.
                        drop(CHECKS_BLOCKED.read().unwrap());
                    }
                    Ok(())
                }
            }
        )*

        fn start_together() -> u32 {
            let mut count = 0;
            $(
                $name::instance().unwrap();
                count += 1;
            )*
            count
        }
    };
}

static BLOCKS: AtomicU32 = AtomicU32::new(0);
static CHECK_STARTED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);
static CHECKS_BLOCKED: std::sync::RwLock<()> = std::sync::RwLock::new(());

blocking_together! { A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 }

#[test]
fn waits_for_checks_of_another_report_do_not_add_up() {
    const LIMIT: Duration = Duration::from_secs(2);
    Scope::new().run(|| {
        let count = start_together();
        let (started, has_started) = mpsc::channel();
        *CHECK_STARTED.lock().unwrap() = Some(started);
        let blocked = CHECKS_BLOCKED.write().unwrap();
        BLOCKS.store(1, Ordering::SeqCst);
        let other = thread::spawn(
            ServiceContext::current().wrap(|| registry().ping_all(&tagged("together"))),
        );
        for _ in 0..count {
            has_started.recv().unwrap();
        }
        BLOCKS.store(0, Ordering::SeqCst);
        let start = std::time::Instant::now();
        let report = registry().ping_all(&PingOptions::new().tag("together").timeout(LIMIT));
        // A timeout for each check would add up to twenty seconds.
        assert!(start.elapsed() < 4 * LIMIT, "{:?}", start.elapsed());
        assert_eq!(report.health(), Health::Unhealthy);
        drop(blocked);
        assert_eq!(other.join().unwrap().health(), Health::Healthy);
    });
}
