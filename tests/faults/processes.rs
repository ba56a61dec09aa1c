//! Processes of the operating system, to stop and kill.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// Processes, by their ids.
pub(crate) struct Processes(Vec<Pid>);

impl Processes {
    pub(crate) fn new(ids: impl IntoIterator<Item = i64>) -> anyhow::Result<Self> {
        let processes = ids.into_iter().map(process);
        Ok(Processes(processes.collect::<anyhow::Result<_>>()?))
    }

    /// Stops a process and all its children, until [`Stopped`] is dropped.
    pub(crate) fn stop_family(parent: u32) -> anyhow::Result<Stopped> {
        let parent = process(parent.into())?;
        // The parent first, so that it cannot start more children.
        let mut family = Processes(vec![parent]).stop()?;
        let children = children(parent)?;
        children.send(Signal::STOP)?;
        family.processes.0.extend(children.0);
        Ok(family)
    }

    /// Stops the processes, and waits until each has stopped or ended.
    pub(crate) fn stop(self) -> anyhow::Result<Stopped> {
        // Dropping this value continues the processes, also after an error.
        let stopped = Stopped { processes: self };
        stopped.processes.send(Signal::STOP)?;
        wait::until("processes to stop", || {
            let states = stopped.processes.0.iter().map(|process| status(*process));
            let mut states = states.flatten().map(|(state, _)| state);
            Ok(states.all(|state| ["T", "X", "Z"].contains(&state.as_str())))
        })?;
        Ok(stopped)
    }

    /// Kills the processes, and waits until they are gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.send(Signal::KILL)?;
        self.wait_until_gone()
    }

    pub(crate) fn wait_until_gone(&self) -> anyhow::Result<()> {
        wait::until("processes to be gone", || {
            Ok(!self.0.iter().any(|process| folder(*process).exists()))
        })
    }

    /// Sends a signal to all processes that still exist.
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
pub(crate) struct Stopped {
    processes: Processes,
}

impl Stopped {
    /// Kills the stopped processes, and waits until they are gone.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.processes.kill()
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.processes.send(Signal::CONT);
    }
}

fn process(id: i64) -> anyhow::Result<Pid> {
    let process = i32::try_from(id).ok().and_then(Pid::from_raw);
    process.context("a process has a number above 0")
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
    let (_, parent) = status(process)?;
    Pid::from_raw(parent.parse().ok()?)
}

/// Returns the state and the parent of a process, or `None` if it has ended.
fn status(process: Pid) -> Option<(String, String)> {
    let text = fs::read_to_string(folder(process).join("stat")).ok()?;
    // Both follow the name, which may contain any character.
    let (_, behind) = text.rsplit_once(") ")?;
    let mut words = behind.split(' ').map(str::to_owned);
    Some((words.next()?, words.next()?))
}

fn folder(process: Pid) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}
