//! The state of all services: all containers, behind one lock that guarded calls of ready services never take.
//!
//! A container is a set of instances: the process's, or those of one test scope. No user code runs while the lock is
//! held: no `initialize`, no logger, no waker, no destructor of a service.

mod attempt;
mod container;
mod current;
mod scope_state;
mod start_run;
mod state;
mod supervision;

pub(crate) use attempt::{Attempt, Origin, Outcome, Timing};
pub(crate) use container::{Cast, Container, ContainerId, Provided, ServiceMap, Slot};
pub(crate) use current::{
    AttemptGuard, Context, InAttempt, InContext, OwnServiceGuard, current_attempt,
    current_container, is_shutting_down, own_instance, ready_in_scope,
};
pub(crate) use start_run::StartRun;
pub(crate) use state::{Engine, FinishedAttempt, lock};
pub(crate) use supervision::{
    CheckClaim, CheckResult, HealthCheck, RECOVERY_TIME, RunHistory, Supervision,
};
