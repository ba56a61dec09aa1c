//! The fast path: the pointer that a `#[guarded]` call loads, and the crate's only `unsafe`.

#![allow(
    unsafe_code,
    reason = "dereferences a pointer that always comes from a `&'static T`"
)]

use std::ptr;

use crate::sync::{AtomicPtr, Ordering};

/// The pointer to a service's instance that a guarded call loads. Null sends the call to the slow path.
///
/// Null does not mean uninitialized. While a [`Scope`](crate::testing::Scope) is open anywhere, all
/// pointers are null, so each guarded call looks up the scope of its thread. So the pointer must be resettable, which a `OnceLock` is not.
#[derive(Debug)]
pub struct Ready<T> {
    instance: AtomicPtr<T>,
}

impl<T> Ready<T> {
    /// Creates a null pointer.
    #[allow(clippy::new_without_default, reason = "statics need a const fn")]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Ready {
            instance: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Creates a null pointer. loom's atomics have no `const` constructor.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Ready {
            instance: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T: Sync + 'static> Ready<T> {
    /// Returns the instance, or `None` if the call must take the slow path.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire pairs with the Release in `set`: a thread that sees the pointer sees what `initialize` wrote.
        let instance = self.instance.load(Ordering::Acquire);
        // SAFETY: only `set` writes the pointer. It stores null or a `&'static T`, which stays valid
        // and is never mutably aliased. `T: Sync` allows sharing it between threads.
        unsafe { instance.as_ref() }
    }

    /// Publishes the instance. `None` sends calls to the slow path.
    pub(crate) fn set(&self, instance: Option<&'static T>) {
        let pointer = instance.map_or(ptr::null_mut(), |instance| {
            ptr::from_ref(instance).cast_mut()
        });
        self.instance.store(pointer, Ordering::Release);
    }
}
