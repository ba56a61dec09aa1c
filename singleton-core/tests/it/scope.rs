//! Test scopes: separate services, fakes, other threads, and shutdown.

use std::panic;
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;

use futures_util::FutureExt;
use singleton_core::testing::Scope;
#[allow(deprecated, reason = "the old names stay for a while")]
use singleton_core::testing::ScopeHandle;
use singleton_core::{Error, ErrorKind, Service, ServiceContext, guarded, requires, service};

static EVENTS: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[service]
struct ScopedClock {
    hour: u32,
}

impl Service for ScopedClock {
    fn initialize() -> anyhow::Result<Self> {
        Ok(ScopedClock { hour: 1 })
    }

    fn ping(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.hour < 24, "a day has 24 hours");
        Ok(())
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        EVENTS
            .lock()
            .unwrap()
            .push(format!("clock {} stops", self.hour));
        Ok(())
    }
}

impl ScopedClock {
    #[guarded]
    fn hour(&self) -> Result<&u32, Error> {
        Ok(&self.hour)
    }
}

#[service]
#[requires(ScopedClock)]
struct Diary;

impl Service for Diary {
    fn initialize() -> anyhow::Result<Self> {
        Ok(Diary)
    }

    fn shutdown(&self) -> anyhow::Result<()> {
        EVENTS
            .lock()
            .unwrap()
            .push(format!("diary stops at {}", ScopedClock::hour()?));
        panic!("the diary cannot stop");
    }
}

#[test]
fn fake_replaces_a_service_only_inside_its_scope() {
    let outside = std::ptr::from_ref(ScopedClock::hour().unwrap());
    let inside = Scope::new()
        .provide(ScopedClock { hour: 99 })
        .provide(ScopedClock { hour: 30 })
        .run(|| *ScopedClock::hour().unwrap());
    assert_eq!(
        inside, 30,
        "the last provided instance is used, without `initialize` and `ping`"
    );
    assert_eq!(std::ptr::from_ref(ScopedClock::hour().unwrap()), outside);
    Scope::new().run(|| {
        assert_ne!(
            std::ptr::from_ref(ScopedClock::hour().unwrap()),
            outside,
            "each scope must have a separate instance"
        )
    });
}

#[test]
fn scopes_nest_and_are_separate_between_threads() {
    let together = Barrier::new(2);
    thread::scope(|threads| {
        for hour in [5, 6] {
            let together = &together;
            threads.spawn(move || {
                Scope::new().provide(ScopedClock { hour }).run(|| {
                    together.wait();
                    assert_eq!(*ScopedClock::hour().unwrap(), hour);
                    Scope::new().run(|| assert_eq!(*ScopedClock::hour().unwrap(), 1));
                    assert_eq!(*ScopedClock::hour().unwrap(), hour);
                    thread::scope(|inner| {
                        inner
                            .spawn(|| assert_eq!(*ScopedClock::hour().unwrap(), 1))
                            .join()
                            .unwrap()
                    });
                    together.wait();
                });
            });
        }
    });
}

#[test]
fn handle_carries_the_scope_and_can_outlive_it() {
    let outside = ServiceContext::current();
    let handle = Scope::new().provide(ScopedClock { hour: 7 }).run(|| {
        let handle = ServiceContext::current();
        let elsewhere = thread::scope(|threads| {
            threads
                .spawn(|| handle.sync_scope(|| *ScopedClock::hour().unwrap()))
                .join()
                .unwrap()
        });
        assert_eq!(elsewhere, 7);
        assert_eq!(
            outside.sync_scope(|| *ScopedClock::hour().unwrap()),
            1,
            "a handle from outside all scopes must leave the current scope"
        );
        assert_eq!(*ScopedClock::hour().unwrap(), 7);
        handle
    });
    let late = handle.clone().sync_scope(ScopedClock::hour).unwrap_err();
    assert_eq!(late.to_string(), "ScopedClock has been shut down");
    assert!(!handle.sync_scope(ScopedClock::is_initialized));
}

#[test]
fn scope_shuts_down_in_reverse_order_even_after_a_panic() {
    let caught = panic::catch_unwind(|| {
        Scope::new().provide(ScopedClock { hour: 12 }).run(|| {
            Diary::instance().unwrap();
            panic!("the test failed");
        })
    });
    assert_eq!(
        *caught.unwrap_err().downcast::<&str>().unwrap(),
        "the test failed"
    );
    let events = EVENTS
        .lock()
        .unwrap()
        .iter()
        .filter(|event| event.contains("12"))
        .cloned()
        .collect::<Vec<_>>();
    assert_eq!(events, ["diary stops at 12", "clock 12 stops"]);
    assert_eq!(
        *ScopedClock::hour().unwrap(),
        1,
        "the thread must have left the scope"
    );
}

#[test]
fn provided_service_shuts_down_before_its_dependencies() {
    Scope::new().provide(Diary).run(|| {
        Diary::instance().unwrap();
        Scope::new()
            .provide(Diary)
            .provide(ScopedClock { hour: 21 })
            .run(|| ());
        assert_eq!(
            *ScopedClock::hour().unwrap(),
            1,
            "the clock initializes after its dependent"
        );
    });
    let events = EVENTS.lock().unwrap();
    let position = |event: &str| events.iter().position(|known| known == event);
    assert!(position("diary stops at 21").unwrap() < position("clock 21 stops").unwrap());
    assert!(position("diary stops at 1").is_some(), "{events:?}");
}

#[test]
fn scope_debug_lists_provided_services() {
    assert_eq!(
        format!("{:?}", Scope::new().provide(ScopedClock { hour: 2 })),
        r#"Scope ["ScopedClock"]"#
    );
}

#[test]
fn thread_left_behind_in_an_ended_scope_sees_no_service() {
    ScopedClock::hour().unwrap();
    let (left, is_left) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let left_behind = Scope::new().run(|| {
        let work = ServiceContext::current().wrap(move || {
            left.send(()).unwrap();
            may_go_on.recv().unwrap();
            ScopedClock::hour().map_err(|error| error.kind())
        });
        let thread = thread::spawn(work);
        is_left.recv().unwrap();
        thread
    });
    assert_eq!(*ScopedClock::hour().unwrap(), 1);
    go_on.send(()).unwrap();
    assert_eq!(left_behind.join().unwrap(), Err(ErrorKind::ShutDown));
    assert_eq!(*ScopedClock::hour().unwrap(), 1);
}

struct AsksWhenDropped(mpsc::Sender<u32>);

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        self.0.send(*ScopedClock::hour().unwrap()).unwrap();
    }
}

#[test]
fn destructors_of_a_cancelled_future_run_in_its_context() {
    let (sender, hour) = mpsc::channel();
    Scope::new().provide(ScopedClock { hour: 9 }).run(|| {
        let asks = AsksWhenDropped(sender);
        let future = ServiceContext::current().scope(async move {
            let _asks = asks;
            std::future::pending::<()>().await;
        });
        let mut future = Box::pin(future);
        assert!(future.as_mut().now_or_never().is_none());
        thread::spawn(move || drop(future)).join().unwrap();
    });
    assert_eq!(hour.recv().unwrap(), 9);
}

#[test]
#[allow(deprecated, reason = "the old names stay for a while")]
fn deprecated_names_of_the_context_still_work() {
    Scope::new().provide(ScopedClock { hour: 4 }).run(|| {
        let handle: ScopeHandle = Scope::current();
        assert_eq!(*handle.enter(ScopedClock::hour).unwrap(), 4);
        let spawned = handle.spawn(ScopedClock::hour).unwrap();
        assert_eq!(*spawned.join().unwrap().unwrap(), 4);
        let carried = handle.carry(async { *ScopedClock::hour().unwrap() });
        assert_eq!(pollster::block_on(carried), 4);
        assert_eq!(handle.initialized(), ["ScopedClock"]);
        handle.assert_initialized(["ScopedClock"]);
    });
}
