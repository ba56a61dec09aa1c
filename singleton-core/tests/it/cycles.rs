//! Uses that `#[requires]` does not declare, and cycles among them.

use std::sync::Barrier;
use std::thread;

use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use singleton_core::{Error, ErrorKind, Service, guarded, requires, service};

use crate::log_capture;

macro_rules! service_that {
    ($name:ident $(requires $requirement:ident)? initializes $initialize:block pings $ping:block) => {
        #[service]
        $(#[requires($requirement)])?
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                $initialize
                Ok($name)
            }

            fn ping(&self) -> anyhow::Result<()> {
                $ping
                Ok(())
            }
        }

        #[allow(dead_code, reason = "some are only required by others")]
        impl $name {
            #[guarded]
            fn call(&self) -> Result<(), Error> {
                Ok(())
            }
        }
    };
}

service_that! { OwnInitialize initializes { OwnInitialize::call()?; } pings {} }
service_that! { OwnPing initializes {} pings { OwnPing::call()?; } }
service_that! { A initializes { B::call()?; } pings {} }
service_that! { B initializes { C::call()?; } pings {} }
service_that! { C requires D initializes {} pings {} }
service_that! { D initializes {} pings { A::call()?; } }
service_that! { IgnoresError initializes { let _ = IgnoresError::call(); } pings {} }
service_that! { ReplacesError initializes { let _ = ReplacesError::call(); anyhow::bail!("disk full"); #[allow(unreachable_code)] {} } pings {} }
service_that! { WrapsError initializes { Wrapped::call().map_err(|error| anyhow::anyhow!("while starting: {error}"))?; } pings {} }
service_that! { Wrapped initializes { WrapsError::call().unwrap(); } pings {} }

#[test]
fn service_that_calls_itself_gets_self_dependency() {
    for result in [
        OwnInitialize::call(),
        OwnInitialize::call(),
        OwnPing::call(),
        OwnPing::call(),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SelfDependency, "{error}");
        let service = error.service().unwrap();
        assert_eq!(
            error.to_string(),
            format!("guarded method of {service} was called while {service} was initializing")
        );
    }
}

#[test]
fn cycle_on_one_thread_is_reported_with_its_path() {
    for _ in 0..2 {
        assert_eq!(
            A::call().unwrap_err().to_string(),
            "circular dependency: A -> B -> C -> D -> A"
        );
    }
    assert_eq!(
        C::call().unwrap_err().to_string(),
        "circular dependency: C -> D -> A -> B -> C"
    );
}

#[test]
fn cycle_is_reported_however_initialize_wraps_it() {
    assert!(
        IgnoresError::call().is_ok(),
        "`initialize` ignored the error, so it succeeds"
    );
    let error = ReplacesError::call().unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to initialize ReplacesError: disk full"
    );
    let text = WrapsError::call().unwrap_err().to_string();
    assert_eq!(
        text,
        "circular dependency: WrapsError -> Wrapped -> WrapsError"
    );
}

static BOTH_INSIDE: Barrier = Barrier::new(2);
static ALL_INSIDE: Barrier = Barrier::new(3);
service_that! { CyclicLeft initializes { BOTH_INSIDE.wait(); CyclicRight::call()?; } pings {} }
service_that! { CyclicRight initializes { BOTH_INSIDE.wait(); CyclicLeft::call()?; } pings {} }
service_that! { One initializes { ALL_INSIDE.wait(); Two::call()?; } pings {} }
service_that! { Two initializes { ALL_INSIDE.wait(); Three::call()?; } pings {} }
service_that! { Three requires Four initializes {} pings {} }
service_that! { Four initializes { ALL_INSIDE.wait(); One::call()?; } pings {} }

/// Runs each call on its own thread, in one scope, and returns their errors.
fn run_concurrently(calls: &[fn() -> Result<(), Error>]) -> Vec<Error> {
    Scope::new().run(|| {
        let scope = &ServiceContext::current();
        thread::scope(|threads| {
            let running: Vec<_> = calls
                .iter()
                .map(|call| threads.spawn(move || scope.sync_scope(call)))
                .collect();
            running
                .into_iter()
                .filter_map(|thread| thread.join().unwrap().err())
                .collect()
        })
    })
}

#[track_caller]
fn assert_cycle(error: &Error, names: &[&str]) {
    assert_eq!(error.kind(), ErrorKind::CircularDependency, "{error}");
    let path = error.cycle().unwrap();
    assert_eq!(path.len(), names.len() + 1);
    assert_eq!(path.first(), path.last());
    let first = names.iter().position(|name| *name == path[0]).unwrap();
    for (step, name) in path.iter().enumerate() {
        assert_eq!(*name, names[(first + step) % names.len()], "{error}");
    }
}

#[test]
fn cycle_across_two_threads_is_an_error() {
    for _ in 0..200 {
        let errors = run_concurrently(&[CyclicLeft::call, CyclicRight::call]);
        assert_eq!(errors.len(), 2);
        errors
            .iter()
            .for_each(|error| assert_cycle(error, &["CyclicLeft", "CyclicRight"]));
    }
}

#[test]
fn cycle_across_three_threads_is_an_error() {
    for _ in 0..200 {
        let errors = run_concurrently(&[One::call, Two::call, Three::call]);
        assert_eq!(errors.len(), 3);
        errors
            .iter()
            .for_each(|error| assert_cycle(error, &["One", "Two", "Three", "Four"]));
    }
}

service_that! { Used initializes {} pings {} }
service_that! { Deep requires Used initializes {} pings {} }
service_that! { Forgetful initializes { Used::call()?; Used::call()?; } pings { Used::call()?; } }
service_that! { Declares requires Deep initializes { Deep::call()?; Used::call()?; } pings {} }

#[test]
fn undeclared_use_works_and_logs_one_warning() {
    log_capture::install();
    Scope::new().run(|| {
        Forgetful::call().unwrap();
        Declares::call().unwrap();
    });
    let expected = "Forgetful uses Used while initializing but does not declare it; add #[requires(Used)] to Forgetful";
    assert_eq!(log_capture::warnings_with("Forgetful"), [expected]);
    assert_eq!(log_capture::warnings_with("Declares"), [""; 0]);
}
