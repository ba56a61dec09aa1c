//! The engine under the model checker, which tries every way in which a few threads can meet:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 \
//!     cargo test -p singleton-core --lib --release --target-dir target/loom model
//! ```
//!
//! A deadlock found while `initialize` runs may end the process, since what unwinds from there is
//! contained like any panic of a user's: `-- --nocapture` shows which it was.

mod circles;
mod ending;
mod publishing;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::{panic, ptr};

use loom::sync::atomic::AtomicUsize;
use loom::thread::{Builder, JoinHandle};

use crate::attempt::Outcome;
use crate::by_service::Number;
use crate::descriptor::{Descriptor, Initialize, Instance, Work};
use crate::engine::{self, RealmId};
use crate::error::Error;
use crate::initialization::{conduct, resolve};
use crate::policy::Policy;
use crate::service_info::State;
use crate::stop::Stop;
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
