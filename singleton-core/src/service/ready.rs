//! The fast path: the pointer that a guarded call loads, and the crate's only `unsafe`.

#![allow(
    unsafe_code,
    reason = "dereferences a pointer that only ever comes from a `&'static T`"
)]

use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// Where guarded calls find a service's instance: null sends them the long way round.
///
/// Null does not mean uninitialised. While a [`Scope`](crate::testing::Scope) is open anywhere the
/// pointers of all services are null, so that every call asks which scope it is in. That is why this
/// is no `OnceLock`: it must be possible to take the instance away again.
#[derive(Debug)]
pub struct Ready<T> {
    instance: AtomicPtr<T>,
}

impl<T> Ready<T> {
    /// Makes one that sends calls the long way round.
    #[allow(clippy::new_without_default, reason = "statics need a const fn")]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Ready {
            instance: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The same; the model checker's atomics cannot be made in a constant.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Ready {
            instance: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T: Sync + 'static> Ready<T> {
    /// Returns the instance unless calls have to go the long way round.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire pairs with the Release in `set`: who sees the pointer sees what `initialize` wrote.
        let instance = self.instance.load(Ordering::Acquire);
        // SAFETY: `set` is the only writer, and it stores null or a `&'static T`, which stays valid
        // and is never mutably aliased. Sharing it between threads is what `T: Sync` allows.
        unsafe { instance.as_ref() }
    }

    /// Publishes the instance, or with `None` sends calls the long way round.
    pub(crate) fn set(&self, instance: Option<&'static T>) {
        let pointer = instance.map_or(ptr::null_mut(), |instance| {
            ptr::from_ref(instance).cast_mut()
        });
        self.instance.store(pointer, Ordering::Release);
    }
}
