//! Initializations that end after their callers have stopped waiting.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use singleton_core::testing::Scope;
use singleton_core::{Error, Service, StartOutcome, env, registry, service};

use super::gate::{LONG, gate};

gate!(LATE);
gate!(LATE_STOP);

#[service(init_timeout = "30ms", shutdown_timeout = "30ms")]
struct Late;

impl Service for Late {
    fn initialize() -> anyhow::Result<Self> {
        LATE.pass();
        Ok(Late)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        let seen = env::var("LATE").or_else(|_| env::var("PATH"));
        assert_eq!(
            seen.ok(),
            env::var("LATE").ok(),
            "the process's variables are none of its"
        );
        LATE_STOP.pass();
        Ok(())
    }
}

#[test]
fn late_instance_of_a_failed_start_is_shut_down_unless_requested() {
    let fail = || {
        let error = registry().start::<Late>().unwrap_err();
        assert!(matches!(
            error.report().services()[0].outcome(),
            StartOutcome::Failed(Error::TimedOut { .. })
        ));
        LATE.await_someone();
    };
    Scope::new().env("LATE", "1").run(|| {
        fail();
        LATE.open();
        LATE_STOP.await_someone();
        assert!(!Late::is_initialized());
        LATE_STOP.open();
        while Late::is_initialized() {
            thread::yield_now();
        }
    });
    Scope::new().env("LATE", "1").run(|| {
        fail();
        assert!(matches!(Late::instance(), Err(Error::TimedOut { .. })));
        LATE.open();
        while !Late::is_initialized() {
            thread::yield_now();
        }
        LATE_STOP.open();
    });
    LATE_STOP.await_someone();
}

gate!(ORPHAN);
static ORPHAN_SAW: Mutex<Option<Sender<bool>>> = Mutex::new(None);

// A service with `init_timeout` initializes on another thread, which is not in the caller's scope by itself.
#[service(init_timeout = "10m", shutdown_timeout = "30ms")]
struct Orphan;

impl Service for Orphan {
    fn initialize() -> anyhow::Result<Self> {
        ORPHAN.pass();
        Ok(Orphan)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        let saw = env::var("PATH").is_ok();
        ORPHAN_SAW.lock().unwrap().take().unwrap().send(saw)?;
        Ok(())
    }
}

#[test]
fn late_instance_of_an_ended_scope_is_shut_down_without_process_variables() {
    let (sender, seen) = channel();
    *ORPHAN_SAW.lock().unwrap() = Some(sender);
    let call = Scope::new().run(|| {
        let call = Scope::current().spawn(|| Orphan::instance().map(drop));
        ORPHAN.await_someone();
        call.unwrap()
    });
    ORPHAN.open();
    assert!(!seen.recv_timeout(LONG).unwrap());
    assert!(matches!(call.join().unwrap(), Err(Error::ShutDown { .. })));
}
