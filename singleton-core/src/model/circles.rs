//! Services that need each other, each begun by another thread.

use std::panic;

use super::{CONDUCT, Conduct, Made, Sample, check, resolve_at_once, sample, service};
use crate::descriptor::Descriptor;
use crate::error::Error;
use crate::initialization::resolve;

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
