//! A logger that uses services, and that can panic. The engine must work with it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use log::{LevelFilter, Log, Metadata, Record};
use singleton_core::{Error, Service, guarded, requires, service};

/// Whether the logger panics at each record.
static PANICS: AtomicBool = AtomicBool::new(false);

struct UnusualLogger;

impl Log for UnusualLogger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &Record<'_>) {
        assert!(!PANICS.load(Ordering::Relaxed), "no space left on device");
        let _ = Sink::put();
    }

    fn flush(&self) {}
}

macro_rules! service_that {
    ($name:ident $(requires $requirement:ident)? initializes $initialize:block) => {
        #[service]
        $(#[requires($requirement)])?
        struct $name;

        impl Service for $name {
            fn initialize() -> anyhow::Result<Self> {
                $initialize
                Ok($name)
            }
        }

        #[allow(dead_code, reason = "one is only required by others")]
        impl $name {
            #[guarded]
            fn put(&self) -> Result<(), Error> {
                Ok(())
            }
        }
    };
}

service_that! { Store initializes {} }
service_that! { Sink requires Store initializes {} }
service_that! { User initializes { Middle::put()?; } }
service_that! { Middle requires Required initializes {} }
service_that! { Required initializes { User::put()?; } }
service_that! { LoggedWithPanic initializes {} }
service_that! { Late initializes {} }

#[test]
fn logger_that_uses_services_or_panics_breaks_nothing() {
    log::set_logger(&UnusualLogger).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let error = User::put().unwrap_err();
    assert_eq!(
        error.to_string(),
        "circular dependency: User -> Middle -> Required -> User"
    );
    assert!(Sink::put().is_ok());

    PANICS.store(true, Ordering::Relaxed);
    let error = LoggedWithPanic::put().unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed to initialize LoggedWithPanic: panicked: no space left on device"
    );
    PANICS.store(false, Ordering::Relaxed);
    assert!(LoggedWithPanic::put().is_ok());

    destructors_of_thread_locals_may_start_services();
}

/// A thread-local value that starts a service in its destructor.
struct StartsServiceOnDrop;

impl Drop for StartsServiceOnDrop {
    fn drop(&mut self) {
        assert!(Late::put().is_ok());
    }
}

thread_local! {
    static STARTS_SERVICE_ON_DROP: StartsServiceOnDrop = const { StartsServiceOnDrop };
}

fn destructors_of_thread_locals_may_start_services() {
    let thread = thread::spawn(|| {
        STARTS_SERVICE_ON_DROP.with(|_| ());
        Store::put().unwrap();
    });
    assert!(thread.join().is_ok());
    assert!(Late::is_initialized());
}
