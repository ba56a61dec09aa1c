//! Errors and panics in `initialize` and `ping`.

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use singleton_core::testing::Scope;
use singleton_core::{Error, Service, State, guarded, registry, requires, service};

static MODE: AtomicUsize = AtomicUsize::new(0);
const WORKS: usize = 0;
const FAILS: usize = 1;
const PING_FAILS: usize = 2;
const PANICS: usize = 3;
const PING_PANICS: usize = 4;
const PANICS_WITH_NO_TEXT: usize = 5;
const DROP_PANICS: usize = 6;

#[service]
struct Moody {
    drop_panics: bool,
}

impl Service for Moody {
    fn initialize() -> anyhow::Result<Self> {
        match MODE.load(Ordering::SeqCst) {
            FAILS => Err(io::Error::from(io::ErrorKind::NotFound)).context("reading the settings"),
            PANICS => panic!("number {}", 7),
            PANICS_WITH_NO_TEXT => std::panic::panic_any(PanicsAgain),
            mode => Ok(Moody {
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

impl Drop for Moody {
    fn drop(&mut self) {
        assert!(!self.drop_panics, "dropped");
    }
}

struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("once more");
    }
}

impl Moody {
    #[guarded]
    fn call(&self) -> Result<u32, Error> {
        Ok(1)
    }
}

#[service]
#[requires(Moody)]
struct Middle;

impl Service for Middle {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Middle)
    }
}

#[service]
#[requires(Middle)]
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
        Moody::call().context("asking Moody")?;
        Ok(Explains)
    }
}

#[service]
struct Undeclared;

impl Service for Undeclared {
    fn initialize() -> anyhow::Result<Self> {
        Moody::call()?;
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
                "failed to initialize Moody: reading the settings",
                "failed to initialize Outer because of Moody: reading the settings",
            ),
            (
                PING_FAILS,
                "failed to initialize Moody: ping failed: no answer",
                "failed to initialize Outer because of Moody: ping failed: no answer",
            ),
            (
                PANICS,
                "failed to initialize Moody: panicked: number 7",
                "failed to initialize Outer because of Moody: panicked: number 7",
            ),
            (
                PING_PANICS,
                "failed to initialize Moody: panicked: static text",
                "failed to initialize Outer because of Moody: panicked: static text",
            ),
            (
                PANICS_WITH_NO_TEXT,
                "failed to initialize Moody: panicked: with a value that is no text",
                "failed to initialize Outer because of Moody: panicked: with a value that is no text",
            ),
            (
                DROP_PANICS,
                "failed to initialize Moody: ping failed: no answer",
                "failed to initialize Outer because of Moody: ping failed: no answer",
            ),
        ] {
            MODE.store(mode, Ordering::SeqCst);
            assert_eq!(error_of(Moody::call()).to_string(), own);
            assert_eq!(error_of(Outer::instance()).to_string(), through_others);
            assert_eq!(error_of(Undeclared::instance()).to_string(), own.replace("Moody", "Undeclared because of Moody"));
            for service in registry().services() {
                assert_ne!(service.state(), State::Initializing, "{service:?} is stuck");
            }
        }
        MODE.store(FAILS, Ordering::SeqCst);
        let error = error_of(Outer::instance());
        assert!(matches!(error, Error::InitializationFailed { service: "Outer", because_of: Some("Moody"), .. }));
        let cause = error.source().unwrap();
        assert_eq!(cause.to_string(), "reading the settings");
        assert_eq!(format!("{error:#}"), "failed to initialize Outer because of Moody: reading the settings: entity not found");
        let root = cause.source().unwrap().downcast_ref::<io::Error>().unwrap();
        assert_eq!(root.kind(), io::ErrorKind::NotFound);

        let explained = error_of(Explains::instance());
        let text = "failed to initialize Explains: asking Moody: failed to initialize Moody: reading the settings";
        assert!(format!("{explained:#}").starts_with(text), "{explained:#}");

        MODE.store(WORKS, Ordering::SeqCst);
        assert_eq!(Moody::call().unwrap(), 1);
        assert!(Outer::instance().is_ok() && Undeclared::instance().is_ok());
    });
}

#[test]
fn errors_travel_between_threads() {
    fn check<T: std::error::Error + Clone + Send + Sync + 'static>() {}
    check::<Error>();
}
