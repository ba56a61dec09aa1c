//! What users of `singleton-core` rely on, one module a topic.
#![forbid(unsafe_code)]

mod asynchronous;
mod background;
mod compile_fail;
mod concurrency;
mod cycles;
mod failures;
mod graph;
mod guarded;
mod health;
mod hostile;
mod log_capture;
mod policies;
mod provide;
mod registry;
mod scope;
mod shutdown;
mod start;
