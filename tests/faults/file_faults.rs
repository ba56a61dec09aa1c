//! Faults of a SQLite file: a full disk, and other processes that use the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use db_service::{DatabaseConfig, DatabaseService};

use crate::load::{ALL_NUMBERS, Load};
use crate::other_process::{OtherProcess, Role, ready_until_told};
use crate::outcome::{Outcome, Place, within};
use crate::seen::Seen;

const POOL_TIMEOUT: Duration = Duration::from_secs(2);

/// The maximum time that a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The duration of a fault, which is longer than the limit of a call.
const LASTING: Duration = Duration::from_secs(5);

/// The errors of callers that wait for another process's lock.
pub(crate) const LOCKED: &[&str] = &["LockTimeout", "PoolTimeout"];

/// The error of callers on a full disk.
pub(crate) const FULL: &[&str] = &["DiskFull"];

fn config(file: &Path) -> anyhow::Result<DatabaseConfig> {
    let mut config = DatabaseConfig::new(format!("sqlite:///{}", file.display()).parse()?);
    config.pool_timeout = POOL_TIMEOUT;
    config.sqlite.busy_timeout = BUSY_TIMEOUT;
    Ok(config)
}

fn place(file: &Path) -> anyhow::Result<Place> {
    Ok(Place {
        config: config(file)?,
        limit: POOL_TIMEOUT + BUSY_TIMEOUT,
        found: config(file)?,
    })
}

/// Fills a small disk in a child process with its own mounts, which end with it.
pub(crate) fn full_disk() -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    OtherProcess::start(Role::FillDisk, folder.path())?.end()
}

/// The work of that child process.
pub(crate) fn fill_disk(folder: &Path) -> anyhow::Result<Outcome> {
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(folder)
        .status()?;
    ensure!(mount.success(), "mount: {mount}");
    place(&folder.join("ledger.db"))?.under_load(|_| {
        let filler = folder.join("filler");
        let mut file = File::create(&filler)?;
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        ensure!(error.kind() == io::ErrorKind::StorageFull, "{error}");
        thread::sleep(LASTING);
        Ok(fs::remove_file(filler)?)
    })
}

pub(crate) fn locked_file() -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ledger.db");
    place(&file)?.under_load(|_| {
        let other = OtherProcess::start(Role::LockFile, &file)?;
        thread::sleep(LASTING);
        other.end()
    })
}

/// The work of the child process that locks the file.
pub(crate) fn lock_file(file: &Path) -> anyhow::Result<()> {
    within(config(file)?, || {
        // The transaction takes the lock when it begins.
        DatabaseService::transaction(|_| Ok(ready_until_told()?))
    })
}

pub(crate) fn two_processes() -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("ledger.db");
    place(&file)?.under_loads(|_| {
        let other = OtherProcess::start(Role::WriteFile, &file)?;
        thread::sleep(LASTING);
        other.end().map(Some)
    })
}

/// The work of the child process that writes to the same file, with other numbers.
pub(crate) fn write_file(file: &Path) -> anyhow::Result<Seen> {
    within(config(file)?, || {
        let load = Load::start(ALL_NUMBERS)?;
        ready_until_told()?;
        load.recover()?;
        load.stop()
    })
}
