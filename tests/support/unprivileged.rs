//! Programs that refuse to run as root, run as another user and cleaned up in any case.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// A running shell script that starts a server and cleans up after it.
///
/// The script cleans up when its standard input ends. That happens when this value is dropped, and also when this
/// process is killed.
#[derive(Debug)]
pub(crate) struct Supervisor {
    _clean_up_on_drop: ChildStdin,
}

impl Supervisor {
    /// Runs `script` with `directory` as its first argument and `arguments` after it, and waits until the server is
    /// ready.
    ///
    /// The script writes the line `ready` once the server has started, or another line if it has not. It then reads its
    /// standard input to the end, stops the server and removes the directory.
    ///
    /// # Errors
    ///
    /// Returns an error with the file `log` of the directory if the script does not write `ready`.
    pub(crate) fn start(
        directory: TempDir,
        script: &str,
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        give_to_unprivileged_user(directory.path())?;
        let mut command = command("sh")?;
        command
            .args(["-c", script, "sh"])
            .arg(directory.path())
            .args(arguments);
        // A separate process group, so that Ctrl-C in the terminal does not end the script before it has cleaned up.
        command.process_group(0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (stdin, stdout) = (
            child.stdin.take().context("a pipe")?,
            child.stdout.take().context("a pipe")?,
        );
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let is_ready = line.trim() == "ready";
        let log = if is_ready {
            String::new()
        } else {
            fs::read_to_string(directory.path().join("log")).unwrap_or_default()
        };
        // The script removes the directory from now on.
        let _ = directory.keep();
        ensure!(is_ready, "the server did not start; its log: {log}");
        Ok(Supervisor {
            _clean_up_on_drop: stdin,
        })
    }
}

/// Returns a command that runs as an unprivileged user if this process runs as root.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root()? {
        let (uid, gid) = unprivileged_user()?;
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Makes the user that [`command`] runs programs as the owner of a file or directory.
pub(crate) fn give_to_unprivileged_user(path: &Path) -> anyhow::Result<()> {
    if is_root()? {
        let (uid, gid) = unprivileged_user()?;
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn is_root() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// Returns the user and group ID of `postgres`, or of `nobody` if there is no user `postgres`.
fn unprivileged_user() -> anyhow::Result<(u32, u32)> {
    let accounts = fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let fields: Vec<_> = accounts
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    find("postgres")
        .or_else(|| find("nobody"))
        .context("/etc/passwd has neither a user postgres nor a user nobody")
}
