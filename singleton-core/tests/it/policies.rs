//! The arguments of `#[service(…)]`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use singleton_core::testing::Scope;
use singleton_core::{
    Error, ErrorKind, Health, PingOptions, Policy, Retry, Service, ServiceContext, State, registry,
    requires, service,
};

use super::gate::gate;

static ATTEMPTS: AtomicU32 = AtomicU32::new(0);

#[service(retry(attempts = 4, initial = "1ms", max = "2ms"))]
struct ReadyAtFourthAttempt;

impl Service for ReadyAtFourthAttempt {
    fn initialize() -> anyhow::Result<Self> {
        let attempt = ATTEMPTS.fetch_add(1, Ordering::SeqCst) + 1;
        anyhow::ensure!(attempt.is_multiple_of(4), "attempt {attempt} fails");
        Ok(ReadyAtFourthAttempt)
    }
}

#[service(retry(attempts = 3, initial = "1ms", max = "1ms"))]
#[requires(Unhealthy)]
struct RequiresUnhealthy;

impl Service for RequiresUnhealthy {
    fn initialize() -> anyhow::Result<Self> {
        Ok(RequiresUnhealthy)
    }
}

static UNHEALTHY_ATTEMPTS: AtomicU32 = AtomicU32::new(0);

#[service(retry(attempts = 3, initial = "1ms", max = "1ms"))]
struct Unhealthy;

impl Service for Unhealthy {
    fn initialize() -> anyhow::Result<Self> {
        UNHEALTHY_ATTEMPTS.fetch_add(1, Ordering::SeqCst);
        Ok(Unhealthy)
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::bail!("never")
    }
}

#[test]
fn service_is_retried_by_its_policy_and_not_for_a_failed_dependency() {
    Scope::new().run(|| {
        ReadyAtFourthAttempt::instance().unwrap();
        assert_eq!(ATTEMPTS.load(Ordering::SeqCst), 4);
        let error = RequiresUnhealthy::instance().err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to initialize RequiresUnhealthy because of Unhealthy: ping failed: never"
        );
        assert_eq!(
            UNHEALTHY_ATTEMPTS.load(Ordering::SeqCst),
            3,
            "the dependent must not retry the dependency"
        );
    });
}

/// The channel that `LimitedStuck` waits for, with the result of its initialization.
static GATE: Mutex<Option<Receiver<anyhow::Result<()>>>> = Mutex::new(None);

fn gate() -> Sender<anyhow::Result<()>> {
    let (open, gate) = mpsc::channel();
    *GATE.lock().unwrap() = Some(gate);
    open
}

#[service]
struct LimitedStuck;

impl Service for LimitedStuck {
    fn initialize() -> anyhow::Result<Self> {
        let gate = GATE.lock().unwrap().take().unwrap();
        gate.recv()??;
        Ok(LimitedStuck)
    }
}

#[service(init_timeout = "50ms", tags("readiness", "slow"))]
#[requires(LimitedStuck)]
struct HasTimeout;

impl Service for HasTimeout {
    fn initialize() -> anyhow::Result<Self> {
        Ok(HasTimeout)
    }
}

#[test]
fn caller_times_out_and_a_late_success_makes_the_service_ready() {
    let open = gate();
    Scope::new().run(|| {
        let error = HasTimeout::instance().err().unwrap();
        assert_eq!(
            error.to_string(),
            "failed to initialize HasTimeout because of LimitedStuck: not ready after 50ms"
        );
        let error = HasTimeout::instance().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.service(), Some("HasTimeout"));
        assert_eq!(error.timeout(), Some(Duration::from_millis(50)));
        let waiter = thread::spawn(ServiceContext::current().wrap(LimitedStuck::instance));
        open.send(Ok(())).unwrap();
        waiter.join().unwrap().unwrap();
        // After the timeout a call does not wait, so poll until the service is ready.
        while !HasTimeout::is_initialized() {
            thread::yield_now();
        }
        HasTimeout::instance().unwrap();
    });
}

#[test]
fn next_call_retries_after_a_late_failure() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let (open, gate) = mpsc::channel::<()>();
    *LATE.lock().unwrap() = Some(gate);
    Scope::new().run(|| {
        let error = LimitedLate::instance().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(error.because_of(), None);
        drop(open);
        let error = loop {
            let result = LimitedLate::instance();
            // The first attempt times out for its callers, and then fails.
            match result.as_ref().map_err(Error::kind) {
                Err(ErrorKind::TimedOut | ErrorKind::InitializationFailed) => thread::yield_now(),
                _ => break result,
            }
        };
        assert!(
            error.is_ok(),
            "the second attempt does not wait at the gate"
        );
    });
}

static LATE: Mutex<Option<Receiver<()>>> = Mutex::new(None);

#[service(init_timeout = "20ms")]
struct LimitedLate;

impl Service for LimitedLate {
    fn initialize() -> anyhow::Result<Self> {
        let gate = LATE.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.recv()?;
        }
        Ok(LimitedLate)
    }
}

#[test]
fn registry_lists_tags() {
    let services = registry().services();
    let has_timeout = services
        .iter()
        .find(|service| service.name() == "HasTimeout")
        .unwrap();
    assert_eq!(has_timeout.tags(), ["readiness", "slow"]);
}

/// Defines a service that fails `FAILURES` times in each scope, and counts its calls of `initialize`.
macro_rules! unreliable {
    ($name:ident, $calls:ident, $failures:literal $(, $policy:meta)* $(; requires $required:ty)?) => {
        static $calls: AtomicU32 = AtomicU32::new(0);

        #[service($($policy),*)]
        #[requires($($required)?)]
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                let calls: u32 = $calls.fetch_add(1, Ordering::SeqCst);
                let failures: u32 = $failures;
                if calls < failures {
                    anyhow::bail!("the server is starting");
                }
                Ok($name)
            }
        }
    };
}

unreliable!(Server, SERVER_CALLS, 3);
unreliable!(Proxy, PROXY_CALLS, 0; requires Server);
unreliable!(Declares, DECLARES_CALLS, 0, retry(attempts = 5, initial = "1ms", max = "2ms"); requires Proxy);

#[test]
fn declared_dependency_is_retried_as_its_dependent_demands() {
    let reset = || SERVER_CALLS.store(0, Ordering::SeqCst);
    Scope::new().run(|| {
        Declares::instance().unwrap();
        assert_eq!(SERVER_CALLS.load(Ordering::SeqCst), 4);
        reset();
    });
    // In a start, the store begins before the services that require it.
    Scope::new().run(|| {
        registry().start::<Declares>().unwrap();
        assert_eq!(SERVER_CALLS.load(Ordering::SeqCst), 4);
        reset();
    });
    Scope::new().run(|| {
        assert!(Proxy::instance().is_err(), "nothing demands retries");
        assert_eq!(SERVER_CALLS.load(Ordering::SeqCst), 1);
    });
}

unreliable!(Always, ALWAYS_CALLS, 1_000);
unreliable!(LeftShop, LEFT_CALLS, 0; requires Always);
unreliable!(RightShop, RIGHT_CALLS, 0; requires Always);
unreliable!(Both, BOTH_CALLS, 0, retry(attempts = 3, initial = "1ms", max = "1ms"); requires LeftShop);
unreliable!(BothToo, BOTH_TOO_CALLS, 0, retry(attempts = 3, initial = "1ms", max = "1ms"); requires RightShop);

#[service(retry(attempts = 3, initial = "1ms", max = "1ms"))]
struct UsesAlways;

impl Service for UsesAlways {
    fn initialize() -> anyhow::Result<Self> {
        Always::instance().context("no store")?;
        Ok(UsesAlways)
    }
}

#[test]
fn failed_service_is_tried_once_for_each_attempt_of_its_retries() {
    Scope::new().run(|| {
        let calls = |work: fn() -> bool| {
            let before = ALWAYS_CALLS.load(Ordering::SeqCst);
            assert!(work());
            ALWAYS_CALLS.load(Ordering::SeqCst) - before
        };
        assert_eq!(calls(|| Both::instance().is_err()), 3);
        assert_eq!(calls(|| UsesAlways::instance().is_err()), 3);
        let start =
            || registry().start::<BothToo>().is_err() && registry().start::<Both>().is_err();
        assert_eq!(calls(start), 6);
    });
}

gate!(FAILING);
static JOINED_CALLS: AtomicU32 = AtomicU32::new(0);

#[service]
struct Joined;

impl Service for Joined {
    fn initialize() -> anyhow::Result<Self> {
        if JOINED_CALLS.fetch_add(1, Ordering::SeqCst) == 0 {
            FAILING.arrive_and_wait();
            anyhow::bail!("the server is starting");
        }
        Ok(Joined)
    }
}

unreliable!(Joins, JOINS_CALLS, 0, retry(attempts = 3, initial = "1ms", max = "1ms"); requires Joined);

#[test]
fn dependent_with_retries_makes_a_running_attempt_patient() {
    Scope::new().run(|| {
        let context = ServiceContext::current();
        let first = thread::spawn(context.wrap(|| Joined::instance().map(drop)));
        FAILING.wait_for_arrival();
        let second = thread::spawn(context.wrap(|| Joins::instance().map(drop)));
        while !registry()
            .services()
            .iter()
            .any(|service| service.name() == "Joins" && service.state() == State::Initializing)
        {
            thread::yield_now();
        }
        FAILING.open();
        second.join().unwrap().unwrap();
        // The first caller waits for the same attempt, or its own one succeeds.
        let _ = first.join().unwrap();
    });
}

unreliable!(Configured, CONFIGURED_CALLS, 2, tags("attribute"));

#[test]
fn policy_can_be_configured_before_the_first_use() {
    let pause = Duration::from_millis(1);
    let retry = Retry::new(3).initial(pause).max(pause);
    Scope::new().run(|| {
        registry()
            .configure::<Configured>(Policy::new().retry(retry))
            .unwrap();
        registry()
            .configure::<Configured>(Policy::new().eager())
            .unwrap();
        let info = || {
            let services = registry().services();
            services
                .into_iter()
                .find(|service| service.name() == "Configured")
                .unwrap()
        };
        assert_eq!(info().tags(), ["attribute"], "it is not replaced");
        registry()
            .configure::<Configured>(Policy::new().tags(["one", "two"]))
            .unwrap();
        assert_eq!(info().tags(), ["one", "two"]);
        let two = registry().ping_all(&PingOptions::new().tag("two"));
        assert_eq!(two.services()[0].name(), "Configured");
        assert_eq!(two.services()[0].tags(), ["one", "two"]);
        assert_eq!(
            two.health(),
            Health::Unhealthy,
            "it is eager and has not started"
        );
        Configured::instance().unwrap();
        assert_eq!(CONFIGURED_CALLS.load(Ordering::SeqCst), 3);
        let late = registry().configure::<Configured>(Policy::new());
        let late = late.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::ConfiguredTooLate);
        assert_eq!(
            late.to_string(),
            "Configured is in use already; configure it before its first use"
        );
    });
    // The change belongs to the scope.
    CONFIGURED_CALLS.store(0, Ordering::SeqCst);
    Scope::new().run(|| {
        assert!(Configured::instance().is_err());
        let late = registry().configure::<Configured>(Policy::new().eager());
        let kind = late.map_err(|error| error.kind());
        assert_eq!(
            kind,
            Err(ErrorKind::ConfiguredTooLate),
            "a failed use is a use"
        );
        registry().shutdown_all();
        let late = registry().configure::<ReadyAtFourthAttempt>(Policy::new());
        assert_eq!(late.map_err(|error| error.kind()), Err(ErrorKind::ShutDown));
    });
}
