//! Faults of a SQLite file: a full disk, and other processes that use the file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use db_service::{DatabaseConfig, DatabaseService};

use crate::child_process::{ChildProcess, Role, report_ready_and_wait};
use crate::load::{Load, NUMBERS_PER_LOAD};
use crate::number_table::Queries;
use crate::observations::Observations;
use crate::outcome::{Outcome, Target, with_services};

const POOL_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a statement waits for a lock of another process.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a fault lasts: longer than any call may take.
const FAULT_DURATION: Duration = Duration::from_secs(5);

/// The errors of callers that wait for a lock of another process.
pub(crate) const LOCKED: &[&str] = &["LockTimeout", "PoolTimeout"];

/// The error of writes on a full disk.
pub(crate) const DISK_FULL: &[&str] = &["DiskFull"];

fn config(file: &Path) -> anyhow::Result<DatabaseConfig> {
    let mut config = DatabaseConfig::new(format!("sqlite:///{}", file.display()).parse()?);
    config.pool_timeout = POOL_TIMEOUT;
    config.sqlite.busy_timeout = BUSY_TIMEOUT;
    Ok(config)
}

fn target(file: &Path) -> anyhow::Result<Target> {
    Ok(Target {
        config: config(file)?,
        limit: POOL_TIMEOUT + BUSY_TIMEOUT,
        verification: config(file)?,
        queries: Queries::Text,
    })
}

/// Runs [`fill_disk`] in a child process with a separate mount namespace. Its mounts disappear with it.
pub(crate) fn full_disk() -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    ChildProcess::start(Role::FillDisk, directory.path())?.finish()
}

/// Mounts a disk of 8 MiB at `directory`, and fills it while the load runs. [`full_disk`] runs this in a child process.
pub(crate) fn fill_disk(directory: &Path) -> anyhow::Result<Outcome> {
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
        .arg(directory)
        .status()?;
    ensure!(mount.success(), "mount: {mount}");
    target(&directory.join("numbers.db"))?.run_under_load(|_| {
        let filler = directory.join("filler");
        let mut file = File::create(&filler)?;
        let error = loop {
            if let Err(error) = file.write_all(&[0; 4096]) {
                break error;
            }
        };
        ensure!(error.kind() == io::ErrorKind::StorageFull, "{error}");
        thread::sleep(FAULT_DURATION);
        Ok(fs::remove_file(filler)?)
    })
}

pub(crate) fn locked_file() -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("numbers.db");
    target(&file)?.run_under_load(|_| {
        let child = ChildProcess::start(Role::LockFile, &file)?;
        thread::sleep(FAULT_DURATION);
        child.finish()
    })
}

/// Holds the write lock until the parent process stops this one. [`locked_file`] runs this in a child process.
pub(crate) fn lock_file(file: &Path) -> anyhow::Result<()> {
    with_services(config(file)?, || {
        // A transaction takes the write lock when it begins.
        DatabaseService::transaction(|_| Ok(report_ready_and_wait()?))
    })
}

pub(crate) fn two_processes() -> anyhow::Result<Outcome> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("numbers.db");
    target(&file)?.run_under_two_loads(|_| {
        let child = ChildProcess::start(Role::WriteFile, &file)?;
        thread::sleep(FAULT_DURATION);
        child.finish().map(Some)
    })
}

/// Runs a second load with different numbers. [`two_processes`] runs this in a child process.
pub(crate) fn write_file(file: &Path) -> anyhow::Result<Observations> {
    with_services(config(file)?, || {
        let load = Load::start(NUMBERS_PER_LOAD, Queries::Text)?;
        report_ready_and_wait()?;
        load.recover()?;
        load.stop()
    })
}
