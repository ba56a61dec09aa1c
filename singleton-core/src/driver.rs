//! Who polls a future that a thread of ours needs the result of.

use std::future::{self, Future};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::Poll;
use std::thread;

use futures_channel::{mpsc, oneshot};
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::context::Inside;
use crate::engine;

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
                let future = Inside::new(engine::current_realm(), future);
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

/// Does blocking `work` on a thread, in the caller's realm, and drives in the calling task what it needs driven.
pub(crate) async fn off_thread<R: Send + 'static>(
    work: impl FnOnce(&Driver) -> R + Send + 'static,
) -> R {
    let realm = engine::current_realm();
    let (sender, mut submitted) = mpsc::unbounded();
    let (result, mut received) = oneshot::channel();
    let thread = thread::Builder::new().name("singleton-core".to_owned());
    let work = move || {
        let _entered = engine::enter(realm);
        let driver = Driver::Task(sender);
        // The task may have been cancelled.
        let _ = result.send(panic::catch_unwind(AssertUnwindSafe(|| work(&driver))));
    };
    // Without a thread there is no other way than std's own for `thread::spawn`: to panic.
    let lost = match thread.spawn(work) {
        Ok(_) => "the thread has gone without a result".to_owned(),
        Err(error) => format!("no thread for it: {error}"),
    };
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
        Err(_) => panic::resume_unwind(Box::new(lost)),
    }
}
