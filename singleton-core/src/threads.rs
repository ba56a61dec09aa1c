//! The start of threads, in one place.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread with a name.
pub(crate) fn spawn<R: Send + 'static>(
    name: impl Into<String>,
    work: impl FnOnce() -> R + Send + 'static,
) -> io::Result<JoinHandle<R>> {
    let name = name.into();
    #[cfg(test)]
    let work = faults::inherited(&name, work)?;
    Builder::new().name(name).spawn(work)
}

/// Refused thread starts, for the tests of this crate.
#[cfg(test)]
pub(crate) mod faults {
    use std::cell::RefCell;
    use std::io;
    use std::sync::Arc;

    /// Returns whether the thread with this name is refused.
    pub(crate) type Refuse = Arc<dyn Fn(&str) -> bool + Send + Sync>;

    thread_local! {
        static REFUSE: RefCell<Option<Refuse>> = const { RefCell::new(None) };
    }

    /// Runs `work`. Meanwhile, `refuse` decides for each thread that this thread and its descendants start.
    pub(crate) fn with<R>(refuse: Refuse, work: impl FnOnce() -> R) -> R {
        let previous = REFUSE.replace(Some(refuse));
        let result = work();
        REFUSE.set(previous);
        result
    }

    pub(super) fn inherited<R, W: FnOnce() -> R>(
        name: &str,
        work: W,
    ) -> io::Result<impl FnOnce() -> R + use<R, W>> {
        let refuse = REFUSE.with_borrow(Clone::clone);
        if refuse.as_ref().is_some_and(|refuse| refuse(name)) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        Ok(move || match refuse {
            Some(refuse) => with(refuse, work),
            None => work(),
        })
    }
}
