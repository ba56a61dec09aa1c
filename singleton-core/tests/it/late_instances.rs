//! Initializations that end after their callers have stopped waiting.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use singleton_core::testing::Scope;
use singleton_core::{ErrorKind, ServiceContext};
use singleton_core::{Service, StartOutcome, env, registry, service};

use super::gate::{HANG_TIMEOUT, gate};

gate!(LATE);
gate!(LATE_STOP);

#[service(init_timeout = "30ms", shutdown_timeout = "30ms")]
struct BelatedLate;

impl Service for BelatedLate {
    fn initialize() -> anyhow::Result<Self> {
        LATE.arrive_and_wait();
        Ok(BelatedLate)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        let variable = env::var("LATE").or_else(|_| env::var("PATH"));
        assert_eq!(
            variable.ok(),
            env::var("LATE").ok(),
            "the service must not see the variables of the process"
        );
        LATE_STOP.arrive_and_wait();
        Ok(())
    }
}

#[test]
fn late_instance_of_a_failed_start_is_shut_down_unless_requested() {
    let fail = || {
        let error = registry().start::<BelatedLate>().unwrap_err();
        assert!(matches!(
            error.report().services()[0].outcome(),
            StartOutcome::Failed(error) if error.kind() == ErrorKind::TimedOut
        ));
        LATE.wait_for_arrival();
    };
    Scope::new().env("LATE", "1").run(|| {
        fail();
        LATE.open();
        LATE_STOP.wait_for_arrival();
        assert!(!BelatedLate::is_initialized());
        LATE_STOP.open();
        while BelatedLate::is_initialized() {
            thread::yield_now();
        }
    });
    Scope::new().env("LATE", "1").run(|| {
        fail();
        assert!(matches!(
            BelatedLate::instance().map_err(|error| error.kind()),
            Err(ErrorKind::TimedOut)
        ));
        LATE.open();
        while !BelatedLate::is_initialized() {
            thread::yield_now();
        }
        LATE_STOP.open();
    });
    LATE_STOP.wait_for_arrival();
}

gate!(ORPHAN);
static ORPHAN_HAS_PATH: Mutex<Option<Sender<bool>>> = Mutex::new(None);

// A service with `init_timeout` initializes on another thread, which must enter the caller's scope explicitly.
#[service(init_timeout = "10m", shutdown_timeout = "30ms")]
struct Orphan;

impl Service for Orphan {
    fn initialize() -> anyhow::Result<Self> {
        ORPHAN.arrive_and_wait();
        Ok(Orphan)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        let has_path = env::var("PATH").is_ok();
        ORPHAN_HAS_PATH
            .lock()
            .unwrap()
            .take()
            .unwrap()
            .send(has_path)?;
        Ok(())
    }
}

#[test]
fn late_instance_of_an_ended_scope_is_shut_down_without_process_variables() {
    let (sender, has_path) = channel();
    *ORPHAN_HAS_PATH.lock().unwrap() = Some(sender);
    let call = Scope::new().run(|| {
        let call = thread::spawn(ServiceContext::current().wrap(|| Orphan::instance().map(drop)));
        ORPHAN.wait_for_arrival();
        call
    });
    ORPHAN.open();
    assert!(!has_path.recv_timeout(HANG_TIMEOUT).unwrap());
    assert!(matches!(
        call.join().unwrap().map_err(|error| error.kind()),
        Err(ErrorKind::ShutDown)
    ));
}
