//! Processes that a fault stops or kills.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A set of processes.
pub(crate) struct Processes(Vec<Pid>);

impl Processes {
    /// Returns the processes with these IDs.
    ///
    /// # Errors
    ///
    /// Returns an error if an ID is not a positive `i32`.
    pub(crate) fn new(ids: impl IntoIterator<Item = i64>) -> anyhow::Result<Self> {
        let processes = ids.into_iter().map(pid);
        Ok(Processes(processes.collect::<anyhow::Result<_>>()?))
    }

    /// Stops a process and all its children with `SIGSTOP`.
    pub(crate) fn stop_with_children(parent: u32) -> anyhow::Result<StoppedProcesses> {
        let parent = pid(parent.into())?;
        // The parent first, so that it starts no more children.
        let mut stopped = Processes(vec![parent]).stop()?;
        let children = children(parent)?;
        children.send(Signal::STOP)?;
        stopped.processes.0.extend(children.0);
        Ok(stopped)
    }

    /// Stops the processes with `SIGSTOP`, and waits until each has stopped or ended.
    pub(crate) fn stop(self) -> anyhow::Result<StoppedProcesses> {
        // Before the signals: if one fails, dropping this lets all processes continue.
        let stopped = StoppedProcesses { processes: self };
        stopped.processes.send(Signal::STOP)?;
        wait::until("processes to stop", || {
            let states = stopped.processes.0.iter().map(|process| status(*process));
            let mut states = states.flatten().map(|(state, _)| state);
            Ok(states.all(|state| ["T", "X", "Z"].contains(&state.as_str())))
        })?;
        Ok(stopped)
    }

    /// Kills the processes with `SIGKILL`, and waits until they are gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        self.send(Signal::KILL)?;
        self.wait_until_gone()
    }

    /// Waits until the processes have ended and their parents have collected their exit status.
    pub(crate) fn wait_until_gone(&self) -> anyhow::Result<()> {
        wait::until("processes to end", || {
            Ok(!self
                .0
                .iter()
                .any(|process| proc_directory(*process).exists()))
        })
    }

    /// Sends a signal to the processes that have not ended yet.
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

/// Stopped processes. Dropping this lets them continue.
pub(crate) struct StoppedProcesses {
    processes: Processes,
}

impl StoppedProcesses {
    /// Kills the processes with `SIGKILL` while they are stopped, and waits until they are gone.
    pub(crate) fn kill(self) -> anyhow::Result<()> {
        self.processes.kill()
    }
}

impl Drop for StoppedProcesses {
    fn drop(&mut self) {
        let _ = self.processes.send(Signal::CONT);
    }
}

fn pid(id: i64) -> anyhow::Result<Pid> {
    let process = i32::try_from(id).ok().and_then(Pid::from_raw);
    process.with_context(|| format!("{id} is not a process ID"))
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

/// Returns the state and the parent's ID of a process, or `None` if it has ended.
fn status(process: Pid) -> Option<(String, String)> {
    let text = fs::read_to_string(proc_directory(process).join("stat")).ok()?;
    // Both follow the process's name in parentheses. The name may contain any character.
    let (_, after_name) = text.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

fn proc_directory(process: Pid) -> PathBuf {
    Path::new("/proc").join(process.to_string())
}
