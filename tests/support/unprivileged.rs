//! Programs that refuse to run as root, under another account.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, ensure};
use tempfile::TempDir;

/// Ends what a script has left running in a folder and removes the folder as soon as it is dropped, or however this process ends.
#[derive(Debug)]
pub(crate) struct Supervised {
    _end_on_drop: ChildStdin,
}

impl Supervised {
    /// Runs a script whose first argument is the folder. It says `ready` when it is, or anything else, waits for the end of its input, and cleans up.
    pub(crate) fn start(folder: TempDir, script: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        own(folder.path())?;
        let mut command = command("sh")?;
        command
            .args(["-c", script, "sh"])
            .arg(folder.path())
            .args(arguments);
        // A group of its own, so that Ctrl-C at the tests does not stop the cleaning up.
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
            fs::read_to_string(folder.path().join("log")).unwrap_or_default()
        };
        // From here on the script removes it.
        let _ = folder.keep();
        ensure!(is_ready, "it did not start: {log}");
        Ok(Supervised {
            _end_on_drop: stdin,
        })
    }
}

/// A command that runs as somebody else where this process is root's.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.current_dir("/");
    if is_root()? {
        let (uid, gid) = other_user()?;
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

/// Gives a folder or a file to whom the commands run as.
pub(crate) fn own(path: &Path) -> anyhow::Result<()> {
    if is_root()? {
        let (uid, gid) = other_user()?;
        chown(path, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn is_root() -> io::Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// The user and group of an account without rights that every system has, or of PostgreSQL's own.
fn other_user() -> anyhow::Result<(u32, u32)> {
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
        .context("neither a user postgres nor nobody in /etc/passwd")
}
