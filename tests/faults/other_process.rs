//! Child processes: this program in another role.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file_faults;

/// The role of a child process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    LockFile,
    WriteFile,
    FillDisk,
}

const ROLES: [(&str, Role); 3] = [
    ("--lock-file", Role::LockFile),
    ("--write-file", Role::WriteFile),
    ("--fill-disk", Role::FillDisk),
];

impl Role {
    /// Returns the role and the path of this process if it is a child process.
    pub(crate) fn of(arguments: &[String]) -> Option<(Role, &Path)> {
        let [name, path] = arguments else {
            return None;
        };
        let (_, role) = ROLES.iter().find(|(known, _)| known == name)?;
        Some((*role, Path::new(path)))
    }

    /// Runs the role and prints its result.
    pub(crate) fn play(self, path: &Path) -> anyhow::Result<()> {
        match self {
            Role::LockFile => tell(&file_faults::lock_file(path)?),
            Role::WriteFile => tell(&file_faults::write_file(path)?),
            Role::FillDisk => {
                say("ready")?;
                tell(&file_faults::fill_disk(path)?)
            }
        }
    }

    fn command(self) -> anyhow::Result<Command> {
        let program = std::env::current_exe()?;
        let name = ROLES.iter().find(|(_, role)| *role == self);
        let (name, _) = name.context("each role has a name")?;
        let mut command = if self == Role::FillDisk {
            let mut command = Command::new("unshare");
            // A user other than root becomes root in a new user namespace, and may mount there.
            let options = if rustix::process::geteuid().is_root() {
                ["--mount"].as_slice()
            } else {
                ["--mount", "--map-root-user"].as_slice()
            };
            command.args(options).arg("--").arg(program);
            command
        } else {
            Command::new(program)
        };
        command.arg(name);
        Ok(command)
    }
}

/// A running child process.
pub(crate) struct OtherProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl OtherProcess {
    /// Starts a child process, and waits until it is ready.
    pub(crate) fn start(role: Role, path: &Path) -> anyhow::Result<Self> {
        let mut child = role
            .command()?
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{role:?}"))?;
        let output = child.stdout.take().context("a pipe")?;
        let mut process = OtherProcess {
            child,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        process.output.read_line(&mut line)?;
        ensure!(line == "ready\n", "{role:?} did not get ready");
        Ok(process)
    }

    /// Asks the process to end, and returns its result.
    pub(crate) fn end<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        drop(self.child.stdin.take());
        let mut told = String::new();
        self.output.read_to_string(&mut told)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the other process: {status}");
        Ok(serde_json::from_str(&told)?)
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        // An error means that the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reports to the parent process that this one is ready, and waits for the request to end.
pub(crate) fn ready_until_told() -> io::Result<()> {
    say("ready")?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn tell(told: &impl Serialize) -> anyhow::Result<()> {
    Ok(say(&serde_json::to_string(told)?)?)
}

fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
