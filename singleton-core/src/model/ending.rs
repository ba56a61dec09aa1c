//! What starts while everything ends.

use super::{
    Conduct, Sample, check, comes_before, misbehave_once, note, resolve_at_once, service, spawn,
    times,
};
use crate::descriptor::Descriptor;
use crate::driver::Driver;
use crate::engine::RealmId;
use crate::error::Error;
use crate::initialization::resolve;
use crate::shutdown::{Extent, shut_down};
use crate::shutdown_options::ShutdownOptions;

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
