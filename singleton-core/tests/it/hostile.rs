//! Unusual user code inside `initialize`, destructors and loggers, which must not break the engine.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use singleton_core::testing::Scope;
use singleton_core::{
    BackgroundService, Error, Service, ShutdownOptions, Stop, env, registry, requires, service,
};

use super::gate::{LONG, gate};

/// Runs `work`, which may deadlock, on its own thread with a timeout.
#[track_caller]
fn without_deadlock<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(work()));
    receiver.recv_timeout(LONG).expect("it ends")
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
            Scope::current().assert_initialized(["Plain", "StartsAnother"]);
        });
    });
}

/// An error whose destructor uses a service, or panics.
#[derive(Debug)]
struct Loaded;

impl fmt::Display for Loaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("loaded")
    }
}

impl std::error::Error for Loaded {}

impl Drop for Loaded {
    fn drop(&mut self) {
        if env::var("PANIC").is_ok() {
            panic!("dropped");
        }
        let _ = Plain::instance();
    }
}

#[service]
struct FailsLoaded;

static TRIES: AtomicU32 = AtomicU32::new(0);

impl Service for FailsLoaded {
    fn initialize() -> anyhow::Result<Self> {
        match TRIES.fetch_add(1, Ordering::SeqCst) % 3 {
            2 => Ok(FailsLoaded),
            _ => Err(Loaded.into()),
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
                    let _ = std::panic::catch_unwind(|| drop(FailsLoaded::instance()));
                }
                FailsLoaded::instance().unwrap();
                assert!(FailsLoaded::is_initialized());
            });
        });
    }
    // The remaining errors of a scope are dropped with it.
    without_deadlock(|| {
        Scope::new().run(|| drop(FailsLoaded::instance()));
        TRIES.store(0, Ordering::SeqCst);
    });
}

gate!(STOPPING);
static STOPS: AtomicU32 = AtomicU32::new(0);

#[service]
struct Slow;

impl Service for Slow {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Slow)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        if STOPS.fetch_add(1, Ordering::SeqCst) == 0 {
            let own = Slow::instance().err();
            assert!(
                matches!(own, Some(Error::ShutDown { .. })),
                "no wait for oneself"
            );
            STOPPING.pass();
        }
        Ok(())
    }
}

#[service]
#[requires(Slow)]
struct FailsOnSlow;

impl Service for FailsOnSlow {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("no luck")
    }
}

#[test]
fn calls_wait_while_a_failed_start_is_rolled_back() {
    Scope::new().run(|| {
        let scope = Scope::current();
        let start = scope.spawn(|| registry().start::<FailsOnSlow>().unwrap_err());
        STOPPING.await_someone();
        let (calling, called) = channel();
        let call = scope.spawn(move || {
            calling.send(()).unwrap();
            Slow::instance().map(drop)
        });
        called.recv().unwrap();
        STOPPING.open();
        let error = start.unwrap().join().unwrap();
        assert!(error.to_string().contains("no luck"), "{error}");
        assert!(error.taken_back().is_clean(), "{}", error.taken_back());
        call.unwrap().join().unwrap().unwrap();
        assert!(Slow::is_initialized());
    });
}

gate!(STUBBORN);
gate!(STUBBORN_RUNS);
static RUNS: AtomicU32 = AtomicU32::new(0);
static MOST_RUNS: AtomicU32 = AtomicU32::new(0);

#[service(background, shutdown_timeout = "30ms")]
struct Stubborn;

impl Service for Stubborn {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Stubborn)
    }
}

impl BackgroundService for Stubborn {
    fn run(&self, stop: &Stop) -> anyhow::Result<()> {
        let running = RUNS.fetch_add(1, Ordering::SeqCst) + 1;
        MOST_RUNS.fetch_max(running, Ordering::SeqCst);
        STUBBORN_RUNS.come();
        stop.wait_for_request();
        STUBBORN.pass();
        RUNS.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[service]
#[requires(Stubborn)]
struct FailsOnStubborn;

impl Service for FailsOnStubborn {
    fn initialize() -> anyhow::Result<Self> {
        STUBBORN_RUNS.await_someone();
        anyhow::bail!("no luck")
    }
}

#[test]
fn background_service_that_does_not_stop_is_not_run_twice() {
    Scope::new().run(|| {
        registry().start::<FailsOnStubborn>().unwrap_err();
        STUBBORN.await_someone();
        let error = Stubborn::instance().err();
        assert!(matches!(error, Some(Error::ShutDown { .. })), "{error:?}");
        STUBBORN.open();
        while Stubborn::instance().is_err() {
            thread::yield_now();
        }
        STUBBORN_RUNS.await_someone();
        let options = ShutdownOptions::new();
        let scope = Scope::current();
        let end = scope.spawn(move || registry().shutdown_all_with(&options));
        STUBBORN.await_someone();
        STUBBORN.open();
        end.unwrap().join().unwrap();
    });
    assert_eq!(MOST_RUNS.load(Ordering::SeqCst), 1);
}

#[service]
struct Provided(u32);

static PROVIDED_STOPS: AtomicU32 = AtomicU32::new(0);

impl Service for Provided {
    fn initialize() -> anyhow::Result<Self> {
        anyhow::bail!("comes from main")
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.0 > 0, "of no value");
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
        anyhow::bail!("no luck")
    }
}

#[test]
fn provided_value_is_kept_for_the_next_start_and_replaceable_after_a_failure() {
    Scope::new().run(|| {
        Provided::provide(Provided(0)).unwrap();
        assert!(Provided::instance().is_err());
        Provided::provide(Provided(7)).unwrap();
        registry().start::<FailsOnProvided>().unwrap_err();
        assert_eq!(PROVIDED_STOPS.load(Ordering::SeqCst), 0, "it is used again");
        assert_eq!(Provided::instance().unwrap().0, 7);
    });
    assert_eq!(PROVIDED_STOPS.load(Ordering::SeqCst), 1);
}
