//! A watchdog that closes connections whose server does not answer in time.
//!
//! Nothing else detects a stopped server: its kernel still acknowledges packets, so no TCP timeout expires, and libpq
//! waits without a timeout.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::relay::Link;

/// A thread that closes sockets at their deadlines. It ends with the last connection that uses it.
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
    /// The pending answers by deadline.
    pending: BTreeMap<Key, Arc<Link>>,
    next: u64,
    /// The time at which the thread wakes without a notification.
    wakes_at: Option<Instant>,
    end_statement: bool,
}

/// A deadline, with a number that makes it unique.
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
        self.shared.state.lock().end_statement = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    /// Adds a deadline after which the link is closed. Returns `None` if the deadline overflows.
    fn wait(&self, limit: Duration, link: Arc<Link>) -> Option<Key> {
        let deadline = Instant::now().checked_add(limit)?;
        let mut state = self.state.lock();
        let key = (deadline, state.next);
        state.next += 1;
        state.pending.insert(key, link);
        // Most timeouts are equal, so later deadlines come after the one that the thread sleeps until, and it is rarely
        // woken.
        if state.wakes_at.is_none_or(|wakes_at| deadline < wakes_at) {
            state.wakes_at = Some(deadline);
            self.changed.notify_one();
        }
        Some(key)
    }

    /// Removes a deadline. Returns `false` if it has passed.
    fn remove_deadline(&self, key: Key) -> bool {
        self.state.lock().pending.remove(&key).is_some()
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.end_statement {
            let now = Instant::now();
            // Closed under the lock, so a caller that removes its deadline in time knows that the link stays open.
            while let Some(first) = state.pending.first_entry()
                && first.key().0 <= now
            {
                first.remove().cut();
            }
            state.wakes_at = state.pending.keys().next().map(|(deadline, _)| *deadline);
            match state.wakes_at {
                Some(deadline) => {
                    self.changed.wait_until(&mut state, deadline);
                }
                None => self.changed.wait(&mut state),
            }
        }
    }
}

/// A connection with a timeout for answers.
#[derive(Debug)]
pub(crate) struct WatchedConnection {
    wait: Arc<Wait>,
    limit: Duration,
}

/// The wait for an answer, which can be paused.
#[derive(Debug)]
struct Wait {
    watch: Arc<Watchdog>,
    link: Arc<Link>,
    /// The deadline of the answer, and the timeout that it was made from.
    pending: Mutex<Option<(Key, Duration)>>,
}

/// The timeout of a connection's answers, for code that runs in the middle of a statement. Empty without
/// `DB_SOCKET_TIMEOUT`.
#[derive(Debug, Clone, Default)]
pub(crate) struct AnswerTimeout(Option<Arc<Wait>>);

impl AnswerTimeout {
    /// Runs `work` with the answer timeout paused. The timeout starts again, at its full length, when `work` returns.
    pub(crate) fn paused<R>(&self, work: impl FnOnce() -> R) -> R {
        let paused = self.0.as_ref().and_then(|wait| Some((wait.pause()?, wait)));
        let result = work();
        if let Some((limit, wait)) = paused {
            wait.begin(limit);
        }
        result
    }
}

impl Wait {
    fn begin(&self, limit: Duration) {
        let key = self.watch.shared.wait(limit, Arc::clone(&self.link));
        *self.pending.lock() = key.map(|key| (key, limit));
    }

    /// Ends the wait. Returns `true` if the deadline has passed and the connection was closed.
    fn end(&self) -> bool {
        let pending = self.pending.lock().take();
        pending.is_some_and(|(key, _)| !self.watch.shared.remove_deadline(key))
    }

    /// Pauses the wait and returns its timeout. Returns `None` without a wait, or after its end.
    fn pause(&self) -> Option<Duration> {
        let mut pending = self.pending.lock();
        let (key, limit) = (*pending)?;
        self.watch.shared.remove_deadline(key).then(|| {
            *pending = None;
            limit
        })
    }
}

impl WatchedConnection {
    /// Creates a connection with a timeout for answers.
    pub(crate) fn new(watch: Arc<Watchdog>, link: Arc<Link>, limit: Duration) -> Self {
        WatchedConnection {
            limit,
            wait: Arc::new(Wait {
                watch,
                link,
                pending: Mutex::new(None),
            }),
        }
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Starts the timeout of an answer.
    pub(crate) fn begin(&mut self) {
        self.end();
        self.wait.begin(self.limit);
    }

    /// Returns the timeout, for code that runs in the middle of a statement.
    pub(crate) fn answer_timeout(&self) -> AnswerTimeout {
        AnswerTimeout(Some(Arc::clone(&self.wait)))
    }

    /// Returns whether an answer is pending, or was pending when the connection was closed.
    pub(crate) fn is_waiting(&self) -> bool {
        self.wait.pending.lock().is_some()
    }

    /// Closes the connection at once.
    pub(crate) fn cut(&self) {
        self.wait.link.cut();
    }

    /// Ends the timeout of an answer. Returns `true` if the deadline has passed and the connection was closed.
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

    /// Returns a link and the driver's end of it.
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
        assert_eq!(watch.shared.state.lock().pending.len(), 1);
        assert!(!answered.end());
        assert!(watch.shared.state.lock().pending.is_empty());
    }

    #[test]
    fn pause_does_not_count_toward_the_deadline() {
        let watch = Watchdog::start().unwrap();
        let ((_near, link), (mut silent, silent_link)) = (pair(), pair());
        let mut watched = WatchedConnection::new(Arc::clone(&watch), link, MINUTE);
        let limit = Duration::from_millis(1);
        let mut witness = WatchedConnection::new(Arc::clone(&watch), silent_link, limit);
        watched.begin();
        let answer = watched.answer_timeout();
        answer.paused(|| {
            assert!(watch.shared.state.lock().pending.is_empty());
            witness.begin();
            assert_eq!(silent.read(&mut [0]).unwrap(), 0);
        });
        assert_eq!(watch.shared.state.lock().pending.len(), 1, "and then again");
        assert!(!watched.end());
        answer.paused(|| ());
        assert!(watch.shared.state.lock().pending.is_empty());
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
