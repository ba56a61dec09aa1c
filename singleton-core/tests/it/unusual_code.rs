//! Unusual user code inside `initialize`, destructors and loggers, which must not break the engine.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use singleton_core::testing::Scope;
use singleton_core::{
    BackgroundService, Error, Service, ShutdownOptions, Stop, env, registry, requires, service,
};
use singleton_core::{ErrorKind, ServiceContext};

use super::gate::{HANG_TIMEOUT, gate};

/// Runs `work`, which may deadlock, on its own thread with a timeout.
#[track_caller]
fn without_deadlock<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    receiver
        .recv_timeout(HANG_TIMEOUT)
        .expect("the work ends before the timeout")
}

#[service]
struct StartsItself;

impl Service for StartsItself {
    fn initialize() -> anyhow::Result<Self> {
        registry().start::<StartsItself>()?;
        Ok(StartsItself)
    }
}

#[service]
struct StartsAnother;

impl Service for StartsAnother {
    fn initialize() -> anyhow::Result<Self> {
        let report = registry().start::<Plain>()?;
        assert!(report.is_success());
        Ok(StartsAnother)
    }
}

#[service]
struct Plain;

impl Service for Plain {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Plain)
    }
}

#[test]
fn starting_a_service_inside_its_own_initialize_is_an_error() {
    let error = without_deadlock(|| Scope::new().run(|| StartsItself::instance().err()));
    let message = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(
        message.contains("StartsItself was called while StartsItself was initializing"),
        "{message}"
    );
    without_deadlock(|| {
        Scope::new().run(|| {
            StartsAnother::instance().unwrap();
            assert_eq!(Scope::initialized(), ["Plain", "StartsAnother"]);
        });
    });
}

/// An error whose destructor uses a service, or panics.
#[derive(Debug)]
struct ErrorWithDestructor;

impl fmt::Display for ErrorWithDestructor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an error with a destructor")
    }
}

impl std::error::Error for ErrorWithDestructor {}

impl Drop for ErrorWithDestructor {
    fn drop(&mut self) {
        if env::var("PANIC").is_ok() {
            panic!("dropped");
        }
        let _ = Plain::instance();
    }
}

#[service]
struct FailsWithDestructor;

static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

impl Service for FailsWithDestructor {
    fn initialize() -> anyhow::Result<Self> {
        match ATTEMPTS.fetch_add(1, Ordering::SeqCst) % 3 {
            2 => Ok(FailsWithDestructor),
            _ => Err(ErrorWithDestructor.into()),
        }
    }
}

#[test]
fn error_destructors_run_with_the_engine_unlocked() {
    for scope in [Scope::new(), Scope::new().env("PANIC", "1")] {
        without_deadlock(|| {
            scope.run(|| {
                // The service holds the last reference to an error when the next outcome replaces it.
                for _ in 0..2 {
                    let _ = std::panic::catch_unwind(|| drop(FailsWithDestructor::instance()));
                }
                FailsWithDestructor::instance().unwrap();
                assert!(FailsWithDestructor::is_initialized());
            });
        });
    }
    // The remaining errors of a scope are dropped with it.
    without_deadlock(|| {
        Scope::new().run(|| drop(FailsWithDestructor::instance()));
        ATTEMPTS.store(0, Ordering::SeqCst);
    });
}

gate!(STOPPING);
static STOPS: AtomicU32 = AtomicU32::new(0);

#[service]
struct UnusualSlow;

impl Service for UnusualSlow {
    fn initialize() -> anyhow::Result<Self> {
        Ok(UnusualSlow)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        if STOPS.fetch_add(1, Ordering::SeqCst) == 0 {
            // A call inside `shutdown` does not wait for that shutdown.
            let instance = UnusualSlow::instance().unwrap();
            assert!(std::ptr::eq(instance, self));
            STOPPING.arrive_and_wait();
        }
        Ok(())
    }
}

#[service]
#[requires(UnusualSlow)]
struct FailsOnSlow;

impl Service for FailsOnSlow {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("cannot start")
    }
}

#[test]
fn calls_wait_while_a_failed_start_is_rolled_back() {
    Scope::new().run(|| {
        let scope = ServiceContext::current();
        let start = thread::spawn(scope.wrap(|| registry().start::<FailsOnSlow>().unwrap_err()));
        STOPPING.wait_for_arrival();
        let (calling, called) = channel();
        let call = thread::spawn(scope.wrap(move || {
            calling.send(()).unwrap();
            UnusualSlow::instance().map(drop)
        }));
        called.recv().unwrap();
        STOPPING.open();
        let error = start.join().unwrap();
        assert!(error.to_string().contains("cannot start"), "{error}");
        assert!(error.taken_back().is_clean(), "{}", error.taken_back());
        call.join().unwrap().unwrap();
        assert!(UnusualSlow::is_initialized());
    });
}

gate!(MAY_STOP);
gate!(RUN_STARTED);
static CONCURRENT_RUNS: AtomicU32 = AtomicU32::new(0);
static MAX_CONCURRENT_RUNS: AtomicU32 = AtomicU32::new(0);

#[service(background, shutdown_timeout = "30ms")]
struct StopsLate;

impl Service for StopsLate {
    fn initialize() -> anyhow::Result<Self> {
        Ok(StopsLate)
    }
}

impl BackgroundService for StopsLate {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        let running = CONCURRENT_RUNS.fetch_add(1, Ordering::SeqCst) + 1;
        MAX_CONCURRENT_RUNS.fetch_max(running, Ordering::SeqCst);
        RUN_STARTED.arrive();
        stop.wait_for_request();
        MAY_STOP.arrive_and_wait();
        CONCURRENT_RUNS.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[service]
#[requires(StopsLate)]
struct FailsOnStopsLate;

impl Service for FailsOnStopsLate {
    fn initialize() -> anyhow::Result<Self> {
        RUN_STARTED.wait_for_arrival();
        anyhow::bail!("cannot start")
    }
}

#[test]
fn background_service_that_does_not_stop_is_not_run_twice() {
    Scope::new().run(|| {
        registry().start::<FailsOnStopsLate>().unwrap_err();
        MAY_STOP.wait_for_arrival();
        let error = StopsLate::instance().err();
        assert!(
            (error.as_ref().map(Error::kind) == Some(ErrorKind::ShutDown)),
            "{error:?}"
        );
        MAY_STOP.open();
        while StopsLate::instance().is_err() {
            thread::yield_now();
        }
        RUN_STARTED.wait_for_arrival();
        let options = ShutdownOptions::new();
        let scope = ServiceContext::current();
        let shutdown = thread::spawn(scope.wrap(move || registry().shutdown_all_with(&options)));
        MAY_STOP.wait_for_arrival();
        MAY_STOP.open();
        shutdown.join().unwrap();
    });
    assert_eq!(MAX_CONCURRENT_RUNS.load(Ordering::SeqCst), 1);
}

#[service]
struct Provided(u32);

static PROVIDED_STOPS: AtomicU32 = AtomicU32::new(0);

impl Service for Provided {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("must be provided")
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.0 > 0, "the value is 0");
        Ok(())
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        PROVIDED_STOPS.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[service]
#[requires(Provided)]
struct FailsOnProvided;

impl Service for FailsOnProvided {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("cannot start")
    }
}

#[test]
fn provided_value_is_kept_for_the_next_start_and_replaceable_after_a_failure() {
    Scope::new().run(|| {
        Provided::provide(Provided(0)).unwrap();
        assert!(Provided::instance().is_err());
        Provided::provide(Provided(7)).unwrap();
        registry().start::<FailsOnProvided>().unwrap_err();
        assert_eq!(
            PROVIDED_STOPS.load(Ordering::SeqCst),
            0,
            "the provided value must be kept"
        );
        assert_eq!(Provided::instance().unwrap().0, 7);
    });
    assert_eq!(PROVIDED_STOPS.load(Ordering::SeqCst), 1);
}
