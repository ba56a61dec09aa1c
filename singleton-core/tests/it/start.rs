//! Starting many services: in parallel, with all failures reported, and rolled back after a failure.

use std::sync::{Barrier, Mutex};
use std::time::Duration;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{
    ErrorKind, Service, StartOutcome, StartReport, env, registry, requires, service,
};

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn record(event: &str) {
    EVENTS.lock().unwrap().push(event.to_owned());
}

macro_rules! services {
    ($($name:ident ($($requirement:ident)*) $initialize:block)*) => {$(
        #[service]
        #[requires($($requirement),*)]
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                $initialize
                Ok($name)
            }

            fn shutdown(&self) -> anyhow::Result<()> {
                record(concat!(stringify!($name), " stops"));
                Ok(())
            }
        }
    )*};
}

/// A barrier that both sides of the diamond must reach at the same time.
static TOGETHER: Barrier = Barrier::new(2);

services! {
    StartingBase() {}
    StartingLeft(StartingBase) { TOGETHER.wait(); }
    StartingRight(StartingBase) { TOGETHER.wait(); }
    // `AfterHare` depends only on `Hare`, and must not wait for `Tortoise`, which waits for it.
    Hare(StartingBase) {}
    Tortoise(StartingBase) { GOAL.wait(); }
    AfterHare(Hare) { GOAL.wait(); }
    Race(AfterHare Tortoise) {}
    StartingDiamond(StartingLeft StartingRight) {}
    Broken(StartingBase) { anyhow::ensure!(env::var("PAPER").is_ok(), "no paper") }
    StartingPanics(StartingBase) { assert!(env::var("INK").is_ok(), "no ink") }
    BehindBroken(Broken) {}
    FarBehind(BehindBroken) {}
    Printer(FarBehind StartingPanics) {}
    StartingFlaky() { anyhow::ensure!(env::var("FLAKY").is_ok(), "not yet") }
    OnFlaky(StartingBase StartingFlaky) {}
}

static GOAL: Barrier = Barrier::new(2);

fn outcome<'a>(report: &'a StartReport, name: &str) -> &'a StartOutcome {
    let mut services = report.services().iter();
    services
        .find(|service| service.name() == name)
        .unwrap()
        .outcome()
}

#[test]
fn independent_services_start_in_parallel_without_waiting_for_ranks() {
    Scope::new().run(|| {
        // This would hang if the sides did not start in parallel.
        registry().start::<StartingDiamond>().unwrap();
        // `AfterHare` has rank 3, and `Tortoise` rank 2.
        let report = registry().start::<Race>().unwrap();
        assert!(matches!(
            outcome(&report, "StartingBase"),
            StartOutcome::AlreadyReady
        ));
        assert!(matches!(outcome(&report, "Race"), StartOutcome::Started));
        ServiceContext::current().sync_scope(|| assert!(Race::is_initialized()));
    });
}

#[test]
fn one_thread_is_enough_for_services_that_do_not_wait() {
    Scope::new().env("FLAKY", "works").run(|| {
        let report = registry().start::<OnFlaky>().unwrap();
        assert_eq!(report.services().len(), 3);
    });
}

#[test]
fn all_failures_are_reported_and_started_services_are_rolled_back() {
    Scope::new().run(|| {
        let error = registry().start::<Printer>().unwrap_err();
        let report = error.report();
        let failed: Vec<_> = report
            .failures()
            .map(|(name, error)| format!("{name}: {error}"))
            .collect();
        assert_eq!(failed.len(), 2, "{failed:?}");
        assert!(failed.contains(&"Broken: failed to initialize Broken: no paper".to_owned()));
        assert!(failed.contains(
            &"StartingPanics: failed to initialize StartingPanics: panicked: no ink".to_owned()
        ));
        for name in ["BehindBroken", "FarBehind"] {
            assert!(
                matches!(
                    outcome(report, name),
                    StartOutcome::Skipped {
                        because_of: "Broken"
                    }
                ),
                "{report}"
            );
        }
        assert!(matches!(
            outcome(report, "Printer"),
            StartOutcome::Skipped { .. }
        ));
        assert!(matches!(
            outcome(report, "StartingBase"),
            StartOutcome::Started
        ));
        let text = error.to_string();
        assert!(
            text.starts_with("5 of 6 services did not start: "),
            "{text}"
        );
        assert!(
            text.contains("no paper") && text.contains("no ink"),
            "{text}"
        );

        assert!(
            !StartingBase::is_initialized(),
            "a failed start must shut down the services that it started"
        );
        assert_eq!(error.taken_back().services()[0].name(), "StartingBase");
        assert!(
            StartingBase::instance().is_ok(),
            "a service that was rolled back must start again"
        );
    });
}

#[test]
fn services_that_were_ready_before_stay_ready() {
    Scope::new().run(|| {
        let base = std::ptr::from_ref(StartingBase::instance().unwrap());
        assert!(registry().start::<OnFlaky>().is_err());
        assert!(std::ptr::eq(base, StartingBase::instance().unwrap()));
    });
}

#[test]
fn report_shows_durations_and_the_critical_chain() {
    Scope::new().env("FLAKY", "works").run(|| {
        let report = registry().start::<OnFlaky>().unwrap();
        let chain = report.critical_chain();
        assert_eq!(chain.last().unwrap().name(), "OnFlaky");
        let last = chain.last().unwrap();
        assert!(chain.len() == 2 && chain[0].waited() + chain[0].own() <= last.waited());
        assert!(last.waited() + last.own() <= report.took());
        let table = report.to_string();
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>(),
            ["service", "rank", "waited", "own", "time", "outcome"]
        );
        assert!(lines[3].starts_with("OnFlaky        2     "), "{table}");
        assert!(
            table.contains("critical chain: ") && table.contains(" -> OnFlaky\n3 services in ")
        );
        let waterfall = report.waterfall().to_string();
        assert_eq!(waterfall.lines().count(), 3, "{waterfall}");
        let last = waterfall.lines().last().unwrap();
        assert!(
            last.starts_with("* OnFlaky ") && last.contains('█'),
            "{waterfall}"
        );
        assert!(waterfall.lines().all(|line| line.chars().count() <= 100));
        assert!(report.took() > Duration::ZERO);
    });
}

#[test]
fn start_inside_an_ended_scope_fails_with_the_reason() {
    let handle = Scope::new().run(ServiceContext::current);
    let error = handle.sync_scope(|| registry().start::<StartingBase>().unwrap_err());
    let (_, failure) = error.report().failures().next().unwrap();
    assert_eq!(failure.kind(), ErrorKind::ShutDown);
    assert_eq!(failure.service(), Some("StartingBase"));
}
