//! Text from a service, such as its errors, cannot start a log line.
//!
//! This is a separate binary, because its services would fail each start of all services.

use singleton_core::testing::Scope;
use singleton_core::{BackgroundService, Degraded, Service, Stop, registry, service};

#[path = "it/log_capture.rs"]
mod log_capture;

const UNTRUSTED: &str = "lost\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
const ESCAPED: &str = r"lost\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";

#[service]
struct FailsWithText;

impl Service for FailsWithText {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("{UNTRUSTED}");
    }
}

#[service]
struct PanicsWithText;

impl Service for PanicsWithText {
    fn initialize() -> anyhow::Result<Self> {
        panic!("{UNTRUSTED}");
    }
}

#[service(retry(attempts = 2, initial = "1ms"))]
struct RetriesWithText;

impl Service for RetriesWithText {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("{UNTRUSTED}");
    }
}

#[service]
struct DegradedWithText;

impl Service for DegradedWithText {
    fn initialize() -> anyhow::Result<Self> {
        Ok(DegradedWithText)
    }

    fn ping(&self) -> anyhow::Result<()> {
        Err(Degraded::because(UNTRUSTED).into())
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        anyhow::bail!("{UNTRUSTED}");
    }
}

#[service]
struct PanicsOnDrop;

impl Service for PanicsOnDrop {
    fn initialize() -> anyhow::Result<Self> {
        Ok(PanicsOnDrop)
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::bail!("not available");
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("{UNTRUSTED}");
    }
}

#[service(background)]
struct RunFailsWithText;

impl Service for RunFailsWithText {
    fn initialize() -> anyhow::Result<Self> {
        Ok(RunFailsWithText)
    }
}

impl BackgroundService for RunFailsWithText {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        static FIRST: std::sync::Once = std::sync::Once::new();
        let mut is_first = false;
        FIRST.call_once(|| is_first = true);
        if !is_first {
            stop.wait_for_request();
        }
        anyhow::bail!("{UNTRUSTED}");
    }
}

#[track_caller]
fn assert_logged_on_one_line(service: &str, count: usize) {
    let records = log_capture::warnings_with(service);
    assert_eq!(records.len(), count, "{records:?}");
    for record in &records {
        assert!(record.contains(ESCAPED), "{record:?}");
        assert!(!record.contains(UNTRUSTED), "{record:?}");
    }
}

#[test]
fn text_from_services_starts_no_log_line() {
    log_capture::install();
    Scope::new().run(|| {
        assert!(FailsWithText::instance().is_err());
        assert_logged_on_one_line("FailsWithText", 1);
        assert!(PanicsWithText::instance().is_err());
        assert_logged_on_one_line("PanicsWithText", 1);
        assert!(RetriesWithText::instance().is_err());
        assert_logged_on_one_line("RetriesWithText", 2);
        assert!(DegradedWithText::instance().is_ok());
        assert_logged_on_one_line("DegradedWithText is degraded", 1);
        assert!(PanicsOnDrop::instance().is_err());
        assert_logged_on_one_line("PanicsOnDrop panicked while it was dropped", 1);
        assert!(RunFailsWithText::instance().is_ok());
        // The first run fails at once, and the second one when the shutdown requests its stop.
        while log_capture::warnings_with("run of RunFailsWithText").is_empty() {
            std::thread::yield_now();
        }
        let report = registry().shutdown_all();
        assert!(!report.is_clean(), "{report}");
        assert_logged_on_one_line("DegradedWithText failed to shut down", 1);
        let ended = log_capture::warnings_with("run of RunFailsWithText");
        assert_logged_on_one_line("run of RunFailsWithText", ended.len());
    });
}
