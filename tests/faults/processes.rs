//! Processes that are stopped and killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

/// Processes, by their numbers.
pub(crate) struct Processes(Vec<Pid>);

impl Processes {
    pub(crate) fn new(ids: impl IntoIterator<Item = i64>) -> anyhow::Result<Self> {
        let process = |id| Pid::from_raw(i32::try_from(id).ok()?);
        let processes = ids.into_iter().map(process).collect::<Option<_>>();
        let processes = processes.context("a process has a number above 0")?;
        Ok(Processes(processes))
    }

    /// Stops a process and all its children, until [`Stopped`] is dropped.
    pub(crate) fn stop_family(parent: u32) -> anyhow::Result<Stopped> {
        let parent = Processes::new([i64::from(parent)])?;
        // The parent first: it is not to have others meanwhile.
        parent.send(Signal::STOP)?;
        let mut stopped = Stopped(parent);
        let children = children(stopped.0.0[0])?;
        children.send(Signal::STOP)?;
        stopped.0.0.extend(children.0);
        Ok(stopped)
    }

    pub(crate) fn stop(self) -> anyhow::Result<Stopped> {
        self.send(Signal::STOP)?;
        Ok(Stopped(self))
    }

    /// Kills them, and returns when they have gone, and nobody takes them for running any more.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.send(Signal::KILL)?;
        self.wait_until_gone()
    }

    /// Kills one of them.
    pub(crate) fn kill_one(&self) -> anyhow::Result<()> {
        Processes(self.0[..1].to_vec()).send(Signal::KILL)
    }

    pub(crate) fn wait_until_gone(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.0.iter().any(|process| folder(*process).exists()) {
            ensure!(
                Instant::now() < deadline,
                "a process that was killed is there"
            );
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(crate) fn take(mut self, count: usize) -> Self {
        self.0.truncate(count);
        self
    }

    /// Those that have ended meanwhile are left out.
    fn send(&self, signal: Signal) -> anyhow::Result<()> {
        for process in &self.0 {
            match kill_process(*process, signal) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Processes that are stopped until this is dropped.
pub(crate) struct Stopped(Processes);

impl Stopped {
    /// Kills them as they are, and returns when they have gone.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.0.kill()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.send(Signal::CONT);
    }
}

fn children(parent: Pid) -> anyhow::Result<Processes> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let process = Pid::from_raw(id);
        if let Some(process) = process.filter(|process| parent_of(*process) == Some(parent)) {
            children.push(process);
        }
    }
    Ok(Processes(children))
}

fn parent_of(process: Pid) -> Option<Pid> {
    // It may have ended meanwhile.
    let text = fs::read_to_string(folder(process).join("stat")).ok()?;
    // Behind the name, which may hold anything, stand the state and the parent.
    let (_, behind) = text.rsplit_once(") ")?;
    let parent = behind.split(' ').nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}

fn folder(process: Pid) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}
