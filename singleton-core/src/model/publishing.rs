//! The pointer that guarded calls load, while it is set and taken away.

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use super::{Conduct, Sample, check, sample, service, spawn, times};
use crate::descriptor::Descriptor;
use crate::engine::{self, enter};
use crate::initialization::resolve;
use crate::ready::Ready;

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
