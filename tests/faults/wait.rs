//! Waiting for what others do.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

const LIMIT: Duration = Duration::from_secs(30);

/// Asks again and again whether it is so, until it is.
pub(crate) fn until(
    what: &str,
    mut is_so: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !is_so()? {
        ensure!(
            Instant::now() < deadline,
            "waited {LIMIT:?} in vain for {what}"
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
