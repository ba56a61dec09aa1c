//! The fast path: the pointer that a `#[guarded]` call loads, and the crate's only `unsafe`.

#![allow(
    unsafe_code,
    reason = "dereferences a pointer that always comes from a `&'static T`"
)]

use std::ptr;

use super::descriptor::Visibility;
use crate::sync::{AtomicPtr, Ordering};

/// The process's instance of a service, for guarded calls.
///
/// Calls load `published` first. While a [`Scope`](crate::testing::Scope) is open anywhere, it is null for all
/// services, and each call first looks up the scope of its thread; outside scopes, it then loads `process`. So the
/// pointers must be resettable, which a `OnceLock` is not.
#[derive(Debug)]
pub struct Ready<T> {
    published: AtomicPtr<T>,
    process: AtomicPtr<T>,
}

impl<T> Ready<T> {
    /// Creates null pointers.
    #[allow(clippy::new_without_default, reason = "statics need a const fn")]
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Ready {
            published: AtomicPtr::new(ptr::null_mut()),
            process: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Creates null pointers. loom's atomics have no `const` constructor.
    #[cfg(loom)]
    #[allow(clippy::new_without_default, reason = "as above")]
    pub fn new() -> Self {
        Ready {
            published: AtomicPtr::new(ptr::null_mut()),
            process: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

impl<T: Sync + 'static> Ready<T> {
    /// Returns the process's instance if no scope is open. `None` means that the call must look further.
    #[inline(always)]
    pub(crate) fn get(&self) -> Option<&'static T> {
        Self::load(&self.published)
    }

    /// Returns the process's instance, for a thread outside scopes. `None` sends the call to the slow path.
    #[inline(always)]
    pub(crate) fn of_process(&self) -> Option<&'static T> {
        Self::load(&self.process)
    }

    #[inline(always)]
    fn load(pointer: &AtomicPtr<T>) -> Option<&'static T> {
        // Acquire pairs with the Release in `set`: a thread that sees the pointer sees what `initialize` wrote.
        let instance = pointer.load(Ordering::Acquire);
        // SAFETY: only `set` writes the pointers. It stores null or a `&'static T`, which stays valid
        // and is never mutably aliased. `T: Sync` allows sharing it between threads.
        unsafe { instance.as_ref() }
    }

    /// Publishes the instance. `None` sends calls to the slow path.
    pub(crate) fn set(&self, instance: Option<&'static T>, visibility: Visibility) {
        let pointer = |is_visible: bool| {
            let instance = instance.filter(|_| is_visible);
            instance.map_or(ptr::null_mut(), |instance| {
                ptr::from_ref(instance).cast_mut()
            })
        };
        let outside_scopes = visibility != Visibility::Hidden;
        self.process
            .store(pointer(outside_scopes), Ordering::Release);
        let everywhere = visibility == Visibility::Everywhere;
        self.published.store(pointer(everywhere), Ordering::Release);
    }
}
