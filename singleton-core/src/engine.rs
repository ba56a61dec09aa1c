//! The state of all services: all realms, behind one lock that guarded calls of ready services never take.
//!
//! A realm is a set of instances: the process's own, or those of one test scope. No code of a user
//! runs while the lock is held: no `initialize`, no logger, no waker, no destructor of a service.

mod attempt;
mod container;
mod current;
mod state;
mod supervision;

pub(crate) use attempt::{Attempt, Outcome, Timing};
pub(crate) use container::{ByService, Cast, Provided, Realm, RealmId, Slot};
pub(crate) use current::{
    Inside, PartOf, Running, Stopping, current_realm, enter, innermost, is_stopping,
};
pub(crate) use state::{Engine, lock};
pub(crate) use supervision::{Check, Checked, Claim, Course, RECOVERED, Supervision};
