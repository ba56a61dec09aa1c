//! A time limit for calls of a driver that may never return.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::config::DatabaseConfig;
use crate::error::DbError;

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error("the server did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the driver panicked")]
    Panicked,
    #[error("no thread could be started: {0}")]
    NoThread(io::Error),
}

impl Unfinished {
    /// The error of an attempt to connect, or of a connection that was just opened.
    pub(crate) fn into_error(self, config: &DatabaseConfig) -> DbError {
        DbError::not_connected(config.url.to_string(), self.to_string())
    }
}

/// Runs `work` on a thread of its own and waits for the result until the limit.
///
/// After that the thread is left alone: it ends when `work` returns, and drops the result.
pub(crate) fn run<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("db-bounded".to_owned())
        .spawn(move || {
            // Nobody waits any more if the limit is over.
            let _ = sender.send(work());
        })
        .map_err(Unfinished::NoThread)?;
    receiver.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => Unfinished::TimedOut(limit),
        RecvTimeoutError::Disconnected => Unfinished::Panicked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_return_is_left_alone() {
        let (release, released) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let limit = Duration::from_millis(10);
        let result = run(limit, move || {
            let _ = released.recv();
            ended
        });
        assert!(matches!(result, Err(Unfinished::TimedOut(_))));
        drop(release);
        assert!(end.recv().is_err(), "the result is dropped in the end");
    }

    #[test]
    fn results_and_panics_are_handed_on() {
        let limit = Duration::from_secs(60);
        assert_eq!(run(limit, || 7).unwrap(), 7);
        let panicked = run(limit, || panic!("on purpose"));
        assert!(matches!(panicked, Err::<(), _>(Unfinished::Panicked)));
    }
}
