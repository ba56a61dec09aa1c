//! A PgBouncer of a test's own.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::cluster;
use crate::server::TestServer;
use crate::unprivileged::{self, Supervised};

/// Starts it, and ends whichever of its successors runs in the end.
const SUPERVISOR: &str = r#"
dir=$1 program=$2 port=$3 server=$4 settings=$5
cat >"$dir/pgbouncer.ini" <<END &&
[databases]
* = host=127.0.0.1 port=$server user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = any
default_pool_size = 4
server_round_robin = 1
$settings
logfile = $dir/log
pidfile = $dir/pid
END
"$program" -d "$dir/pgbouncer.ini" >/dev/null 2>&1 &&
echo ready || echo failed
cat >/dev/null
[ -s "$dir/pid" ] && kill -TERM "$(cat "$dir/pid")" 2>/dev/null
rm -rf "$dir"
"#;

/// A PgBouncer in front of a server, which gives each transaction of a pool another of its connections, and ends, and leaves nothing, when it is dropped.
#[derive(Debug)]
pub struct TestPgBouncer {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    _supervised: Supervised,
}

impl TestPgBouncer {
    /// Starts one with settings such as `pool_mode = transaction`; `None`, and a line that says so, where PgBouncer is not installed.
    pub fn start(server: &TestServer, settings: &str) -> Option<Self> {
        let Some(program) = program() else {
            cluster::skip_for_want_of("install PgBouncer (Debian: apt-get install pgbouncer)");
            return None;
        };
        Some(Self::launch(program, server, settings).expect("PgBouncer starts"))
    }

    fn launch(program: PathBuf, server: &TestServer, settings: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("test-pgbouncer-")
            .tempdir()?;
        let folder = temporary.path().to_owned();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let arguments = [
            &*program.to_string_lossy(),
            &port.to_string(),
            &server.port().to_string(),
            settings,
        ];
        let supervised = Supervised::start(temporary, SUPERVISOR, &arguments)?;
        let bouncer = TestPgBouncer {
            program,
            folder,
            port,
            _supervised: supervised,
        };
        bouncer.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(bouncer)
    }

    /// The URL of the server's database `postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends it at once, and all connections with it, and starts it again on the same port.
    pub fn restart(&self) {
        let file = self.folder.join("pid");
        let text = fs::read_to_string(&file).expect("PgBouncer runs");
        let process = text.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(process.expect("a number"), Signal::TERM).expect("it may be ended");
        // It removes the file when it ends.
        self.wait_until(|| !file.exists());
        let status = unprivileged::command(&self.program)
            .expect("an account to run it")
            .arg("-d")
            .arg(self.folder.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("PgBouncer starts");
        assert!(status.success(), "pgbouncer: {status}");
        self.wait_until(|| TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    fn wait_until(&self, is_so: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is_so() {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PgBouncer: {}", log());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Not everybody's path leads there.
        .chain([Path::new("/usr/sbin").to_owned()])
        .map(|folder| folder.join("pgbouncer"))
        .find(|program| program.exists())
}
