//! The arguments of `#[service(…)]`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{Error, ErrorKind, Service, registry, requires, service};

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
