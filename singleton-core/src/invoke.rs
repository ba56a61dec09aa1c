//! Calls of user code, and their outcomes. The engine's lock is never held here.

mod background;
mod calls;
mod driver;
mod worker_pool;

pub(crate) use background::start_background;
pub use calls::Setup;
pub(crate) use calls::{
    Step, allow_degraded, check_cancelled, check_failed, check_timed_out, ensure_setup,
    not_provided, run_check, shut_down_instance, shut_down_instance_async, shut_down_late,
    step_failed, step_panicked, step_result,
};
pub(crate) use driver::{Driver, off_thread};
pub(crate) use worker_pool::{JobResult, WorkerPool};
