//! A chain of services that is deeper than the stack of a small thread.

use std::any::Any;
use std::future;
use std::sync::{LazyLock, RwLock};
use std::thread;

use crate::application::{ShutdownOptions, ShutdownScope, StartOptions, shut_down, start};
use crate::engine::Context;
use crate::error::ErrorKind;
use crate::init::{resolve, resolve_async};
use crate::invoke::Driver;
use crate::service::{Descriptor, Initialize, Instance, Work};
use crate::testing::Scope;

const DEPTH: usize = 1_000;
/// Too little for a recursion that takes only 200 bytes for each level.
const STACK: usize = 160 << 10;

struct Link;

impl Instance for Link {
    fn ping(&self) -> Work<'_> {
        Work::Done(Ok(()))
    }

    fn shutdown(&self) -> (Work<'_>, bool) {
        // Shut down without a thread, after the first one.
        (Work::Done(Ok(())), true)
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }
}

/// The chain of the running case, the service without dependencies first.
static CHAIN: RwLock<Vec<&'static Descriptor>> = RwLock::new(Vec::new());

fn link<const LEVEL: usize>() -> &'static Descriptor {
    CHAIN.read().expect("no test panics while it writes")[LEVEL]
}

macro_rules! links {
    ($($hundred:literal)*) => {
        [$(links!(hundred $hundred: 0 10 20 30 40 50 60 70 80 90)),*]
    };
    (hundred $hundred:literal: $($ten:literal)*) => {
        [$([
            link::<{ $hundred + $ten }>, link::<{ $hundred + $ten + 1 }>, link::<{ $hundred + $ten + 2 }>,
            link::<{ $hundred + $ten + 3 }>, link::<{ $hundred + $ten + 4 }>, link::<{ $hundred + $ten + 5 }>,
            link::<{ $hundred + $ten + 6 }>, link::<{ $hundred + $ten + 7 }>, link::<{ $hundred + $ten + 8 }>,
            link::<{ $hundred + $ten + 9 }>,
        ]),*]
    };
}

type GetDescriptor = fn() -> &'static Descriptor;

static LINKS: LazyLock<Vec<GetDescriptor>> = LazyLock::new(|| {
    let links: [[[GetDescriptor; 10]; 10]; 10] = links!(0 100 200 300 400 500 600 700 800 900);
    links.as_flattened().as_flattened().to_vec()
});

const WORKS: Initialize = Initialize::Blocking(|| Ok(Box::new(Link)));
const FAILS: Initialize = Initialize::Blocking(|| anyhow::bail!("the first one fails"));
const WORKS_ASYNC: Initialize = Initialize::Async(|| {
    Box::pin(async {
        let instance: Box<dyn Instance> = Box::new(Link);
        Ok(instance)
    })
});
const FAILS_ASYNC: Initialize =
    Initialize::Async(|| Box::pin(future::ready(Err(anyhow::anyhow!("the first one fails")))));

/// Builds a new chain. Returns its last service.
fn build_chain(first: Initialize, others: Initialize) -> &'static Descriptor {
    let chain = (0..DEPTH).map(|level| {
        let requirements = &LINKS[level.saturating_sub(1)..level];
        let initialize = if level == 0 { first } else { others };
        let service = Descriptor {
            rank: level + 1,
            asynchronous: matches!(others, Initialize::Async(_)),
            ..Descriptor::for_test("Link", requirements, initialize)
        };
        &*Box::leak(Box::new(service))
    });
    let chain: Vec<_> = chain.collect();
    let last = chain[DEPTH - 1];
    *CHAIN.write().expect("no test panics while it reads") = chain;
    last
}

/// Runs `work` in a scope, on a thread with a small stack. Returns the number of services that were ready.
fn ready_after(work: impl FnOnce() + Send + 'static) -> usize {
    let case = move || {
        Scope::new().run(|| {
            work();
            Scope::initialized().len()
        })
    };
    let thread = thread::Builder::new().stack_size(STACK).spawn(case);
    thread.unwrap().join().unwrap()
}

fn start_in_scope(last: &'static Descriptor) -> bool {
    let options = StartOptions::new().threads(1);
    start(&Context::current(), vec![last], &options, &Driver::Here).is_ok()
}

// One test, because all cases use the same functions.
#[test]
fn no_stack_grows_with_the_graph() {
    let last = build_chain(WORKS, WORKS);
    assert_eq!(ready_after(move || assert!(resolve(last).is_ok())), DEPTH);
    let last = build_chain(WORKS, WORKS);
    assert_eq!(ready_after(move || assert!(start_in_scope(last))), DEPTH);
    let last = build_chain(WORKS_ASYNC, WORKS_ASYNC);
    let task = async move { assert!(resolve_async(last).await.is_ok()) };
    assert_eq!(ready_after(|| pollster::block_on(task)), DEPTH);

    let expect_failure = |error: Option<crate::Error>| {
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::InitializationFailed);
        assert_eq!(error.because_of(), Some("Link"));
    };
    let last = build_chain(FAILS, WORKS);
    assert_eq!(ready_after(move || expect_failure(resolve(last).err())), 0);
    let last = build_chain(FAILS, WORKS);
    assert_eq!(ready_after(move || assert!(!start_in_scope(last))), 0);
    let last = build_chain(FAILS_ASYNC, WORKS_ASYNC);
    let task = async move { expect_failure(resolve_async(last).await.err()) };
    assert_eq!(ready_after(|| pollster::block_on(task)), 0);

    let last = build_chain(WORKS, WORKS);
    let shut_down_all = move || {
        assert!(resolve(last).is_ok());
        let options = ShutdownOptions::default();
        let report = shut_down(
            &Context::current(),
            ShutdownScope::All,
            &options,
            &Driver::Here,
        );
        assert_eq!(report.services().len(), DEPTH);
    };
    assert_eq!(ready_after(shut_down_all), 0);
}
