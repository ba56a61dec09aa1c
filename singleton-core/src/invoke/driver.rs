//! Polling of futures whose results a blocking thread needs.

use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::engine::{Context, InContext};
use crate::sync::{Mutex, lock};
use crate::threads;

/// Polls futures on behalf of threads.
#[derive(Clone)]
pub(crate) enum Driver {
    /// The thread polls the future itself.
    Here,
    /// A task polls the future, so that the future finds its executor.
    Task(mpsc::UnboundedSender<BoxFuture<'static, ()>>),
}

impl Driver {
    /// Returns whether the task that polls the futures is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Driver::Task(futures) if futures.is_closed())
    }

    /// Blocks until the future is ready. Returns `None` if the task that polls it is gone.
    pub(crate) fn block_on<R: Send + 'static>(
        &self,
        future: impl Future<Output = R> + Send + 'static,
    ) -> Option<R> {
        match self {
            Driver::Here => Some(pollster::block_on(future)),
            Driver::Task(futures) => {
                let (result, received) = oneshot::channel();
                let future = InContext::new(Context::current(), future);
                let work = async move {
                    // The receiver may be gone.
                    let _ = result.send(future.await);
                };
                if let Err(unsent) = futures.unbounded_send(Box::pin(work)) {
                    // The task was cancelled, but a shutdown must still run to its end.
                    pollster::block_on(unsent.into_inner());
                }
                pollster::block_on(received).ok()
            }
        }
    }
}

/// Runs blocking `work` on a thread, in the caller's container. The calling task polls the futures that `work` passes
/// to its driver.
///
/// If the system cannot start a thread, the task runs `work` itself and blocks its executor.
pub(crate) async fn off_thread<R: Send + 'static>(
    work: impl FnOnce(&Driver) -> R + Send + 'static,
) -> R {
    let context = Context::current();
    let (sender, mut submitted) = mpsc::unbounded();
    let (result, mut received) = oneshot::channel();
    // In a shared cell, because a failed `spawn` drops its closure and `work` must survive that.
    let work = Arc::new(Mutex::new(Some(work)));
    let thread_work = Arc::clone(&work);
    let spawned = threads::spawn("singleton-core", move || {
        let Some(work) = lock(&thread_work).take() else {
            return;
        };
        let _context = context.enter();
        let driver = Driver::Task(sender);
        // The receiver is gone if the task was cancelled.
        let _ = result.send(panic::catch_unwind(AssertUnwindSafe(|| work(&driver))));
    });
    if spawned.is_err() {
        let thread_work = lock(&work).take();
        if let Some(work) = thread_work {
            return work(&Driver::Here);
        }
    }
    let mut running = FuturesUnordered::new();
    let done = future::poll_fn(|context| {
        while let Poll::Ready(Some(future)) = submitted.poll_next_unpin(context) {
            running.push(future);
        }
        while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
        Pin::new(&mut received).poll(context)
    });
    match done.await {
        Ok(Ok(value)) => value,
        Ok(Err(payload)) => panic::resume_unwind(payload),
        // Unreachable while the thread holds the sender, which it drops only after sending the result.
        Err(_) => panic::resume_unwind(Box::new("the thread has gone without a result")),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn task_runs_the_work_if_no_thread_can_be_spawned() {
        let caller = thread::current().id();
        let done = threads::faults::with(Arc::new(|_: &str| true), || {
            pollster::block_on(off_thread(move |driver| {
                let awaited = driver.block_on(async { 7 });
                (awaited, thread::current().id() == caller)
            }))
        });
        assert_eq!(done, (Some(7), true));
    }
}
