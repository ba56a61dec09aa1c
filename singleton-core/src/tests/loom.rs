//! The engine under the model checker loom, which runs all interleavings of a few threads:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test -p singleton-core --lib --release --target-dir target/loom tests::loom
//! ```
//!
//! A deadlock inside `initialize` can end the process, because its panic is caught like any panic of user code. `--
//! --nocapture` shows the test.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll, Wake, Waker};
use std::{panic, ptr};

use loom::sync::atomic::AtomicUsize;
use loom::thread::{Builder, JoinHandle};

use crate::application::{ShutdownOptions, ShutdownScope, shut_down};
use crate::engine::{self, ContainerId, Context, Origin, Outcome};
use crate::error::{Error, ErrorKind};
use crate::init::{resolve, run_attempt};
use crate::invoke::Driver;
use crate::service::{Descriptor, Initialize, Instance, Ready, State, Stop, Visibility, Work};
use crate::sync::Ordering;

type InitResult = anyhow::Result<Box<dyn Instance>>;

/// The behavior of a service: whether it fails, and what it does if a service that it uses fails.
#[derive(Clone, Copy)]
enum Behavior {
    Succeed,
    Swallow,
    Fail,
    Panic,
}

// The checker runs all threads of a model on one system thread, that of the test.
thread_local! {
    /// The events of this execution in order, each with the service's name.
    static EVENTS: RefCell<Vec<(&'static str, &'static str)>> = const { RefCell::new(Vec::new()) };
    static BEHAVIOR: Cell<Behavior> = const { Cell::new(Behavior::Succeed) };
}

fn record(service: &'static str, event: &'static str) {
    EVENTS.with_borrow_mut(|events| events.push((service, event)));
}

fn times(service: &'static str, event: &'static str) -> usize {
    EVENTS.with_borrow(|events| {
        let same = events.iter().filter(|entry| **entry == (service, event));
        same.count()
    })
}

fn comes_before(first: (&'static str, &'static str), second: (&'static str, &'static str)) -> bool {
    EVENTS.with_borrow(|events| {
        let position = |wanted| events.iter().position(|entry| *entry == wanted);
        position(first).expect("the first happened") < position(second).expect("so did the second")
    })
}

/// Checks a model in all executions with up to two preemptions, or as many as `LOOM_MAX_PREEMPTIONS` allows.
fn check_model(behavior: Behavior, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(move || {
        EVENTS.with_borrow_mut(Vec::clear);
        BEHAVIOR.set(behavior);
        model();
        assert_engine_is_idle();
    });
}

/// Asserts that no attempt and no wait is left, and that the numbers of dependents are right.
fn assert_engine_is_idle() {
    let engine = engine::lock();
    assert!(engine.has_no_waits(), "a wait edge is left");
    let container = engine.container(ContainerId::PROCESS).expect("it stays");
    for (service, entry) in container.entries() {
        let state = engine.state(ContainerId::PROCESS, service);
        assert_ne!(state, State::Initializing, "{service:?}");
        let holders = container
            .entries()
            .filter(|(_, dependent)| dependent.dependencies.contains(&service));
        assert_eq!(entry.dependents, holders.count(), "{service:?}");
        if state != State::Ready {
            assert!(
                entry.dependencies.is_empty(),
                "{service:?} is not ready but has dependencies"
            );
        }
    }
}

/// Starts a thread whose stack is large enough for nested initializations. The checker's default is smaller.
fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let thread = Builder::new().stack_size(1 << 15).spawn(work);
    thread.expect("a thread of the model checker needs no system resources")
}

/// Resolves all services concurrently, each on its own thread.
fn resolve_at_once<const COUNT: usize>(services: [&'static Descriptor; COUNT]) -> [Outcome; COUNT] {
    let threads = services.map(|service| spawn(move || resolve(service)));
    threads.map(|thread| thread.join().expect("no panic gets here"))
}

/// An instance that detects a reader that does not see all earlier writes.
struct TestInstance {
    name: &'static str,
    written: AtomicUsize,
}

impl TestInstance {
    fn new(name: &'static str) -> Box<Self> {
        record(name, "made");
        let written = AtomicUsize::new(0);
        written.store(1, Ordering::Relaxed);
        Box::new(TestInstance { name, written })
    }

    fn assert_fully_visible(&self) {
        let written = self.written.load(Ordering::Relaxed);
        assert_eq!(written, 1, "{} was seen before it was made", self.name);
    }
}

impl Instance for TestInstance {
    fn ping(&self) -> Work<'_> {
        Work::Done(Ok(()))
    }

    fn shutdown(&self) -> (Work<'_>, bool) {
        record(self.name, "stopped");
        (Work::Done(Ok(())), false)
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

fn test_instance(instance: &'static dyn Instance) -> &'static TestInstance {
    let test_instance: &TestInstance = instance.as_any().downcast_ref().expect("there is no other");
    test_instance.assert_fully_visible();
    test_instance
}

const fn service(
    name: &'static str,
    requirements: &'static [fn() -> &'static Descriptor],
    initialize: fn() -> InitResult,
) -> Descriptor {
    Descriptor::for_test(name, requirements, Initialize::Blocking(initialize))
}

static SINGLE: Descriptor = service("Alone", &[], || {
    record("Alone", "began");
    fail_once("Alone")?;
    Ok(TestInstance::new("Alone"))
});

/// Fails on the first attempt if the behavior says so. Panics without the panic hook, which would print a line per
/// execution.
fn fail_once(service: &'static str) -> anyhow::Result<()> {
    match BEHAVIOR.get() {
        Behavior::Fail if times(service, "began") == 1 => anyhow::bail!("not the first time"),
        Behavior::Panic if times(service, "began") == 1 => panic::resume_unwind(Box::new("lost")),
        _ => Ok(()),
    }
}

#[test]
fn concurrent_callers_get_the_same_instance() {
    check_model(Behavior::Succeed, || {
        let [first, second, third] =
            resolve_at_once([&SINGLE; 3]).map(|outcome| test_instance(outcome.unwrap()));
        assert!(ptr::eq(first, second) && ptr::eq(first, third));
        assert_eq!(times("Alone", "began"), 1);
    });
}

/// Asserts that all waiters get the failure, and that the next call succeeds.
fn check_recovery(behavior: Behavior, expected: fn(&Error) -> bool) {
    check_model(behavior, move || {
        let outcomes = resolve_at_once([&SINGLE; 3]);
        let [last] = resolve_at_once([&SINGLE]).map(|outcome| test_instance(outcome.unwrap()));
        assert!(outcomes.iter().any(Result::is_err), "whose attempt failed?");
        for outcome in outcomes {
            match outcome {
                Ok(instance) => assert!(ptr::eq(test_instance(instance), last)),
                Err(error) => assert!(expected(&error), "{error}"),
            }
        }
        assert_eq!((times("Alone", "began"), times("Alone", "made")), (2, 1));
    });
}

#[test]
fn waiters_share_a_failure_and_the_next_call_retries() {
    check_recovery(Behavior::Fail, |error| {
        error.kind() == ErrorKind::InitializationFailed && error.because_of().is_none()
    });
}

#[test]
fn waiters_share_a_panic_and_the_next_call_retries() {
    check_recovery(Behavior::Panic, |error| {
        error.kind() == ErrorKind::Panicked && error.because_of().is_none()
    });
}

/// Wakes a thread that polls a future.
struct ThreadWaker(Stop);

impl Wake for ThreadWaker {
    fn wake(self: Arc<Self>) {
        self.0.request();
    }
}

fn poll_until_ready<F: Future>(future: F) -> F::Output {
    let thread_waker = Arc::new(ThreadWaker(Stop::new()));
    let waker = Waker::from(Arc::clone(&thread_waker));
    let mut future = pin!(future);
    for _ in 0..2 {
        match future.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread_waker.0.wait_for_request(),
        }
    }
    panic!("woken too early");
}

#[test]
fn waiting_tasks_and_threads_are_woken() {
    check_model(Behavior::Succeed, || {
        let attempt = engine::lock()
            .begin_attempt(ContainerId::PROCESS, &SINGLE, Origin::default())
            .unwrap();
        let tasks = [(); 2].map(|()| {
            let attempt = Arc::clone(&attempt);
            spawn(move || poll_until_ready(attempt.completion()).expect("it has no deadline"))
        });
        let thread = spawn(|| resolve(&SINGLE));
        spawn(move || run_attempt(&attempt)).join().unwrap();
        let instance = test_instance(thread.join().unwrap().unwrap());
        for outcome in tasks.map(|task| task.join().unwrap()) {
            assert!(ptr::eq(test_instance(outcome.unwrap()), instance));
        }
    });
}

// Two undeclared cycles.
static LEFT: Descriptor = service("Left", &[], || use_next("Left", &RIGHT));
static RIGHT: Descriptor = service("Right", &[], || use_with_behavior("Right", &LEFT));
static FIRST: Descriptor = service("First", &[], || use_next("First", &SECOND));
static SECOND: Descriptor = service("Second", &[], || use_next("Second", &THIRD));
static THIRD: Descriptor = service("Third", &[], || use_with_behavior("Third", &FIRST));

fn use_next(name: &'static str, next: &'static Descriptor) -> InitResult {
    test_instance(resolve(next)?);
    Ok(TestInstance::new(name))
}

fn use_with_behavior(name: &'static str, next: &'static Descriptor) -> InitResult {
    match (resolve(next), BEHAVIOR.get()) {
        (Err(_), Behavior::Swallow) => {}
        (Err(_), Behavior::Panic) => panic::resume_unwind(Box::new("lost")),
        (used, _) => drop(test_instance(used?)),
    }
    Ok(TestInstance::new(name))
}

/// Returns whether the error names a cycle of this length.
fn is_cycle_of(error: &Error, length: usize) -> bool {
    error
        .cycle()
        .is_some_and(|path| path.len() == length + 1 && path.first() == path.last())
}

#[test]
fn cycle_of_two_fails_for_both_callers() {
    check_model(Behavior::Succeed, || {
        for outcome in resolve_at_once([&LEFT, &RIGHT]) {
            assert!(outcome.is_err_and(|error| is_cycle_of(&error, 2)));
        }
    });
}

#[test]
fn cycle_of_three_fails_for_all_callers() {
    check_model(Behavior::Succeed, || {
        for outcome in resolve_at_once([&FIRST, &SECOND, &THIRD]) {
            assert!(outcome.is_err_and(|error| is_cycle_of(&error, 3)));
        }
    });
}

#[test]
fn service_that_ignores_the_cycle_error_becomes_ready() {
    check_model(Behavior::Swallow, || {
        let outcomes = resolve_at_once([&FIRST, &SECOND, &THIRD]);
        assert!(outcomes[2].is_ok());
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert!(is_cycle_of(&error, 3), "{error}");
        }
        // `THIRD` is ready now, so the cycle is gone.
        assert!(resolve_at_once([&FIRST]).map(|outcome| outcome.is_ok())[0]);
    });
}

#[test]
fn panic_on_a_cycle_fails_all_callers() {
    check_model(Behavior::Panic, || {
        for outcome in resolve_at_once([&FIRST, &SECOND, &THIRD]) {
            let error = outcome
                .err()
                .expect("no service on the cycle becomes ready");
            let panicked = error.kind() == ErrorKind::Panicked;
            assert!(panicked || is_cycle_of(&error, 3), "{error}");
        }
    });
}

static BASE: Descriptor = service("Base", &[], || Ok(TestInstance::new("Base")));
static DEPENDENT: Descriptor = service("User", &[|| &BASE], || {
    record("User", "began");
    fail_once("User")?;
    Ok(TestInstance::new("User"))
});

fn shut_down_all() {
    let options = ShutdownOptions::new();
    let report = shut_down(
        &Context::PROCESS,
        ShutdownScope::All,
        &options,
        &Driver::Here,
    );
    assert!(report.is_clean(), "{report}");
    for name in ["User", "Base"] {
        assert_eq!(times(name, "made"), times(name, "stopped"), "{name}");
    }
}

/// Asserts that ready services stopped once, dependents first, and that no service starts afterwards.
fn assert_stopped_in_order() {
    assert!(times("User", "made") <= 1 && times("Base", "made") <= 1);
    if times("User", "made") == 1 {
        assert!(comes_before(("User", "stopped"), ("Base", "stopped")));
    }
    let [late] = resolve_at_once([&BASE]);
    assert!(matches!(
        late.map_err(|error| error.kind()),
        Err(ErrorKind::ShutDown)
    ));
}

/// Checks a shutdown that runs concurrently with the start of a service and its dependency.
fn check_shutdown(behavior: Behavior) {
    check_model(behavior, || {
        let threads = [&DEPENDENT, &BASE].map(|service| spawn(move || resolve(service)));
        spawn(shut_down_all).join().unwrap();
        for outcome in threads.map(|thread| thread.join().unwrap()) {
            let is_expected = match outcome.map_err(|error| error.kind()) {
                Ok(_) | Err(ErrorKind::ShutDown) => true,
                Err(ErrorKind::InitializationFailed) => times("User", "made") == 0,
                Err(_) => false,
            };
            assert!(is_expected);
        }
        assert_stopped_in_order();
    });
}

#[test]
fn shutdown_waits_for_running_initializations() {
    check_shutdown(Behavior::Succeed);
}

#[test]
fn shutdown_stops_dependencies_of_a_failed_service() {
    check_shutdown(Behavior::Fail);
}

#[test]
fn concurrent_shutdowns_both_return_after_everything_stopped() {
    check_model(Behavior::Succeed, || {
        let starting = spawn(|| resolve(&DEPENDENT).map(|_| ()));
        let ending = [(); 2].map(|()| spawn(shut_down_all));
        ending.into_iter().for_each(|thread| thread.join().unwrap());
        starting.join().unwrap().ok();
        assert_stopped_in_order();
    });
}

#[test]
fn published_instance_is_fully_visible() {
    check_model(Behavior::Succeed, || {
        let ready = Arc::new(Ready::new());
        let publisher = Arc::clone(&ready);
        let publisher = spawn(move || {
            publisher.set(
                Some(Box::leak(TestInstance::new("Alone"))),
                Visibility::Everywhere,
            )
        });
        let readers = [(); 2].map(|()| {
            let ready = Arc::clone(&ready);
            spawn(move || ready.get().map(TestInstance::assert_fully_visible))
        });
        publisher.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(ready.get().is_some());
    });
}

#[test]
fn published_instance_can_be_withdrawn() {
    check_model(Behavior::Succeed, || {
        let ready = Arc::new(Ready::new());
        let publisher = Arc::clone(&ready);
        let publisher = spawn(move || {
            publisher.set(
                Some(Box::leak(TestInstance::new("Alone"))),
                Visibility::Everywhere,
            );
            publisher.set(None, Visibility::Hidden);
            assert!(publisher.get().is_none());
            publisher.set(
                Some(Box::leak(TestInstance::new("Another"))),
                Visibility::Everywhere,
            );
            publisher.set(None, Visibility::Hidden);
        });
        let readers = [(); 2].map(|()| {
            let ready = Arc::clone(&ready);
            spawn(move || {
                let (earlier, later): (Option<&TestInstance>, _) = (ready.get(), ready.get());
                earlier
                    .into_iter()
                    .chain(later)
                    .for_each(TestInstance::assert_fully_visible);
                let backwards = later.is_some_and(|later| later.name == "Alone")
                    && earlier.is_some_and(|earlier| earlier.name == "Another");
                assert!(!backwards);
            })
        });
        publisher.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(ready.get().is_none());
    });
}

loom::lazy_static! {
    static ref FAST_PATH: Ready<TestInstance> = Ready::new();
}

static PUBLISHED: Descriptor = service("Published", &[], || Ok(TestInstance::new("Published")))
    .published_by(|instance, visibility| FAST_PATH.set(instance.map(test_instance), visibility));

/// Does what a guarded call does.
fn try_call() -> Result<&'static TestInstance, Error> {
    let ready = FAST_PATH
        .get()
        .or_else(|| match engine::current_container() {
            ContainerId::PROCESS => FAST_PATH.of_process(),
            _ => engine::ready_in_scope(&PUBLISHED).map(test_instance),
        });
    match ready.inspect(|instance| instance.assert_fully_visible()) {
        Some(instance) => Ok(instance),
        None => resolve(&PUBLISHED).map(test_instance),
    }
}

fn call() -> &'static TestInstance {
    try_call().unwrap()
}

fn open_scope_with_fake() -> (Context, &'static TestInstance) {
    let fake: &'static TestInstance = Box::leak(TestInstance::new("Fake"));
    let context = engine::lock().open_container(vec![(&PUBLISHED, fake)], HashMap::new());
    (context, fake)
}

fn end_scope(context: &Context) {
    shut_down(
        context,
        ShutdownScope::All,
        &ShutdownOptions::default(),
        &Driver::Here,
    );
    let removed = engine::lock().remove_container(context.container);
    drop(removed);
}

#[test]
fn thread_left_behind_in_an_ended_scope_never_sees_instances_outside_it() {
    check_model(Behavior::Succeed, || {
        let process = call();
        let (context, fake) = open_scope_with_fake();
        let left_behind = context.clone();
        let left_behind = spawn(move || {
            let entered = left_behind.enter();
            let seen = try_call().map_err(|error| error.kind());
            drop(entered);
            seen
        });
        end_scope(&context);
        match left_behind.join().unwrap() {
            Ok(seen) => assert!(ptr::eq(seen, fake)),
            Err(kind) => assert_eq!(kind, ErrorKind::ShutDown),
        }
        let published = FAST_PATH.get();
        assert!(published.is_some_and(|published| ptr::eq(published, process)));
    });
}

#[test]
fn scope_never_sees_instances_outside_it() {
    check_model(Behavior::Succeed, || {
        let outside = [(); 2].map(|()| spawn(|| (call(), call())));
        let inside = spawn(|| {
            let (context, fake) = open_scope_with_fake();
            let entered = context.enter();
            assert!(ptr::eq(call(), fake));
            end_scope(&context);
            drop(entered);
            call()
        });
        let seen = inside.join().unwrap();
        for (earlier, later) in outside.map(|thread| thread.join().unwrap()) {
            assert!(ptr::eq(earlier, seen) && ptr::eq(later, seen));
        }
        assert!(
            FAST_PATH
                .get()
                .is_some_and(|fast_path| ptr::eq(fast_path, seen))
        );
        assert_eq!(times("Published", "made"), 1);
    });
}
