//! Faults of a file of SQLite: no room for it, and other processes that use it.

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

/// How long a statement waits for the locks of others.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a fault lasts: longer than any call is allowed to take.
const LASTING: Duration = Duration::from_secs(5);

/// The errors of callers who wait for the locks of others.
pub(crate) const LOCKED: &[&str] = &["LockTimeout", "PoolTimeout"];

/// The error of callers for whose data there is no room.
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

/// A process of its own, with mounts of its own that go with it, fills a small disk.
pub(crate) fn full_disk() -> anyhow::Result<Outcome> {
    let folder = tempfile::tempdir()?;
    OtherProcess::start(Role::FillDisk, folder.path())?.end()
}

/// What that process does.
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

/// What the other process does.
pub(crate) fn lock_file(file: &Path) -> anyhow::Result<()> {
    within(config(file)?, || {
        // The lock is taken at the beginning.
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

/// What the other process does: the same, with other numbers.
pub(crate) fn write_file(file: &Path) -> anyhow::Result<Seen> {
    within(config(file)?, || {
        let load = Load::start(ALL_NUMBERS)?;
        ready_until_told()?;
        load.recover()?;
        load.stop()
    })
}
