//! Text from a service cannot start a log line.
//!
//! This is a separate binary, because its services would fail each start of all services.

use singleton_core::testing::Scope;
use singleton_core::{BackgroundService, Degraded, Service, Stop, registry, service};

#[path = "it/log_capture.rs"]
mod log_capture;

const HOSTILE: &str = "lost\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
const SHOWN: &str = r"lost\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";

#[service]
struct FailsHostile;

impl Service for FailsHostile {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("{HOSTILE}");
    }
}

#[service]
struct PanicsHostile;

impl Service for PanicsHostile {
    fn initialize() -> anyhow::Result<Self> {
        panic!("{HOSTILE}");
    }
}

#[service(retry(attempts = 2, initial = "1ms"))]
struct RetriesHostile;

impl Service for RetriesHostile {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("{HOSTILE}");
    }
}

#[service]
struct DegradedHostile;

impl Service for DegradedHostile {
    fn initialize() -> anyhow::Result<Self> {
        Ok(DegradedHostile)
    }

    fn ping(&self) -> anyhow::Result<()> {
        Err(Degraded::because(HOSTILE).into())
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        anyhow::bail!("{HOSTILE}");
    }
}

#[service]
struct DropHostile;

impl Service for DropHostile {
    fn initialize() -> anyhow::Result<Self> {
        Ok(DropHostile)
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::bail!("not available");
    }
}

impl Drop for DropHostile {
    fn drop(&mut self) {
        panic!("{HOSTILE}");
    }
}

#[service(background)]
struct RunsHostile;

impl Service for RunsHostile {
    fn initialize() -> anyhow::Result<Self> {
        Ok(RunsHostile)
    }
}

impl BackgroundService for RunsHostile {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        static FIRST: std::sync::Once = std::sync::Once::new();
        let mut is_first = false;
        FIRST.call_once(|| is_first = true);
        if !is_first {
            stop.wait_for_request();
        }
        anyhow::bail!("{HOSTILE}");
    }
}

#[track_caller]
fn assert_logged_on_one_line(service: &str, count: usize) {
    let records = log_capture::warnings_with(service);
    assert_eq!(records.len(), count, "{records:?}");
    for record in &records {
        assert!(record.contains(SHOWN), "{record:?}");
        assert!(!record.contains(HOSTILE), "{record:?}");
    }
}

#[test]
fn text_from_services_starts_no_log_line() {
    log_capture::install();
    Scope::new().run(|| {
        assert!(FailsHostile::instance().is_err());
        assert_logged_on_one_line("FailsHostile", 1);
        assert!(PanicsHostile::instance().is_err());
        assert_logged_on_one_line("PanicsHostile", 1);
        assert!(RetriesHostile::instance().is_err());
        assert_logged_on_one_line("RetriesHostile", 2);
        assert!(DegradedHostile::instance().is_ok());
        assert_logged_on_one_line("DegradedHostile is degraded", 1);
        assert!(DropHostile::instance().is_err());
        assert_logged_on_one_line("DropHostile panicked while it was dropped", 1);
        assert!(RunsHostile::instance().is_ok());
        // The first run fails at once, and the second one when the shutdown requests its stop.
        while log_capture::warnings_with("run of RunsHostile").is_empty() {
            std::thread::yield_now();
        }
        let report = registry().shutdown_all();
        assert!(!report.is_clean(), "{report}");
        assert_logged_on_one_line("DegradedHostile failed to shut down", 1);
        let ended = log_capture::warnings_with("run of RunsHostile");
        assert_logged_on_one_line("run of RunsHostile", ended.len());
    });
}
