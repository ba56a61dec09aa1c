//! Waiting for a condition.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

const LIMIT: Duration = Duration::from_secs(30);

/// Polls a condition until it holds.
pub(crate) fn until(
    what: &str,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_so()? {
        ensure!(
            Instant::now() < deadline,
            "timed out after {LIMIT:?} waiting for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
