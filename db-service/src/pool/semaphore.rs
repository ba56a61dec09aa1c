//! A fair counting semaphore: callers acquire permits in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A fair counting semaphore with a deadline.
///
/// r2d2 serves new callers before waiting ones, and wakes no waiter when it discards a connection. With a permit of
/// this semaphore, a caller always finds an idle connection or room for a new one in r2d2, so neither matters.
#[derive(Debug)]
pub(crate) struct FairSemaphore {
    permits: usize,
    state: Mutex<State>,
    /// Notified when a closed semaphore has all its permits.
    drained: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    is_closed: bool,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Waiter {
    answer: Mutex<Option<Answer>>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answer {
    Granted,
    Closed,
}

/// The reason why no permit was acquired.
#[derive(Debug, PartialEq)]
pub(crate) enum AcquireError {
    TimedOut,
    Closed,
}

/// The right to hold one connection. Dropping it returns the permit.
#[derive(Debug)]
pub(crate) struct Permit {
    semaphore: Arc<FairSemaphore>,
}

impl FairSemaphore {
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(FairSemaphore {
            permits,
            state: Mutex::new(State {
                free: permits,
                is_closed: false,
                waiting: VecDeque::new(),
            }),
            drained: Condvar::new(),
        })
    }

    /// Returns the number of acquired permits and the number of waiting callers.
    pub(crate) fn load(&self) -> (usize, usize) {
        let state = self.state.lock();
        (self.permits - state.free, state.waiting.len())
    }

    /// Closes the semaphore: waiting and later callers get [`AcquireError::Closed`].
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        for waiter in state.waiting.drain(..) {
            *waiter.answer.lock() = Some(Answer::Closed);
            waiter.changed.notify_one();
        }
    }

    /// Waits until all permits are returned, or until `deadline`. Returns the number of permits that are not returned.
    pub(crate) fn drain(&self, deadline: Instant) -> usize {
        let mut state = self.state.lock();
        while state.free < self.permits {
            if self.drained.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        self.permits - state.free
    }

    /// Waits for a permit until `deadline`.
    pub(crate) fn acquire(self: &Arc<Self>, deadline: Instant) -> Result<Permit, AcquireError> {
        let waiter = {
            let mut state = self.state.lock();
            if state.is_closed {
                return Err(AcquireError::Closed);
            }
            if state.free > 0 {
                state.free -= 1;
                return Ok(self.permit());
            }
            let waiter = Arc::new(Waiter::default());
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        let mut answer = waiter.answer.lock();
        while answer.is_none() {
            let waited = waiter.changed.wait_until(&mut answer, deadline);
            if waited.timed_out() {
                break;
            }
        }
        drop(answer);
        // The permit can arrive at the last moment; only under this lock the result is final.
        let mut state = self.state.lock();
        let answer = *waiter.answer.lock();
        match answer {
            Some(Answer::Granted) => Ok(self.permit()),
            Some(Answer::Closed) => Err(AcquireError::Closed),
            None => {
                state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                Err(AcquireError::TimedOut)
            }
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            semaphore: Arc::clone(self),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.semaphore.state.lock();
        match state.waiting.pop_front() {
            Some(next) => {
                *next.answer.lock() = Some(Answer::Granted);
                next.changed.notify_one();
            }
            None => {
                state.free += 1;
                self.semaphore.drained.notify_all();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);
    const LATE: Duration = Duration::from_secs(60);

    #[test]
    fn permits_are_limited_and_reusable() {
        let semaphore = FairSemaphore::new(2);
        let first = semaphore.acquire(Instant::now());
        let second = semaphore.acquire(Instant::now());
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(
            semaphore.acquire(Instant::now() + SOON).err(),
            Some(AcquireError::TimedOut)
        );
        assert!(
            semaphore.state.lock().waiting.is_empty(),
            "who gave up does not wait"
        );
        drop(first);
        assert!(semaphore.acquire(Instant::now()).is_ok());
    }

    #[test]
    fn waiters_acquire_in_fifo_order() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire(Instant::now());
        let (served, order) = mpsc::channel();
        let waiters: Vec<_> = (0..8)
            .map(|number| {
                let (waiter_semaphore, served) = (Arc::clone(&semaphore), served.clone());
                let waiter = thread::spawn(move || {
                    let permit = waiter_semaphore.acquire(Instant::now() + LATE);
                    served.send((number, permit)).unwrap();
                });
                while semaphore.state.lock().waiting.len() <= number {
                    thread::yield_now();
                }
                waiter
            })
            .collect();
        drop(held);
        for expected in 0..8 {
            let (number, permit) = order.recv().unwrap();
            assert_eq!(number, expected);
            assert!(permit.is_ok());
        }
        waiters
            .into_iter()
            .for_each(|waiter| waiter.join().unwrap());
    }

    #[test]
    fn close_wakes_waiters_and_waits_for_all_permits() {
        let semaphore = FairSemaphore::new(1);
        let held = semaphore.acquire(Instant::now()).unwrap();
        let waiting = {
            let semaphore = Arc::clone(&semaphore);
            thread::spawn(move || {
                semaphore
                    .acquire(Instant::now() + Duration::from_secs(60))
                    .err()
            })
        };
        while semaphore.load() != (1, 1) {
            thread::yield_now();
        }
        semaphore.close();
        assert_eq!(waiting.join().unwrap(), Some(AcquireError::Closed));
        assert_eq!(
            semaphore.acquire(Instant::now()).err(),
            Some(AcquireError::Closed)
        );
        assert_eq!(semaphore.drain(Instant::now() + SOON), 1);
        let draining = {
            let semaphore = Arc::clone(&semaphore);
            thread::spawn(move || semaphore.drain(Instant::now() + Duration::from_secs(60)))
        };
        drop(held);
        assert_eq!(draining.join().unwrap(), 0);
    }
}
