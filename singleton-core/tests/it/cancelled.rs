//! Asynchronous work that is dropped: after a timeout, with its task, or at shutdown.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use singleton_core::testing::Scope;
use singleton_core::{
    AsyncService, Health, PingOptions, Service, ShutdownOptions, env, registry, requires, service,
};
use singleton_core::{ErrorKind, ServiceContext};
use tokio::sync::Notify;

use super::asynchronous::runtimes;

/// A value that panics when it is dropped early.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped early");
    }
}

#[service(async, init_timeout = "20ms")]
struct PanicsWhenDropped;

impl AsyncService for PanicsWhenDropped {
    async fn initialize() -> anyhow::Result<Self> {
        let guard = PanicsOnDrop;
        if env::var("STUCK").is_ok() {
            Stuck::instance_async().await?;
        }
        std::mem::forget(guard);
        Ok(PanicsWhenDropped)
    }
}

#[service(async)]
struct Stuck;

static STUCK_DROPPED: AtomicU32 = AtomicU32::new(0);

struct CountsDrop;

impl Drop for CountsDrop {
    fn drop(&mut self) {
        STUCK_DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

impl AsyncService for Stuck {
    async fn initialize() -> anyhow::Result<Self> {
        let _counts = CountsDrop;
        std::future::pending().await
    }
}

#[test]
fn panic_in_a_future_dropped_after_a_timeout_is_contained() {
    for runtime in runtimes() {
        runtime.block_on(Scope::new().env("STUCK", "1").run_async(async {
            for _ in 0..2 {
                let error = PanicsWhenDropped::instance_async().await.err().unwrap();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert_eq!(error.service(), Some("PanicsWhenDropped"));
                assert_eq!(error.because_of(), Some("Stuck"));
            }
            // No task polls `Stuck` anymore, so the shutdown does not wait for it.
            let before = STUCK_DROPPED.load(Ordering::SeqCst);
            let options = ShutdownOptions::new().timeout(Duration::from_secs(600));
            let report = registry().shutdown_all_async(&options).await;
            assert!(report.is_clean(), "{report}");
            assert_eq!(STUCK_DROPPED.load(Ordering::SeqCst), before + 1);
        }));
    }
}

static LATE_STARTED: Notify = Notify::const_new();
static LATE_MAY_END: Notify = Notify::const_new();
static LATE_STOPPED: AtomicU32 = AtomicU32::new(0);

#[service(async, shutdown_timeout = "500ms")]
struct Late;

impl AsyncService for Late {
    async fn initialize() -> anyhow::Result<Self> {
        LATE_STARTED.notify_one();
        LATE_MAY_END.notified().await;
        Ok(Late)
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        // Never completes if the only thread of the executor is blocked.
        tokio::time::sleep(Duration::from_millis(1)).await;
        LATE_STOPPED.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn late_instance_is_shut_down_by_its_task() {
    for runtime in runtimes() {
        let before = LATE_STOPPED.load(Ordering::SeqCst);
        runtime.block_on(Scope::new().run_async(async {
            let late = tokio::spawn(ServiceContext::current().scope(Late::instance_async()));
            LATE_STARTED.notified().await;
            let report = registry().shutdown_all_async(&ShutdownOptions::new()).await;
            assert!(!report.is_clean(), "{report}");
            LATE_MAY_END.notify_one();
            let outcome = late.await.unwrap().map(drop);
            assert_eq!(
                outcome.map_err(|error| error.kind()),
                Err(ErrorKind::ShutDown)
            );
        }));
        assert_eq!(LATE_STOPPED.load(Ordering::SeqCst), before + 1);
    }
}

static RETRIED: Notify = Notify::const_new();

#[service(async, retry(attempts = 2, initial = "1h", max = "2h"))]
struct RetriesHourly;

impl AsyncService for RetriesHourly {
    async fn initialize() -> anyhow::Result<Self> {
        RETRIED.notify_one();
        anyhow::bail!("not available")
    }
}

#[test]
fn shutdown_interrupts_the_pause_between_retries() {
    for runtime in runtimes() {
        runtime.block_on(Scope::new().run_async(async {
            let caller =
                tokio::spawn(ServiceContext::current().scope(RetriesHourly::instance_async()));
            RETRIED.notified().await;
            let options = ShutdownOptions::new().timeout(Duration::from_secs(600));
            let report = registry().shutdown_all_async(&options).await;
            assert!(report.is_clean(), "{report}");
            let error = caller.await.unwrap().err().unwrap();
            assert!(error.to_string().contains("not available"), "{error}");
        }));
    }
}

static FIRST: LazyLock<[Mutex<Option<mpsc::Sender<()>>>; 2]> = LazyLock::new(Default::default);
static HELD: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
static SECOND_INITIALIZATIONS: AtomicU32 = AtomicU32::new(0);

#[service]
struct First;

impl Service for First {
    fn initialize() -> anyhow::Result<Self> {
        let started = FIRST[0].lock().unwrap().take().unwrap();
        let held = HELD.lock().unwrap().take().unwrap();
        started.send(())?;
        held.recv()?;
        Ok(First)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        FIRST[1].lock().unwrap().take().unwrap().send(())?;
        Ok(())
    }
}

#[service]
#[requires(First)]
struct Second;

impl Service for Second {
    fn initialize() -> anyhow::Result<Self> {
        SECOND_INITIALIZATIONS.fetch_add(1, Ordering::SeqCst);
        Ok(Second)
    }
}

#[test]
fn cancelled_start_stops_and_is_rolled_back() {
    let (started, has_started) = mpsc::channel();
    let (stopped, has_stopped) = mpsc::channel();
    let (release, held) = mpsc::channel();
    *FIRST[0].lock().unwrap() = Some(started);
    *FIRST[1].lock().unwrap() = Some(stopped);
    *HELD.lock().unwrap() = Some(held);
    Scope::new().run(|| {
        let registry = registry();
        let mut start = Box::pin(registry.start_async::<Second>());
        let polled = start.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        has_started.recv_timeout(Duration::from_secs(60)).unwrap();
        drop(start);
        release.send(()).unwrap();
        has_stopped.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(SECOND_INITIALIZATIONS.load(Ordering::SeqCst), 0);
    });
}

static CHECKS: AtomicU32 = AtomicU32::new(0);
static CHECKS_DROPPED: AtomicU32 = AtomicU32::new(0);
static ANSWER: Notify = Notify::const_new();

struct DroppedCheck;

impl Drop for DroppedCheck {
    fn drop(&mut self) {
        CHECKS_DROPPED.fetch_add(1, Ordering::SeqCst);
    }
}

#[service(async, tags("slow answer"))]
struct SlowAnswer;

impl AsyncService for SlowAnswer {
    async fn initialize() -> anyhow::Result<Self> {
        Ok(SlowAnswer)
    }

    async fn ping(&self) -> anyhow::Result<()> {
        if env::var("SLOW").is_ok() && Scope::initialized().len() == 1 {
            CHECKS.fetch_add(1, Ordering::SeqCst);
            let dropped = DroppedCheck;
            ANSWER.notified().await;
            std::mem::forget(dropped);
        }
        Ok(())
    }
}

#[test]
fn unfinished_check_continues_in_the_next_report() {
    for runtime in runtimes() {
        let before = CHECKS.load(Ordering::SeqCst);
        runtime.block_on(Scope::new().env("SLOW", "1").run_async(async {
            SlowAnswer::instance_async().await.unwrap();
            let options = PingOptions::new()
                .tag("slow answer")
                .timeout(Duration::from_millis(20))
                .reuse_for(Duration::from_secs(600));
            // Two reports time out and one is cancelled. All of them wait for the same check, and none keeps a result.
            let report = registry().ping_all_async(&options).await;
            assert_eq!(report.health(), Health::Unhealthy);
            let registry = registry();
            let cancelled = tokio::time::timeout(Duration::ZERO, registry.ping_all_async(&options));
            assert!(cancelled.await.is_err());
            let report = registry.ping_all_async(&options).await;
            let error = report.services()[0].error().unwrap();
            assert!(error.starts_with("no answer within"), "{error}");
            ANSWER.notify_one();
            let options = options.timeout(Duration::from_secs(60));
            let report = registry.ping_all_async(&options).await;
            assert_eq!(report.health(), Health::Healthy, "{report}");
        }));
        assert_eq!(CHECKS.load(Ordering::SeqCst), before + 1);
        assert_eq!(CHECKS_DROPPED.load(Ordering::SeqCst), 0);
    }
}
