//! Gates, which synchronize the threads of a test.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// The timeout of each wait. Only a test that hangs reaches it.
pub(crate) const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// A gate at which one thread waits until another thread opens it. The other thread can first wait for its arrival.
pub(crate) struct Gate {
    arrivals: (Mutex<Sender<()>>, Mutex<Receiver<()>>),
    openings: (Mutex<Sender<()>>, Mutex<Receiver<()>>),
}

impl Gate {
    pub(crate) fn new() -> Self {
        let channels = || {
            let (sender, receiver) = channel();
            (Mutex::new(sender), Mutex::new(receiver))
        };
        Gate {
            arrivals: channels(),
            openings: channels(),
        }
    }

    /// Reports an arrival without waiting.
    pub(crate) fn arrive(&self) {
        self.arrivals.0.lock().unwrap().send(()).unwrap();
    }

    /// Reports an arrival, and waits until the gate is opened.
    pub(crate) fn arrive_and_wait(&self) {
        self.arrive();
        self.openings
            .1
            .lock()
            .unwrap()
            .recv_timeout(HANG_TIMEOUT)
            .unwrap();
    }

    /// Waits for one arrival.
    pub(crate) fn wait_for_arrival(&self) {
        self.arrivals
            .1
            .lock()
            .unwrap()
            .recv_timeout(HANG_TIMEOUT)
            .unwrap();
    }

    /// Lets one waiting thread, or the next one that arrives, continue.
    pub(crate) fn open(&self) {
        self.openings.0.lock().unwrap().send(()).unwrap();
    }
}

macro_rules! gate {
    ($name:ident) => {
        static $name: std::sync::LazyLock<$crate::gate::Gate> =
            std::sync::LazyLock::new($crate::gate::Gate::new);
    };
}
pub(crate) use gate;
