//! Errors and panics in `initialize` and `ping`.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use singleton_core::ErrorKind;
use singleton_core::testing::Scope;
use singleton_core::{Error, Service, State, guarded, registry, requires, service};

static MODE: AtomicUsize = AtomicUsize::new(0);
const WORKS: usize = 0;
const FAILS: usize = 1;
const PING_FAILS: usize = 2;
const PANICS: usize = 3;
const PING_PANICS: usize = 4;
const PANICS_WITHOUT_TEXT: usize = 5;
const DROP_PANICS: usize = 6;

#[service]
struct Flaky {
    drop_panics: bool,
}

impl Service for Flaky {
    fn initialize() -> anyhow::Result<Self> {
        match MODE.load(Ordering::SeqCst) {
            FAILS => Err(io::Error::from(io::ErrorKind::NotFound)).context("reading the settings"),
            PANICS => panic!("number {}", 7),
            PANICS_WITHOUT_TEXT => std::panic::panic_any(PanicsOnDrop),
            mode => Ok(Flaky {
                drop_panics: mode == DROP_PANICS,
            }),
        }
    }

    fn ping(&self) -> anyhow::Result<()> {
        match MODE.load(Ordering::SeqCst) {
            PING_FAILS | DROP_PANICS => anyhow::bail!("no answer"),
            PING_PANICS => panic!("static text"),
            _ => Ok(()),
        }
    }
}

impl Drop for Flaky {
    fn drop(&mut self) {
        assert!(!self.drop_panics, "dropped");
    }
}

struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped again");
    }
}

impl Flaky {
    #[guarded]
    fn call(&self) -> Result<u32, Error> {
        Ok(1)
    }
}

#[service]
#[requires(Flaky)]
struct FailingMiddle;

impl Service for FailingMiddle {
    fn initialize() -> anyhow::Result<Self> {
        Ok(FailingMiddle)
    }
}

#[service]
#[requires(FailingMiddle)]
struct Outer;

impl Service for Outer {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Outer)
    }
}

#[service]
struct Explains;

impl Service for Explains {
    fn initialize() -> anyhow::Result<Self> {
        Flaky::call().context("calling Flaky")?;
        Ok(Explains)
    }
}

#[service]
struct Undeclared;

impl Service for Undeclared {
    fn initialize() -> anyhow::Result<Self> {
        Flaky::call()?;
        Ok(Undeclared)
    }
}

#[track_caller]
fn error_of<T>(result: Result<T, Error>) -> Error {
    result.err().expect("the service should have failed")
}

#[test]
fn each_failure_is_reported_and_the_next_call_retries() {
    Scope::new().run(|| {
        for (mode, own, through_others) in [
            (
                FAILS,
                "failed to initialize Flaky: reading the settings: entity not found",
                "failed to initialize Outer because of Flaky: reading the settings: entity not found",
            ),
            (
                PING_FAILS,
                "failed to initialize Flaky: ping failed: no answer",
                "failed to initialize Outer because of Flaky: ping failed: no answer",
            ),
            (
                PANICS,
                "failed to initialize Flaky: panicked: number 7",
                "failed to initialize Outer because of Flaky: panicked: number 7",
            ),
            (
                PING_PANICS,
                "failed to initialize Flaky: panicked: static text",
                "failed to initialize Outer because of Flaky: panicked: static text",
            ),
            (
                PANICS_WITHOUT_TEXT,
                "failed to initialize Flaky: panicked: with a value that is no text",
                "failed to initialize Outer because of Flaky: panicked: with a value that is no text",
            ),
            (
                DROP_PANICS,
                "failed to initialize Flaky: ping failed: no answer",
                "failed to initialize Outer because of Flaky: ping failed: no answer",
            ),
        ] {
            MODE.store(mode, Ordering::SeqCst);
            assert_eq!(error_of(Flaky::call()).to_string(), own);
            assert_eq!(error_of(Outer::instance()).to_string(), through_others);
            assert_eq!(error_of(Undeclared::instance()).to_string(), own.replace("Flaky", "Undeclared because of Flaky"));
            for service in registry().services() {
                assert_ne!(service.state(), State::Initializing, "{service:?} is stuck");
            }
        }
        MODE.store(FAILS, Ordering::SeqCst);
        let error = error_of(Outer::instance());
        assert_eq!(error.kind(), ErrorKind::InitializationFailed);
        assert_eq!((error.service(), error.because_of()), (Some("Outer"), Some("Flaky")));
        let cause = error.cause().unwrap();
        assert_eq!(cause.to_string(), "reading the settings");
        assert_eq!(format!("{error:#}"), "failed to initialize Outer because of Flaky: reading the settings: entity not found");
        let root = cause.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(root.kind(), io::ErrorKind::NotFound);

        let explained = error_of(Explains::instance());
        let text = "failed to initialize Explains: calling Flaky: failed to initialize Flaky: reading the settings";
        assert!(format!("{explained:#}").starts_with(text), "{explained:#}");

        MODE.store(WORKS, Ordering::SeqCst);
        assert_eq!(Flaky::call().unwrap(), 1);
        assert!(Outer::instance().is_ok() && Undeclared::instance().is_ok());
    });
}

#[test]
fn errors_can_be_sent_between_threads() {
    fn assert_bounds<T: std::error::Error + Clone + Send + Sync + 'static>() {}
    assert_bounds::<Error>();
}
