//! Lets a limited number of callers through, in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A fair counting semaphore with a deadline.
///
/// r2d2 lets newcomers overtake waiters, and wakes nobody when it discards a connection. Behind this
/// gate whoever asks r2d2 finds a connection idle or room for another one, so neither can happen.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug, Default)]
struct Waiter {
    granted: Mutex<bool>,
    changed: Condvar,
}

/// The right to hold one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
}

impl Gate {
    pub(crate) fn new(permits: usize) -> Arc<Self> {
        Arc::new(Gate {
            state: Mutex::new(State {
                free: permits,
                waiting: VecDeque::new(),
            }),
        })
    }

    /// Waits for a permit until `deadline`.
    pub(crate) fn acquire(self: &Arc<Self>, deadline: Instant) -> Option<Permit> {
        let waiter = {
            let mut state = self.state.lock();
            if state.free > 0 {
                state.free -= 1;
                return Some(self.permit());
            }
            let waiter = Arc::new(Waiter::default());
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        let mut granted = waiter.granted.lock();
        while !*granted {
            if waiter
                .changed
                .wait_until(&mut granted, deadline)
                .timed_out()
            {
                break;
            }
        }
        drop(granted);
        // Only under this lock is it certain whether somebody has granted the permit in the last moment.
        let mut state = self.state.lock();
        match state
            .waiting
            .iter()
            .position(|other| Arc::ptr_eq(other, &waiter))
        {
            Some(position) => {
                state.waiting.remove(position);
                None
            }
            None => Some(self.permit()),
        }
    }

    fn permit(self: &Arc<Self>) -> Permit {
        Permit {
            gate: Arc::clone(self),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        match state.waiting.pop_front() {
            Some(next) => {
                *next.granted.lock() = true;
                next.changed.notify_one();
            }
            None => state.free += 1,
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
    fn permits_run_out_and_come_back() {
        let gate = Gate::new(2);
        let first = gate.acquire(Instant::now());
        let second = gate.acquire(Instant::now());
        assert!(first.is_some() && second.is_some());
        assert!(gate.acquire(Instant::now() + SOON).is_none());
        assert!(
            gate.state.lock().waiting.is_empty(),
            "who gave up does not wait"
        );
        drop(first);
        assert!(gate.acquire(Instant::now()).is_some());
    }

    #[test]
    fn waiters_are_served_in_order() {
        let gate = Gate::new(1);
        let held = gate.acquire(Instant::now());
        let (served, order) = mpsc::channel();
        let waiters: Vec<_> = (0..8)
            .map(|number| {
                let (waiter_gate, served) = (Arc::clone(&gate), served.clone());
                let waiter = thread::spawn(move || {
                    let permit = waiter_gate.acquire(Instant::now() + LATE);
                    served.send((number, permit)).unwrap();
                });
                while gate.state.lock().waiting.len() <= number {
                    thread::yield_now();
                }
                waiter
            })
            .collect();
        drop(held);
        for expected in 0..8 {
            let (number, permit) = order.recv().unwrap();
            assert_eq!(number, expected);
            assert!(permit.is_some());
        }
        waiters
            .into_iter()
            .for_each(|waiter| waiter.join().unwrap());
    }
}
