//! Who polls a future that a thread of ours needs the result of.

use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::engine::{self, InContainer};
use crate::sync::{Mutex, lock};

/// Polls futures on behalf of threads.
#[derive(Clone)]
pub(crate) enum Driver {
    /// The thread itself.
    Here,
    /// A task, so that the future finds the executor that it was written for.
    Task(mpsc::UnboundedSender<BoxFuture<'static, ()>>),
}

impl Driver {
    /// Tells whether the task that drives futures is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Driver::Task(futures) if futures.is_closed())
    }

    /// Waits for the result of a future; none if the task that drives it is gone.
    pub(crate) fn block_on<R: Send + 'static>(
        &self,
        future: impl Future<Output = R> + Send + 'static,
    ) -> Option<R> {
        match self {
            Driver::Here => Some(pollster::block_on(future)),
            Driver::Task(futures) => {
                let (result, received) = oneshot::channel();
                let future = InContainer::new(engine::current_container(), future);
                let work = async move {
                    // Nobody may be waiting any more.
                    let _ = result.send(future.await);
                };
                if let Err(unsent) = futures.unbounded_send(Box::pin(work)) {
                    // The task was cancelled, and what ends must end all the same.
                    pollster::block_on(unsent.into_inner());
                }
                pollster::block_on(received).ok()
            }
        }
    }
}

/// Does blocking `work` on a thread, in the caller's container, and drives in the calling task what it needs driven.
///
/// Where no thread can be had the task does it all itself and blocks its executor: better late than never.
pub(crate) async fn off_thread<R: Send + 'static>(
    work: impl FnOnce(&Driver) -> R + Send + 'static,
) -> R {
    let thread = thread::Builder::new().name("singleton-core".to_owned());
    run_on(thread, work).await
}

async fn run_on<R: Send + 'static>(
    thread: thread::Builder,
    work: impl FnOnce(&Driver) -> R + Send + 'static,
) -> R {
    let container = engine::current_container();
    let (sender, mut submitted) = mpsc::unbounded();
    let (result, mut received) = oneshot::channel();
    // Behind a lock, for a thread that cannot be had does not give back what it was to do.
    let work = Arc::new(Mutex::new(Some(work)));
    let thread_work = Arc::clone(&work);
    let spawned = thread.spawn(move || {
        let Some(work) = lock(&thread_work).take() else {
            return;
        };
        let _container = engine::enter(container);
        let driver = Driver::Task(sender);
        // The task may have been cancelled.
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
        // Not while the thread has the sender, and it gives that away only with the result.
        Err(_) => panic::resume_unwind(Box::new("the thread has gone without a result")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_runs_the_work_if_no_thread_can_be_spawned() {
        // Of a stack of more than there is.
        let thread = thread::Builder::new().stack_size(1 << 46);
        let caller = thread::current().id();
        let done = run_on(thread, move |driver| {
            let awaited = driver.block_on(async { 7 });
            (awaited, thread::current().id() == caller)
        });
        assert_eq!(pollster::block_on(done), (Some(7), true));
    }
}
