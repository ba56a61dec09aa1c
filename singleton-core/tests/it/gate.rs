//! Where the threads of a test wait for each other.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Far longer than anything here takes, for what would otherwise hang.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A gate that one side waits at until the other opens it, and that tells when someone has come.
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
