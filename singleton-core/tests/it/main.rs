//! What users of `singleton-core` rely on, one module a topic.
#![forbid(unsafe_code)]

mod compile_fail;
mod concurrency;
mod cycles;
mod failures;
mod guarded;
mod log_capture;
mod registry;
mod scope;
