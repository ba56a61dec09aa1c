//! The state of all services: all containers, behind one lock that guarded calls of ready services never take.
//!
//! A container is a set of instances: the process's, or those of one test scope. No user code runs while the lock is
//! held: no `initialize`, no logger, no waker, no destructor of a service.

mod attempt;
mod container;
mod current;
mod state;
mod supervision;

pub(crate) use attempt::{Attempt, Outcome, Timing};
pub(crate) use container::{Cast, Container, ContainerId, Provided, ServiceMap, Slot};
pub(crate) use current::{
    AttemptGuard, InAttempt, InContainer, ShutdownGuard, current_attempt, current_container, enter,
    is_shutting_down,
};
pub(crate) use state::{Engine, lock};
pub(crate) use supervision::{
    CheckClaim, CheckResult, HealthCheck, RECOVERY_TIME, RunHistory, Supervision,
};
