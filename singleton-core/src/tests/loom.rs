//! The engine under the model checker, which tries every way in which a few threads can meet:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test -p singleton-core --lib --release --target-dir target/loom tests::loom
//! ```
//!
//! A deadlock found while `initialize` runs may end the process, since what unwinds from there is
//! contained like any panic of a user's: `-- --nocapture` shows which it was.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::{panic, ptr};

use loom::sync::atomic::AtomicUsize;
use loom::thread::{Builder, JoinHandle};

use crate::application::{Extent, ShutdownOptions, shut_down};
use crate::engine::{self, Outcome, RealmId, enter};
use crate::error::Error;
use crate::init::{conduct, resolve};
use crate::invoke::Driver;
use crate::service::{Descriptor, Initialize, Instance, Number, Policy, Ready, State, Stop, Work};
use crate::sync::Ordering;

type Made = anyhow::Result<Box<dyn Instance>>;

/// How a service takes it that one which it uses failed, or fails itself.
#[derive(Clone, Copy)]
enum Conduct {
    Proper,
    Swallow,
    Fail,
    Panic,
}

// The checker runs the threads of a model in turn on one thread of the system: that of the test.
thread_local! {
    /// What became of services in this execution: name and event, in order.
    static JOURNAL: RefCell<Vec<(&'static str, &'static str)>> = const { RefCell::new(Vec::new()) };
    static CONDUCT: Cell<Conduct> = const { Cell::new(Conduct::Proper) };
}

fn note(service: &'static str, event: &'static str) {
    JOURNAL.with_borrow_mut(|journal| journal.push((service, event)));
}

fn times(service: &'static str, event: &'static str) -> usize {
    JOURNAL.with_borrow(|journal| {
        let same = journal.iter().filter(|entry| **entry == (service, event));
        same.count()
    })
}

fn comes_before(first: (&'static str, &'static str), second: (&'static str, &'static str)) -> bool {
    JOURNAL.with_borrow(|journal| {
        let position = |wanted| journal.iter().position(|entry| *entry == wanted);
        position(first).expect("the first happened") < position(second).expect("so did the second")
    })
}

/// Checks a model in every execution with up to two preemptions, or as many as the environment says.
fn check(conduct: Conduct, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(move || {
        JOURNAL.with_borrow_mut(Vec::clear);
        CONDUCT.set(conduct);
        model();
        assert_at_rest();
    });
}

/// Nothing is left behind: no attempt, no wait, and whoever is held on to is so by someone.
fn assert_at_rest() {
    let engine = engine::lock();
    assert!(engine.nobody_waits(), "a wait was forgotten");
    let realm = engine.realm(RealmId::PROCESS).expect("it stays");
    for (service, entry) in realm.entries() {
        let state = engine.state(RealmId::PROCESS, service);
        assert_ne!(state, State::Initializing, "{service:?}");
        let holding = realm
            .entries()
            .filter(|(_, user)| user.uses.contains(&service));
        assert_eq!(entry.users, holding.count(), "{service:?}");
        if state != State::Ready {
            assert!(entry.uses.is_empty(), "{service:?} is gone and holds on");
        }
    }
}

/// Starts a thread with a stack that an initialisation within another fits in; the checker's own is smaller.
fn spawn<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
    let thread = Builder::new().stack_size(1 << 15).spawn(work);
    thread.expect("it is no thread of the system's")
}

/// Calls for all of the services at once, each on a thread of its own.
fn resolve_at_once<const COUNT: usize>(services: [&'static Descriptor; COUNT]) -> [Outcome; COUNT] {
    let threads = services.map(|service| spawn(move || resolve(service)));
    threads.map(|thread| thread.join().expect("no panic gets here"))
}

/// An instance that shows whether everything written before it was handed out is seen.
struct Sample {
    name: &'static str,
    written: AtomicUsize,
}

impl Sample {
    fn new(name: &'static str) -> Box<Self> {
        note(name, "made");
        let written = AtomicUsize::new(0);
        written.store(1, Ordering::Relaxed);
        Box::new(Sample { name, written })
    }

    fn assert_whole(&self) {
        let written = self.written.load(Ordering::Relaxed);
        assert_eq!(written, 1, "{} was seen before it was made", self.name);
    }
}

impl Instance for Sample {
    fn ping(&self) -> Work<'_> {
        Work::Done(Ok(()))
    }

    fn shutdown(&self) -> Work<'_> {
        note(self.name, "stopped");
        Work::Done(Ok(()))
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

fn sample(instance: &'static dyn Instance) -> &'static Sample {
    let sample: &Sample = instance.as_any().downcast_ref().expect("there is no other");
    sample.assert_whole();
    sample
}

const fn service(
    name: &'static str,
    requirements: &'static [fn() -> &'static Descriptor],
    initialize: fn() -> Made,
) -> Descriptor {
    Descriptor {
        number: Number::new(),
        name,
        path: name,
        rank: requirements.len(),
        asynchronous: false,
        initialize: Initialize::Blocking(initialize),
        run: None,
        policy: Policy::DEFAULT,
        requirements,
        publish: |_| (),
    }
}

static ALONE: Descriptor = service("Alone", &[], || {
    note("Alone", "began");
    misbehave_once("Alone")?;
    Ok(Sample::new("Alone"))
});

/// Fails the first time, if it is to; without the panic hook, which would write a line for each execution.
fn misbehave_once(service: &'static str) -> anyhow::Result<()> {
    match CONDUCT.get() {
        Conduct::Fail if times(service, "began") == 1 => anyhow::bail!("not the first time"),
        Conduct::Panic if times(service, "began") == 1 => panic::resume_unwind(Box::new("lost")),
        _ => Ok(()),
    }
}

#[test]
fn everyone_gets_the_same_instance() {
    check(Conduct::Proper, || {
        let [first, second, third] =
            resolve_at_once([&ALONE; 3]).map(|outcome| sample(outcome.unwrap()));
        assert!(ptr::eq(first, second) && ptr::eq(first, third));
        assert_eq!(times("Alone", "began"), 1);
    });
}

/// Whoever has waited for a failure has it, and the next call tries again.
fn check_recovery(conduct: Conduct, expected: fn(&Error) -> bool) {
    check(conduct, move || {
        let outcomes = resolve_at_once([&ALONE; 3]);
        let [last] = resolve_at_once([&ALONE]).map(|outcome| sample(outcome.unwrap()));
        assert!(outcomes.iter().any(Result::is_err), "whose attempt failed?");
        for outcome in outcomes {
            match outcome {
                Ok(instance) => assert!(ptr::eq(sample(instance), last)),
                Err(error) => assert!(expected(&error), "{error}"),
            }
        }
        assert_eq!((times("Alone", "began"), times("Alone", "made")), (2, 1));
    });
}

#[test]
fn a_failure_is_everyones_and_not_for_good() {
    check_recovery(Conduct::Fail, |error| {
        matches!(
            error,
            Error::InitializationFailed {
                because_of: None,
                ..
            }
        )
    });
}

#[test]
fn a_panic_is_everyones_and_not_for_good() {
    check_recovery(Conduct::Panic, |error| {
        matches!(
            error,
            Error::Panicked {
                because_of: None,
                ..
            }
        )
    });
}

/// Wakes a thread that polls a future.
struct Bell(Stop);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.request();
    }
}

fn poll_when_woken<F: Future>(future: F) -> F::Output {
    let bell = Arc::new(Bell(Stop::new()));
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(future);
    for _ in 0..2 {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => bell.0.wait_for_request(),
        }
    }
    panic!("woken too early");
}

#[test]
fn tasks_and_threads_that_wait_are_woken() {
    check(Conduct::Proper, || {
        let attempt = engine::lock().begin(RealmId::PROCESS, &ALONE).unwrap();
        let tasks = [(); 2].map(|()| {
            let attempt = Arc::clone(&attempt);
            spawn(move || poll_when_woken(attempt.ended()).expect("it has no deadline"))
        });
        let thread = spawn(|| resolve(&ALONE));
        spawn(move || conduct(&attempt)).join().unwrap();
        let instance = sample(thread.join().unwrap().unwrap());
        for outcome in tasks.map(|task| task.join().unwrap()) {
            assert!(ptr::eq(sample(outcome.unwrap()), instance));
        }
    });
}

// Two circles that nothing declares.
static LEFT: Descriptor = service("Left", &[], || use_next("Left", &RIGHT));
static RIGHT: Descriptor = service("Right", &[], || use_as_told("Right", &LEFT));
static FIRST: Descriptor = service("First", &[], || use_next("First", &SECOND));
static SECOND: Descriptor = service("Second", &[], || use_next("Second", &THIRD));
static THIRD: Descriptor = service("Third", &[], || use_as_told("Third", &FIRST));

fn use_next(name: &'static str, next: &'static Descriptor) -> Made {
    sample(resolve(next)?);
    Ok(Sample::new(name))
}

fn use_as_told(name: &'static str, next: &'static Descriptor) -> Made {
    match (resolve(next), CONDUCT.get()) {
        (Err(_), Conduct::Swallow) => {}
        (Err(_), Conduct::Panic) => panic::resume_unwind(Box::new("lost")),
        (used, _) => drop(sample(used?)),
    }
    Ok(Sample::new(name))
}

/// Tells whether the error is of a circle and names all that is on it.
fn is_circle(error: &Error, length: usize) -> bool {
    matches!(error, Error::CircularDependency { path }
        if path.len() == length + 1 && path.first() == path.last())
}

#[test]
fn a_circle_of_two_is_an_error_for_both() {
    check(Conduct::Proper, || {
        for outcome in resolve_at_once([&LEFT, &RIGHT]) {
            assert!(outcome.is_err_and(|error| is_circle(&error, 2)));
        }
    });
}

#[test]
fn a_circle_of_three_is_an_error_for_all() {
    check(Conduct::Proper, || {
        for outcome in resolve_at_once([&FIRST, &SECOND, &THIRD]) {
            assert!(outcome.is_err_and(|error| is_circle(&error, 3)));
        }
    });
}

#[test]
fn who_swallows_the_error_of_a_circle_is_ready() {
    check(Conduct::Swallow, || {
        let outcomes = resolve_at_once([&FIRST, &SECOND, &THIRD]);
        assert!(outcomes[2].is_ok());
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert!(is_circle(&error, 3), "{error}");
        }
        // There is no circle any more.
        assert!(resolve_at_once([&FIRST]).map(|outcome| outcome.is_ok())[0]);
    });
}

#[test]
fn a_panic_on_a_circle_ends_it() {
    check(Conduct::Panic, || {
        for outcome in resolve_at_once([&FIRST, &SECOND, &THIRD]) {
            let error = outcome.err().expect("nobody on the circle gets ready");
            let panicked = matches!(error, Error::Panicked { .. });
            assert!(panicked || is_circle(&error, 3), "{error}");
        }
    });
}

static BASE: Descriptor = service("Base", &[], || Ok(Sample::new("Base")));
static USER: Descriptor = service("User", &[|| &BASE], || {
    note("User", "began");
    misbehave_once("User")?;
    Ok(Sample::new("User"))
});

fn shut_down_all() {
    let options = ShutdownOptions::new();
    let report = shut_down(RealmId::PROCESS, Extent::Realm, &options, &Driver::Here);
    assert!(report.is_clean(), "{report}");
    for name in ["User", "Base"] {
        assert_eq!(times(name, "made"), times(name, "stopped"), "{name}");
    }
}

/// Whatever got ready is stopped once, users first, and then nothing starts.
fn assert_stopped_in_order() {
    assert!(times("User", "made") <= 1 && times("Base", "made") <= 1);
    if times("User", "made") == 1 {
        assert!(comes_before(("User", "stopped"), ("Base", "stopped")));
    }
    let [late] = resolve_at_once([&BASE]);
    assert!(matches!(late, Err(Error::ShutDown { .. })));
}

/// A service and what it requires start while everything ends.
fn check_shutdown(conduct: Conduct) {
    check(conduct, || {
        let threads = [&USER, &BASE].map(|service| spawn(move || resolve(service)));
        spawn(shut_down_all).join().unwrap();
        for outcome in threads.map(|thread| thread.join().unwrap()) {
            let gone = matches!(outcome, Err(Error::ShutDown { .. }));
            let failed = matches!(outcome, Err(Error::InitializationFailed { .. }));
            assert!(gone || outcome.is_ok() || (failed && times("User", "made") == 0));
        }
        assert_stopped_in_order();
    });
}

#[test]
fn shutdown_waits_for_what_is_starting() {
    check_shutdown(Conduct::Proper);
}

#[test]
fn shutdown_finds_what_a_failure_lets_go_of() {
    check_shutdown(Conduct::Fail);
}

#[test]
fn of_two_shutdowns_both_return_when_all_is_down() {
    check(Conduct::Proper, || {
        let starting = spawn(|| resolve(&USER).map(|_| ()));
        let ending = [(); 2].map(|()| spawn(shut_down_all));
        ending.into_iter().for_each(|thread| thread.join().unwrap());
        starting.join().unwrap().ok();
        assert_stopped_in_order();
    });
}

#[test]
fn what_is_published_is_seen_whole() {
    check(Conduct::Proper, || {
        let ready = Arc::new(Ready::new());
        let publisher = Arc::clone(&ready);
        let publisher = spawn(move || publisher.set(Some(Box::leak(Sample::new("Alone")))));
        let readers = [(); 2].map(|()| {
            let ready = Arc::clone(&ready);
            spawn(move || ready.get().map(Sample::assert_whole))
        });
        publisher.join().unwrap();
        for reader in readers {
            reader.join().unwrap();
        }
        assert!(ready.get().is_some());
    });
}

#[test]
fn what_is_published_can_be_taken_away() {
    check(Conduct::Proper, || {
        let ready = Arc::new(Ready::new());
        let publisher = Arc::clone(&ready);
        let publisher = spawn(move || {
            publisher.set(Some(Box::leak(Sample::new("Alone"))));
            publisher.set(None);
            assert!(publisher.get().is_none());
            publisher.set(Some(Box::leak(Sample::new("Another"))));
            publisher.set(None);
        });
        let readers = [(); 2].map(|()| {
            let ready = Arc::clone(&ready);
            spawn(move || {
                let (earlier, later): (Option<&Sample>, _) = (ready.get(), ready.get());
                earlier
                    .into_iter()
                    .chain(later)
                    .for_each(Sample::assert_whole);
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
    static ref DIRECT: Ready<Sample> = Ready::new();
}

static PUBLISHED: Descriptor = Descriptor {
    publish: |instance| DIRECT.set(instance.map(sample)),
    ..service("Published", &[], || Ok(Sample::new("Published")))
};

/// What a guarded call does.
fn call() -> &'static Sample {
    let direct = DIRECT.get().inspect(|instance| instance.assert_whole());
    direct.unwrap_or_else(|| sample(resolve(&PUBLISHED).unwrap()))
}

#[test]
fn inside_a_scope_nobody_finds_what_is_outside() {
    check(Conduct::Proper, || {
        let outside = [(); 2].map(|()| spawn(|| (call(), call())));
        let inside = spawn(|| {
            let fake: &'static Sample = Box::leak(Sample::new("Fake"));
            let realm = engine::lock().open_realm(vec![(&PUBLISHED, fake)], HashMap::new());
            let entered = enter(realm);
            assert!(ptr::eq(call(), fake));
            drop(entered);
            let forgotten = engine::lock().forget_realm(realm);
            drop(forgotten);
            call()
        });
        let seen = inside.join().unwrap();
        for (earlier, later) in outside.map(|thread| thread.join().unwrap()) {
            assert!(ptr::eq(earlier, seen) && ptr::eq(later, seen));
        }
        assert!(DIRECT.get().is_some_and(|direct| ptr::eq(direct, seen)));
        assert_eq!(times("Published", "made"), 1);
    });
}
