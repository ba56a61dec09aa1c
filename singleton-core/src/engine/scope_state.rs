//! The state that the threads of one scope share without the engine's lock: the ready instances, and the number of
//! threads inside.

use std::sync::OnceLock;

use super::state;
use crate::service::{Descriptor, Instance};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// The part of a scope that its threads read on each call.
pub(crate) struct ScopeState {
    ready: ReadyTable,
    /// Twice the number of threads inside, plus 1 if the scope has ended. In one word, so that each change sees all
    /// earlier ones: a thread in an ended scope never finds the process's instances.
    inside: AtomicUsize,
    /// Whether guarded calls everywhere must look for their scope because of this one: it is open, or a thread was left
    /// behind in it. Changed under the engine's lock.
    hides: AtomicBool,
}

const ENDED: usize = 1;
const THREAD: usize = 2;

impl ScopeState {
    /// Creates the state of an open scope.
    pub(super) fn new() -> Self {
        ScopeState {
            ready: ReadyTable::default(),
            inside: AtomicUsize::new(0),
            hides: AtomicBool::new(true),
        }
    }

    /// Returns the service's instance if it is ready in the scope.
    pub(crate) fn ready(&self, service: &Descriptor) -> Option<&'static dyn Instance> {
        self.ready.get(service)
    }

    /// Makes the instance ready, or with `None` unready. The engine must be locked.
    pub(super) fn set_ready(&self, service: &Descriptor, instance: Option<&'static dyn Instance>) {
        self.ready.set(service, instance);
    }

    /// Counts a thread in. Takes no lock, unless the scope has ended.
    pub(super) fn enter(&self) {
        if self.inside.fetch_add(THREAD, Ordering::AcqRel) & ENDED != 0 {
            state::lock().update_hiding(self);
        }
    }

    /// Counts a thread out.
    pub(super) fn leave(&self) {
        if self.inside.fetch_sub(THREAD, Ordering::AcqRel) == THREAD | ENDED {
            state::lock().update_hiding(self);
        }
    }

    /// Marks the scope as ended. The engine must be locked.
    pub(super) fn end(&self) {
        self.inside.fetch_or(ENDED, Ordering::AcqRel);
    }

    /// Returns the change of [`hides`](ScopeState::hides) that is due, and makes it. The engine must be locked.
    pub(super) fn take_hiding_change(&self) -> Option<bool> {
        let hides = self.inside.load(Ordering::Acquire) != ENDED;
        (self.hides.swap(hides, Ordering::Relaxed) != hides).then_some(hides)
    }
}

/// The size of the first bucket. Each further one is twice as large.
const FIRST_BUCKET: usize = 32;
/// Enough for 2^36 services.
const BUCKETS: usize = 32;

/// The ready instances by the services' numbers. Buckets never move, so that readers need no lock.
#[derive(Default)]
struct ReadyTable {
    buckets: [OnceLock<Box<[Cell]>>; BUCKETS],
}

#[derive(Default)]
struct Cell {
    instance: OnceLock<&'static dyn Instance>,
    is_ready: AtomicBool,
    /// Another instance of the service, which a failed start had shut down.
    next: OnceLock<Box<Cell>>,
}

impl Cell {
    fn last(&self) -> &Cell {
        let mut cell = self;
        while let Some(next) = cell.next.get() {
            cell = next;
        }
        cell
    }
}

impl ReadyTable {
    fn get(&self, service: &Descriptor) -> Option<&'static dyn Instance> {
        let (bucket, position, _) = place(service.number.get());
        let cell = self.buckets[bucket].get()?[position].last();
        // Acquire pairs with the Release in `set`, as in `Ready`.
        let is_ready = cell.is_ready.load(Ordering::Acquire);
        cell.instance.get().copied().filter(|_| is_ready)
    }

    fn set(&self, service: &Descriptor, instance: Option<&'static dyn Instance>) {
        let (bucket, position, size) = place(service.number.get());
        let Some(instance) = instance else {
            if let Some(bucket) = self.buckets[bucket].get() {
                let cell = bucket[position].last();
                cell.is_ready.store(false, Ordering::Release);
            }
            return;
        };
        let bucket =
            self.buckets[bucket].get_or_init(|| (0..size).map(|_| Cell::default()).collect());
        let mut cell = bucket[position].last();
        if cell.instance.set(instance).is_err() {
            let another = Box::new(Cell::default());
            // Set only here, under the engine's lock.
            let _ = another.instance.set(instance);
            cell = cell.next.get_or_init(|| another);
        }
        cell.is_ready.store(true, Ordering::Release);
    }
}

/// Returns the bucket of a number, the position in it, and the bucket's size.
fn place(number: usize) -> (usize, usize, usize) {
    let shifted = number + FIRST_BUCKET;
    let exponent = shifted.ilog2();
    let size = 1 << exponent;
    let bucket = exponent - FIRST_BUCKET.ilog2();
    (bucket as usize, shifted - size, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_has_its_own_place_inside_its_bucket() {
        let mut places = std::collections::HashSet::new();
        for number in 0..10_000 {
            let (bucket, position, size) = place(number);
            assert!(position < size);
            assert!(places.insert((bucket, position)), "{number}");
        }
        assert_eq!(place(0), (0, 0, 32));
        assert_eq!(place(31), (0, 31, 32));
        assert_eq!(place(32), (1, 0, 64));
    }
}
