//! Closes the connections whose server does not answer in time.
//!
//! Nothing else ends the wait for a server that was stopped: its machine still acknowledges what is sent, so no limit of
//! TCP is reached, and libpq waits without one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::relay::Link;

/// A thread that cuts sockets when their time is over; it ends with the last connection that needs it.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is awaited, by when it has to be there.
    awaited: BTreeMap<Key, Arc<Link>>,
    next: u64,
    /// When the thread looks again without being told to.
    wakes_at: Option<Instant>,
    is_over: bool,
}

/// A deadline, told from others by a number.
type Key = (Instant, u64);

impl Watchdog {
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let watching = Arc::clone(&shared);
        thread::Builder::new()
            .name("db-watch".to_owned())
            .spawn(move || watching.run())?;
        Ok(Arc::new(Watchdog { shared }))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.state.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Has something cut when its time is over; `None` where that is too far away to be told.
    fn wait(&self, limit: Duration, link: Arc<Link>) -> Option<Key> {
        let deadline = Instant::now().checked_add(limit)?;
        let mut state = self.state.lock();
        let key = (deadline, state.next);
        state.next += 1;
        state.awaited.insert(key, link);
        // As limits are much alike, the thread is rarely woken: once it sleeps until the first of them, others come later.
        if state.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            state.wakes_at = Some(deadline);
            self.changed.notify_one();
        }
        Some(key)
    }

    /// `false` if the time was over.
    fn wait_no_more(&self, key: Key) -> bool {
        self.state.lock().awaited.remove(&key).is_some()
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.is_over {
            let now = Instant::now();
            // Cut under the lock: who finds that it was not is safe from it.
            while let Some(first) = state.awaited.first_entry()
                && first.key().0 <= now
            {
                first.remove().cut();
            }
            state.wakes_at = state.awaited.keys().next().map(|(deadline, _)| *deadline);
            match state.wakes_at {
                Some(deadline) => {
                    self.changed.wait_until(&mut state, deadline);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// A connection that can be cut.
#[derive(Debug)]
pub(crate) struct WatchedConnection {
    wait: Arc<Wait>,
    limit: Duration,
}

/// The wait for an answer, which may be interrupted.
#[derive(Debug)]
struct Wait {
    watch: Arc<Watchdog>,
    link: Arc<Link>,
    /// By when the answer has to be there, and how long that was from the beginning.
    awaited: Mutex<Option<(Key, Duration)>>,
}

thread_local! {
    /// The last wait that began on this thread.
    static LAST: RefCell<Weak<Wait>> = const { RefCell::new(Weak::new()) };
}

/// Does `work` in the middle of an answer, whose next part is not waited for meanwhile, and has as long as the first when it ends.
pub(crate) fn paused<R>(work: impl FnOnce() -> R) -> R {
    let last = LAST.try_with(|last| last.borrow().upgrade());
    let wait = last
        .ok()
        .flatten()
        .and_then(|wait| Some((wait.pause()?, wait)));
    let result = work();
    if let Some((limit, wait)) = wait {
        wait.begin(limit);
        // There may have been others on this thread.
        remember(&wait);
    }
    result
}

/// A thread that is ending remembers nothing, and may still give its connections back.
fn remember(wait: &Arc<Wait>) {
    let _ = LAST.try_with(|last| last.replace(Arc::downgrade(wait)));
}

impl Wait {
    fn begin(&self, limit: Duration) {
        let key = self.watch.shared.wait(limit, Arc::clone(&self.link));
        *self.awaited.lock() = key.map(|key| (key, limit));
    }

    /// Waits no more; `true` if the time was over and the connection was cut.
    fn end(&self) -> bool {
        let awaited = self.awaited.lock().take();
        awaited.is_some_and(|(key, _)| !self.watch.shared.wait_no_more(key))
    }

    /// Ends the wait for now and tells its limit; `None` where there is none, or where it has ended already.
    fn pause(&self) -> Option<Duration> {
        let mut awaited = self.awaited.lock();
        let (key, limit) = (*awaited)?;
        self.watch.shared.wait_no_more(key).then(|| {
            *awaited = None;
            limit
        })
    }
}

impl WatchedConnection {
    /// A connection whose server has so long to answer.
    pub(crate) fn new(watch: Arc<Watchdog>, link: Arc<Link>, limit: Duration) -> Self {
        WatchedConnection {
            limit,
            wait: Arc::new(Wait {
                watch,
                link,
                awaited: Mutex::new(None),
            }),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// From now on an answer is awaited.
    pub(crate) fn begin(&mut self) {
        self.end();
        self.wait.begin(self.limit);
        remember(&self.wait);
    }

    /// Whether an answer is awaited, or was and the connection was cut.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wait.awaited.lock().is_some()
    }

    /// Ends the connection at once.
    pub(crate) fn cut(&self) {
        self.wait.link.cut();
    }

    /// No answer is awaited any more; `true` if the time was over and the connection was cut.
    pub(crate) fn end(&mut self) -> bool {
        self.wait.end()
    }
}

impl Drop for WatchedConnection {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A link, and the driver's end of it.
    fn pair() -> (TcpStream, Arc<Link>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = connect();
        let driver = listener.accept().unwrap().0;
        (near, Arc::new(Link::of(driver, connect())))
    }

    #[test]
    fn only_the_connection_past_its_deadline_is_closed() {
        let watch = Watchdog::start().unwrap();
        let (mut silent, silent_link) = pair();
        let (_patient, patient_link) = pair();
        let watched = |link: &Arc<Link>, limit| {
            WatchedConnection::new(Arc::clone(&watch), Arc::clone(link), limit)
        };
        let (mut first, mut second) = (
            watched(&silent_link, Duration::from_millis(1)),
            watched(&patient_link, MINUTE),
        );
        second.begin();
        first.begin();
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "the wait ends");
        assert!(first.end());
        assert!(!second.end());
        assert!(!first.end(), "told once");
    }

    #[test]
    fn answered_statement_has_no_deadline() {
        let watch = Watchdog::start().unwrap();
        let (_near, link) = pair();
        let mut answered = WatchedConnection::new(Arc::clone(&watch), link, MINUTE);
        answered.begin();
        assert_eq!(watch.shared.state.lock().awaited.len(), 1);
        assert!(!answered.end());
        assert!(watch.shared.state.lock().awaited.is_empty());
    }

    #[test]
    fn pause_does_not_count_toward_the_deadline() {
        let watch = Watchdog::start().unwrap();
        let ((_near, link), (mut silent, silent_link)) = (pair(), pair());
        let mut watched = WatchedConnection::new(Arc::clone(&watch), link, MINUTE);
        let limit = Duration::from_millis(1);
        let mut witness = WatchedConnection::new(Arc::clone(&watch), silent_link, limit);
        watched.begin();
        paused(|| {
            assert!(watch.shared.state.lock().awaited.is_empty());
            witness.begin();
            assert_eq!(silent.read(&mut [0]).unwrap(), 0);
        });
        assert_eq!(watch.shared.state.lock().awaited.len(), 1, "and then again");
        assert!(!watched.end());
        paused(|| ());
        assert!(watch.shared.state.lock().awaited.is_empty());
    }

    #[test]
    fn thread_ends_with_the_last_connection() {
        let watch = Watchdog::start().unwrap();
        let shared = Arc::downgrade(&watch.shared);
        let (_near, link) = pair();
        let watched = WatchedConnection::new(watch, link, MINUTE);
        assert!(shared.upgrade().is_some());
        drop(watched);
        while shared.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
