//! Shutting one instance down, by a thread or by a task.

use std::future;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;

use crate::context::{Stopping, contain, message};
use crate::descriptor::{Descriptor, Instance, Work};
use crate::driver::Driver;
use crate::watch;

/// Shuts one instance down.
pub(crate) fn stop(
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    driver: &Driver,
) -> Result<(), String> {
    let began = Instant::now();
    let stopped = match begin(service, instance) {
        Ok(Work::Done(result)) => Ok(result),
        work => driver
            .block_on(finish(work))
            .unwrap_or_else(|| Ok(Err(anyhow::anyhow!("the task that drove it was cancelled")))),
    };
    judge(service, began, stopped)
}

/// The same for a task.
pub(crate) async fn stop_later(
    service: &'static Descriptor,
    instance: &'static dyn Instance,
) -> Result<(), String> {
    let began = Instant::now();
    let stopped = finish(begin(service, instance)).await;
    judge(service, began, stopped)
}

fn begin(service: &Descriptor, instance: &'static dyn Instance) -> Result<Work<'static>, String> {
    let _ = contain(|| watch::stopping(service));
    let _stopping = Stopping::enter();
    contain(|| instance.shutdown())
}

async fn finish(work: Result<Work<'static>, String>) -> Result<anyhow::Result<()>, String> {
    match work? {
        Work::Done(result) => Ok(result),
        Work::Later(future) => {
            let mut future = AssertUnwindSafe(future).catch_unwind();
            let polled = future::poll_fn(|context| {
                let _stopping = Stopping::enter();
                future.poll_unpin(context)
            });
            polled.await.map_err(message)
        }
    }
}

fn judge(
    service: &Descriptor,
    began: Instant,
    stopped: Result<anyhow::Result<()>, String>,
) -> Result<(), String> {
    let result = match stopped {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(message) => Err(format!("panicked: {message}")),
    };
    let failure = result.as_ref().err().map(String::as_str);
    let _ = contain(|| watch::stopped(service, began.elapsed(), failure));
    result
}
