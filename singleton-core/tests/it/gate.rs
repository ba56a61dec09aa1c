//! Synchronization of a test's threads.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// A timeout that only a hanging test reaches.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A gate at which one side waits until the other side opens it. The other side can wait until the first one has
/// arrived.
pub(crate) struct Gate {
    come: (Mutex<Sender<()>>, Mutex<Receiver<()>>),
    open: (Mutex<Sender<()>>, Mutex<Receiver<()>>),
}

impl Gate {
    pub(crate) fn new() -> Self {
        let both = || {
            let (sender, receiver) = channel();
            (Mutex::new(sender), Mutex::new(receiver))
        };
        Gate {
            come: both(),
            open: both(),
        }
    }

    pub(crate) fn come(&self) {
        self.come.0.lock().unwrap().send(()).unwrap();
    }

    pub(crate) fn pass(&self) {
        self.come();
        self.open.1.lock().unwrap().recv_timeout(LONG).unwrap();
    }

    pub(crate) fn await_someone(&self) {
        self.come.1.lock().unwrap().recv_timeout(LONG).unwrap();
    }

    pub(crate) fn open(&self) {
        self.open.0.lock().unwrap().send(()).unwrap();
    }
}

macro_rules! gate {
    ($name:ident) => {
        static $name: std::sync::LazyLock<$crate::gate::Gate> =
            std::sync::LazyLock::new($crate::gate::Gate::new);
    };
}
pub(crate) use gate;
