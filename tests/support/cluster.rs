//! A PostgreSQL server for tests: the one named by `TEST_DATABASE_URL`, or a throw-away one.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};

/// Where Debian and its like put the binaries, which are not on the path there.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Starts a server, says so, waits for the end of its input, which comes however this process ends, and cleans up.
const SUPERVISOR: &str = r#"
bin=$1 dir=$2 port=$3
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 &&
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null 2>&1 \
    -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir -c fsync=off -c max_connections=300" &&
echo ready
cat >/dev/null
"$bin/pg_ctl" -D "$dir/data" -w -m immediate stop >/dev/null 2>&1
rm -rf "$dir"
"#;

enum Server {
    Given(String),
    ThrowAway {
        url: String,
        _stop_on_drop: ChildStdin,
    },
    Missing,
}

/// The address of a server, the same for all tests of a process; `None` where there is none, which is
/// a failure if `REQUIRE_POSTGRES=1`.
pub(crate) fn url() -> Option<&'static str> {
    static SERVER: OnceLock<Server> = OnceLock::new();
    match SERVER.get_or_init(|| start().expect("a PostgreSQL server for the tests")) {
        Server::Given(url) | Server::ThrowAway { url, .. } => Some(url),
        Server::Missing => {
            skip();
            None
        }
    }
}

fn skip() {
    let hint = "install PostgreSQL (Debian: apt-get install postgresql), or set TEST_DATABASE_URL";
    assert!(
        std::env::var_os("REQUIRE_POSTGRES").is_none_or(|value| value != "1"),
        "REQUIRE_POSTGRES=1, but {hint}"
    );
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not `eprintln!`, which the test runner would swallow.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {hint}");
}

fn start() -> anyhow::Result<Server> {
    if let Some(url) = std::env::var("TEST_DATABASE_URL")
        .ok()
        .filter(|url| !url.is_empty())
    {
        return Ok(Server::Given(url));
    }
    let Some(binaries) = find_binaries() else {
        return Ok(Server::Missing);
    };
    // Somebody may take the free port before the server does.
    let mut last = None;
    for _ in 0..3 {
        match start_throw_away(&binaries) {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
}

fn find_binaries() -> Option<PathBuf> {
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?).collect::<Vec<_>>();
    let mut debian: Vec<_> = fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    on_path
        .into_iter()
        .chain(debian.into_iter().rev())
        .find(|folder| folder.join("initdb").exists() && folder.join("pg_ctl").exists())
}

fn start_throw_away(binaries: &Path) -> anyhow::Result<Server> {
    let folder = tempfile::Builder::new()
        .prefix("test-postgres-")
        .tempdir()?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new("sh");
    command
        .args(["-c", SUPERVISOR, "sh"])
        .arg(binaries)
        .arg(folder.path())
        .arg(port.to_string());
    // A group of its own, so that Ctrl-C at the tests does not stop the server's cleaning up.
    command.process_group(0).current_dir("/");
    if fs::metadata("/proc/self")?.uid() == 0 {
        // PostgreSQL refuses to run as root.
        let (uid, gid) = other_user()?;
        chown(folder.path(), Some(uid), Some(gid))?;
        command.uid(uid).gid(gid);
    }
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
    let log = folder.path().join("log");
    BufReader::new(stdout).read_line(&mut line)?;
    let log = if line.trim() == "ready" {
        String::new()
    } else {
        fs::read_to_string(log).unwrap_or_default()
    };
    // From here on the supervisor removes it.
    let _ = folder.keep();
    ensure!(line.trim() == "ready", "PostgreSQL did not start: {log}");
    Ok(Server::ThrowAway {
        url: format!("postgresql://postgres@127.0.0.1:{port}/postgres"),
        _stop_on_drop: stdin,
    })
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
