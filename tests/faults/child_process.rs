//! Child processes that run this program in another role.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::file_faults;

/// The task of a child process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    /// Runs [`file_faults::lock_file`].
    LockFile,
    /// Runs [`file_faults::write_file`].
    WriteFile,
    /// Runs [`file_faults::fill_disk`] in a separate mount namespace.
    FillDisk,
}

const ROLES: [(&str, Role); 3] = [
    ("--lock-file", Role::LockFile),
    ("--write-file", Role::WriteFile),
    ("--fill-disk", Role::FillDisk),
];

impl Role {
    /// Returns the role and the path that the parent process has passed, or `None` in the parent process.
    pub(crate) fn from_arguments(arguments: &[String]) -> Option<(Role, &Path)> {
        let [option, path] = arguments else {
            return None;
        };
        let (_, role) = ROLES.iter().find(|(known, _)| known == option)?;
        Some((*role, Path::new(path)))
    }

    /// Runs the role on the file or directory at `path`, and prints its result as JSON for the parent process.
    pub(crate) fn run(self, path: &Path) -> anyhow::Result<()> {
        match self {
            Role::LockFile => print_json(&file_faults::lock_file(path)?),
            Role::WriteFile => print_json(&file_faults::write_file(path)?),
            Role::FillDisk => {
                print_line("ready")?;
                print_json(&file_faults::fill_disk(path)?)
            }
        }
    }

    fn command(self) -> anyhow::Result<Command> {
        let program = std::env::current_exe()?;
        let option = ROLES.iter().find(|(_, role)| *role == self);
        let (option, _) = option.context("the role has no option")?;
        let mut command = if self == Role::FillDisk {
            let mut command = Command::new("unshare");
            // Any other user becomes root in a user namespace, where it may mount.
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
        command.arg(option);
        Ok(command)
    }
}

/// A running child process. Dropping it kills the process.
pub(crate) struct ChildProcess {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl ChildProcess {
    /// Starts a child process, and waits until it is ready.
    pub(crate) fn start(role: Role, path: &Path) -> anyhow::Result<Self> {
        let mut child = role
            .command()?
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start the child process {role:?}"))?;
        let output = child.stdout.take().context("a pipe")?;
        let mut process = ChildProcess {
            child,
            output: BufReader::new(output),
        };
        let mut line = String::new();
        process.output.read_line(&mut line)?;
        ensure!(
            line == "ready\n",
            "the child process {role:?} ended before it was ready"
        );
        Ok(process)
    }

    /// Asks the child process to stop, waits for its end, and returns its result.
    pub(crate) fn finish<T: DeserializeOwned>(mut self) -> anyhow::Result<T> {
        drop(self.child.stdin.take());
        let mut result = String::new();
        self.output.read_to_string(&mut result)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the child process failed: {status}");
        Ok(serde_json::from_str(&result)?)
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        // Both fail if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reports to the parent process that this one is ready, and waits until the parent calls [`ChildProcess::finish`].
pub(crate) fn report_ready_and_wait() -> io::Result<()> {
    print_line("ready")?;
    io::copy(&mut io::stdin(), &mut io::sink()).map(drop)
}

fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    Ok(print_line(&serde_json::to_string(result)?)?)
}

fn print_line(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}
