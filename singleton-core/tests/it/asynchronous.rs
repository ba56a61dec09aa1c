//! Asynchronous services, polled by the tasks that await them, with and without an executor.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{
    AsyncService, Error, ErrorKind, Health, PingOptions, Service, ShutdownOptions, env, guarded,
    registry, requires, service,
};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::task;

pub(crate) fn runtimes() -> [Runtime; 2] {
    [
        Builder::new_current_thread().enable_time().build().unwrap(),
        Builder::new_multi_thread()
            .worker_threads(4)
            .enable_time()
            .build()
            .unwrap(),
    ]
}

static INITIALIZED: AtomicU32 = AtomicU32::new(0);

#[service(async, tags("async"))]
struct Base;

impl AsyncService for Base {
    async fn initialize() -> anyhow::Result<Self> {
        // Panics outside a tokio runtime.
        tokio::time::sleep(Duration::from_millis(1)).await;
        if env::var("COUNTED").is_ok() {
            INITIALIZED.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Base)
    }

    async fn ping(&self) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        anyhow::ensure!(env::var("BASE").is_err(), "no base");
        Ok(())
    }

    async fn shutdown(&self) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }
}

impl Base {
    #[guarded]
    async fn answer(&self, question: &str) -> Result<usize, Error> {
        task::yield_now().await;
        Ok(question.len())
    }

    #[guarded]
    fn blocking(&self) -> Result<u32, Error> {
        Ok(7)
    }
}

/// A blocking service with an asynchronous dependency: it initializes on its own thread.
#[service]
#[requires(Base)]
struct Middle {
    thread: String,
}

impl Service for Middle {
    fn initialize() -> anyhow::Result<Self> {
        assert_eq!(Base::blocking()?, 7);
        let thread = std::thread::current().name().unwrap().to_owned();
        Ok(Middle { thread })
    }
}

impl Middle {
    #[guarded]
    async fn thread(&self) -> Result<&str, Error> {
        Ok(&self.thread)
    }
}

#[test]
fn concurrent_tasks_get_one_instance() {
    for runtime in runtimes() {
        let before = INITIALIZED.load(Ordering::SeqCst);
        runtime.block_on(Scope::new().env("COUNTED", "1").run_async(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| tokio::spawn(ServiceContext::current().scope(Base::answer("how long?"))))
                .collect();
            for task in tasks {
                assert_eq!(task.await.unwrap().unwrap(), 9);
            }
            assert_eq!(Middle::thread().await.unwrap(), "init Middle");
            assert_eq!(
                Base::blocking().unwrap(),
                7,
                "a blocking call of a ready service must succeed"
            );
            assert_eq!(Scope::initialized(), ["Base", "Middle"]);
        }));
        assert_eq!(INITIALIZED.load(Ordering::SeqCst), before + 1);
    }
}

#[test]
fn blocking_call_of_an_async_service_returns_needs_async() {
    Scope::new().run(|| {
        let error = Base::blocking().unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to initialize Base: Base initializes asynchronously; await Base::instance_async() first"
        );
        let error = Middle::instance().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::NeedsAsync, "{error}");
        assert_eq!(error.service(), Some("Middle"));
    });
}

/// A future that is ready after the given number of polls.
struct Steps(u32);

impl Future for Steps {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

static STARTED: AtomicU32 = AtomicU32::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);

#[service(async)]
struct Stepwise;

impl AsyncService for Stepwise {
    async fn initialize() -> anyhow::Result<Self> {
        STARTED.fetch_add(1, Ordering::SeqCst);
        Steps(10).await;
        ENDED.fetch_add(1, Ordering::SeqCst);
        Ok(Stepwise)
    }
}

#[test]
fn cancellation_neither_loses_nor_repeats_the_initialization() {
    for polls in 0..15 {
        let before = (STARTED.load(Ordering::SeqCst), ENDED.load(Ordering::SeqCst));
        Scope::new().run(|| {
            {
                let mut first = pin!(Stepwise::instance_async());
                let mut context = Context::from_waker(Waker::noop());
                for _ in 0..polls {
                    if first.as_mut().poll(&mut context).is_ready() {
                        break;
                    }
                }
            }
            // No executor, only a thread that polls.
            pollster::block_on(Stepwise::instance_async()).unwrap();
        });
        let after = (STARTED.load(Ordering::SeqCst), ENDED.load(Ordering::SeqCst));
        assert_eq!(
            after,
            (before.0 + 1, before.1 + 1),
            "cancelled after {polls} polls"
        );
    }
}

static GATE: Mutex<Option<oneshot::Receiver<()>>> = Mutex::new(None);

#[service(async)]
struct Gated;

impl AsyncService for Gated {
    async fn initialize() -> anyhow::Result<Self> {
        let gate = GATE.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.await?;
        }
        Ok(Gated)
    }
}

#[test]
fn waiting_blocks_no_thread_and_another_task_continues_after_cancellation() {
    // On one thread, a blocking task would prevent the others from opening the gate.
    let [runtime, _] = runtimes();
    runtime.block_on(Scope::new().run_async(async {
        let (open, gate) = oneshot::channel();
        *GATE.lock().unwrap() = Some(gate);
        let scope = ServiceContext::current();
        let first = tokio::spawn(scope.scope(Gated::instance_async()));
        let others: Vec<_> = (0..8)
            .map(|_| tokio::spawn(scope.scope(Gated::instance_async())))
            .collect();
        task::yield_now().await;
        first.abort();
        assert!(first.await.err().unwrap().is_cancelled());
        open.send(()).unwrap();
        for other in others {
            other.await.unwrap().unwrap();
        }
    }));
}

static NOTIFY: Notify = Notify::const_new();

#[service]
struct Slow;

impl Service for Slow {
    fn initialize() -> anyhow::Result<Self> {
        NOTIFY.notify_one();
        let open = SLOW.lock().unwrap().take().unwrap();
        open.blocking_recv()?;
        Ok(Slow)
    }
}

static SLOW: Mutex<Option<oneshot::Receiver<()>>> = Mutex::new(None);

impl Slow {
    #[guarded]
    async fn done(&self) -> Result<bool, Error> {
        Ok(true)
    }
}

#[test]
fn blocking_initialize_does_not_block_the_executor() {
    let [runtime, _] = runtimes();
    runtime.block_on(Scope::new().run_async(async {
        let (open, gate) = oneshot::channel();
        *SLOW.lock().unwrap() = Some(gate);
        let waiting = tokio::spawn(ServiceContext::current().scope(Slow::done()));
        // This task runs on the same thread while the other task's service initializes.
        NOTIFY.notified().await;
        open.send(()).unwrap();
        assert!(waiting.await.unwrap().unwrap());
    }));
}

#[service(async)]
pub(crate) struct Simple;

impl AsyncService for Simple {
    async fn initialize() -> anyhow::Result<Self> {
        Ok(Simple)
    }
}

#[test]
fn registry_polls_async_services_in_the_calling_task() {
    for runtime in runtimes() {
        runtime.block_on(Scope::new().run_async(async {
            let report = registry().start_async::<Middle>().await.unwrap();
            assert_eq!(report.services().len(), 2);
            let options = PingOptions::new().tag("async");
            let report = registry().ping_all_async(&options).await;
            assert_eq!(report.health(), Health::Healthy, "{report}");
            let report = registry().shutdown_all_async(&ShutdownOptions::new()).await;
            assert!(
                report.is_clean() && report.services().len() == 2,
                "{report}"
            );
        }));
    }
    // Without an executor, the threads poll the services themselves.
    Scope::new().run(|| {
        registry().start::<Simple>().unwrap();
        assert!(Simple::is_initialized());
    });
}
