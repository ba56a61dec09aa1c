//! Waiting for servers and other processes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Waits until `condition` returns true, and checks it every 5 ms. `what` completes the error's "timed out waiting
/// for".
///
/// # Errors
///
/// Returns an error after 30 seconds, or the first error of `condition`.
pub(crate) fn until(
    what: &str,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !condition()? {
        ensure!(
            Instant::now() < deadline,
            "timed out after {TIMEOUT:?} waiting for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
