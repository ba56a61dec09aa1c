//! A PgBouncer for one test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::server::TestServer;
use crate::shared_server;
use crate::unprivileged::{self, Supervisor};

/// Starts PgBouncer. When its input ends, ends the process that the PID file names then, which is another one after a
/// restart.
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

/// A PgBouncer in front of a [`TestServer`]. Dropping it ends the process and deletes its files.
///
/// It listens on 127.0.0.1, accepts any user without a password, and connects to the server as `postgres`. Each pool
/// has up to four server connections, used in round-robin order.
#[derive(Debug)]
pub struct TestPgBouncer {
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    _supervisor: Supervisor,
}

impl TestPgBouncer {
    /// Starts a PgBouncer. `settings` are lines of the section `[pgbouncer]`, such as `pool_mode = transaction`.
    ///
    /// Returns `None`, and prints why, if PgBouncer is not installed.
    ///
    /// # Panics
    ///
    /// Panics if PgBouncer does not accept connections within 10 seconds, or if it is not installed and
    /// `REQUIRE_POSTGRES=1`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tests::{TestPgBouncer, TestServer};
    ///
    /// fn test() {
    ///     let Some(server) = TestServer::start() else {
    ///         return;
    ///     };
    ///     let Some(bouncer) = TestPgBouncer::start(&server, "pool_mode = transaction") else {
    ///         return;
    ///     };
    ///     assert_ne!(bouncer.port(), server.port());
    /// }
    /// # test();
    /// ```
    #[track_caller]
    pub fn start(server: &TestServer, settings: &str) -> Option<Self> {
        let Some(program) = program() else {
            shared_server::report_skip("install PgBouncer (Debian: apt-get install pgbouncer)");
            return None;
        };
        Some(Self::launch(program, server, settings).expect("PgBouncer starts"))
    }

    #[track_caller]
    fn launch(program: PathBuf, server: &TestServer, settings: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("test-pgbouncer-")
            .tempdir()?;
        let directory = temporary.path().to_owned();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let arguments = [
            &*program.to_string_lossy(),
            &port.to_string(),
            &server.port().to_string(),
            settings,
        ];
        let supervisor = Supervisor::start(temporary, SUPERVISOR, &arguments)?;
        let bouncer = TestPgBouncer {
            program,
            directory,
            port,
            _supervisor: supervisor,
        };
        bouncer.wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Ok(bouncer)
    }

    /// Returns the URL of the server's database `postgres` through this PgBouncer.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends PgBouncer and all connections at once, and starts it again on the same port.
    ///
    /// # Panics
    ///
    /// Panics if PgBouncer does not end within 10 seconds, or does not accept connections within 10 seconds after that.
    #[track_caller]
    pub fn restart(&self) {
        let pid_file = self.directory.join("pid");
        let text = fs::read_to_string(&pid_file).expect("PgBouncer is running");
        let process = text.trim().parse().ok().and_then(Pid::from_raw);
        kill_process(process.expect("a process ID"), Signal::TERM).expect("a running process");
        // PgBouncer removes the file when it ends.
        self.wait_until(|| !pid_file.exists());
        let status = unprivileged::command(&self.program)
            .expect("a user to run PgBouncer as")
            .arg("-d")
            .arg(self.directory.join("pgbouncer.ini"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("PgBouncer starts");
        assert!(status.success(), "pgbouncer: {status}");
        self.wait_until(|| TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    #[track_caller]
    fn wait_until(&self, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "PgBouncer did not start or end within 10 s; its log: {}",
                log()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        // Debian installs PgBouncer there, and the `PATH` of most users lacks that directory.
        .chain([Path::new("/usr/sbin").to_owned()])
        .map(|directory| directory.join("pgbouncer"))
        .find(|program| program.exists())
}
