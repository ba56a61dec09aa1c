//! Timeouts for calls of a driver that may never return.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::config::DatabaseConfig;
use crate::error::{Chain, DbError};

/// The reason why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the server did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the driver panicked")]
    Panicked,
    #[error("no thread could be started: {}", Chain(.0))]
    NoThread(io::Error),
    #[error("{0} earlier calls still wait for the server's answer")]
    TooMany(usize),
}

impl CallError {
    /// Returns the error of an attempt to connect, or of a new connection.
    pub(crate) fn into_error(self, config: &DatabaseConfig) -> DbError {
        DbError::not_connected(config.url.to_string(), self.to_string())
    }
}

/// A limit of concurrent calls. An abandoned call counts until it returns.
#[derive(Debug, Clone)]
pub(crate) struct CallLimit {
    under_way: Arc<AtomicUsize>,
    most: usize,
}

impl CallLimit {
    /// Creates a limit of twice the maximum number of connections. Each connection has one call at a time, and the rest
    /// allows for abandoned ones.
    pub(crate) fn new(config: &DatabaseConfig) -> Self {
        CallLimit {
            under_way: Arc::default(),
            most: 2 * (config.pool_size as usize + config.max_overflow as usize),
        }
    }

    fn begin(&self) -> Result<Call, CallError> {
        let call = Call(Arc::clone(&self.under_way));
        if self.under_way.fetch_add(1, Ordering::Relaxed) < self.most {
            Ok(call)
        } else {
            Err(CallError::TooMany(self.most))
        }
    }
}

/// A running call, until it is dropped.
struct Call(Arc<AtomicUsize>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on its own thread and waits for the result until the timeout.
///
/// After the timeout the thread is abandoned: it ends when `work` returns, and drops the result. Until then it counts
/// as a running call.
pub(crate) fn run_with_timeout<T: Send + 'static>(
    calls: &CallLimit,
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CallError> {
    let call = calls.begin()?;
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("db-bounded".to_owned())
        .spawn(move || {
            let result = work();
            drop(call);
            // The receiver is gone after the timeout.
            let _ = sender.send(result);
        })
        .map_err(CallError::NoThread)?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => CallError::TimedOut(limit),
        RecvTimeoutError::Disconnected => CallError::Panicked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(most: usize) -> CallLimit {
        CallLimit {
            under_way: Arc::default(),
            most,
        }
    }

    #[test]
    fn work_that_does_not_return_is_abandoned_and_counted() {
        let (release, released) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let limit = Duration::from_millis(10);
        let calls = calls(1);
        let result = run_with_timeout(&calls, limit, move || {
            let _ = released.recv();
            ended
        });
        assert!(matches!(result, Err(CallError::TimedOut(_))));
        let result = run_with_timeout(&calls, limit, || ());
        assert!(matches!(result, Err(CallError::TooMany(1))));
        drop(release);
        assert!(end.recv().is_err(), "the result is dropped in the end");
        let result = run_with_timeout(&calls, Duration::from_secs(60), || 7);
        assert!(matches!(result, Ok(7)));
    }

    #[test]
    fn results_and_panics_are_returned() {
        let limit = Duration::from_secs(60);
        let calls = calls(1);
        assert_eq!(run_with_timeout(&calls, limit, || 7).unwrap(), 7);
        let panicked = run_with_timeout(&calls, limit, || panic!("on purpose"));
        assert!(matches!(panicked, Err::<(), _>(CallError::Panicked)));
        assert_eq!(calls.under_way.load(Ordering::Relaxed), 0);
    }
}
