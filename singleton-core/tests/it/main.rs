//! The guarantees of `singleton-core`, one module per topic.
#![forbid(unsafe_code)]

mod asynchronous;
mod asynchronous_failures;
mod background;
mod cancelled;
mod compile_fail;
mod concurrency;
mod cycles;
mod failures;
mod gate;
mod graph;
mod guarded;
mod health;
mod late_instances;
mod log_capture;
mod policies;
mod provide;
mod registry;
mod same_path;
mod scope;
mod shutdown;
mod start;
mod unusual_code;
