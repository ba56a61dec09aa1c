//! Initializations that end after their callers have stopped waiting.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use singleton_core::testing::Scope;
use singleton_core::{
    ErrorKind, Service, ServiceContext, StartOutcome, env, registry, requires, service,
};

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

gate!(LATE_TOP);
static STOPPED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
gate!(ALL_STOPPED);

macro_rules! stops {
    ($name:ident, [$($required:ty)?], $initialize:expr $(, $policy:meta)*) => {
        #[service($($policy),*)]
        #[requires($($required)?)]
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                let () = $initialize;
                Ok($name)
            }

            fn shutdown(&self) -> anyhow::Result<()> {
                let mut stopped = STOPPED.lock().unwrap();
                stopped.push(stringify!($name));
                if stopped.len() == 4 {
                    ALL_STOPPED.arrive();
                }
                Ok(())
            }
        }
    };
}

stops!(Basement, [], ());
stops!(Floor, [Basement], ());
stops!(Lamp, [], ());
stops!(
    Roof,
    [Floor],
    {
        // Not declared.
        Lamp::instance()?;
        LATE_TOP.arrive_and_wait();
    },
    init_timeout = "30ms"
);

#[test]
fn failed_start_shuts_down_what_a_late_service_required_and_used() {
    Scope::new().run(|| {
        let error = registry().start::<Roof>().unwrap_err();
        let (_, failure) = error.report().failures().next().unwrap();
        assert_eq!(failure.kind(), ErrorKind::TimedOut);
        LATE_TOP.wait_for_arrival();
        let are_ready = || {
            [
                Basement::is_initialized(),
                Floor::is_initialized(),
                Lamp::is_initialized(),
            ]
        };
        assert_eq!(are_ready(), [true; 3], "the late service still uses them");
        LATE_TOP.open();
        ALL_STOPPED.wait_for_arrival();
        let stopped = STOPPED.lock().unwrap().clone();
        assert_eq!(stopped[0], "Roof");
        let position = |name| stopped.iter().position(|stopped| *stopped == name);
        assert!(position("Floor") < position("Basement") && position("Lamp").is_some());
        while are_ready() != [false; 3] {
            thread::yield_now();
        }
        // They can start again.
        Floor::instance().unwrap();
    });
}
