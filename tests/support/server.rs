//! PostgreSQL servers of a test's own, which may be stopped, killed, copied and promoted.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, Row, params};
use singleton_core::testing::Scope;

use crate::cluster;
use crate::unprivileged::{self, Supervised};

/// Where Debian and its like put the binaries, which are not on the path there.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Makes a new server, or a standby of the one at a port.
const SUPERVISOR: &str = r#"
dir=$1 bin=$2 port=$3 primary=$4 language=$5
if [ -z "$primary" ]; then
    "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync
else
    "$bin/pg_basebackup" -D "$dir/data" -h 127.0.0.1 -p "$primary" -U postgres -R -c fast --no-sync
fi >"$dir/log" 2>&1 &&
cat >>"$dir/data/postgresql.conf" <<END &&
port = $port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$dir'
cluster_name = '${primary:+standby}'
fsync = off
max_connections = 300
wal_receiver_status_interval = 1
wal_retrieve_retry_interval = 100
END
if [ -n "$language" ]; then
    # A locale of the server's own, because the system need not have been set up with it. It complains of what does not matter.
    mkdir "$dir/locales" && localedef -i "$language" -f UTF-8 "$dir/locales/$language.UTF-8" >>"$dir/log" 2>&1
    export LOCPATH="$dir/locales"
    echo "lc_messages = '$language.UTF-8'" >>"$dir/data/postgresql.conf"
fi &&
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null 2>&1 &&
echo ready || echo failed
cat >/dev/null
# It may have been left stopped, and would not hear of it.
[ -s "$dir/data/postmaster.pid" ] && kill -CONT "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null
"$bin/pg_ctl" -D "$dir/data" -w -m immediate stop >/dev/null 2>&1
rm -rf "$dir"
"#;

/// A server that ends, and leaves nothing, when it is dropped; reached on 127.0.0.1 by the user postgres without a password.
#[derive(Debug)]
pub struct TestServer {
    binaries: PathBuf,
    folder: PathBuf,
    port: u16,
    _supervised: Supervised,
}

impl TestServer {
    /// Starts an empty server; `None`, and a line that says so, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(binaries) = binaries() else {
            cluster::skip();
            return None;
        };
        Some(Self::with_binaries(&binaries).expect("a PostgreSQL server"))
    }

    pub(crate) fn with_binaries(binaries: &Path) -> anyhow::Result<Self> {
        // Somebody may take the free port before the server does.
        Self::launch(binaries, "", "").or_else(|_| Self::launch(binaries, "", ""))
    }

    /// Starts an empty server whose messages are in a language, such as `fr_FR`; `None`, and a line that says so, where
    /// PostgreSQL, its translations or the sources of locales are not installed.
    pub fn in_language(language: &str) -> Option<Self> {
        let Some(binaries) = binaries() else {
            cluster::skip();
            return None;
        };
        let server = Self::launch(&binaries, "", language)
            .or_else(|_| Self::launch(&binaries, "", language))
            .ok()
            .filter(|server| server.speaks_another_language());
        if server.is_none() {
            cluster::skip_for_want_of(
                "install localedef, the sources of locales (Debian: apt-get install locales) and PostgreSQL's translations",
            );
        }
        server
    }

    fn speaks_another_language(&self) -> bool {
        let config = DatabaseConfig::new(self.url().parse().expect("a valid URL"));
        let scope = Scope::new().provide(ConfigService::new(config));
        let error = scope.run(|| DatabaseService::execute_query("SELECT 1 / 0", params! {}));
        let message = error.err().and_then(|error| match error {
            db_service::DbError::Query(error) => Some(error.driver_error().to_string()),
            _ => None,
        });
        message.is_some_and(|message| !message.contains("division by zero"))
    }

    fn launch(binaries: &Path, primary: &str, language: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("test-postgres-")
            .tempdir()?;
        let folder = temporary.path().to_owned();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let arguments = [
            &*binaries.to_string_lossy(),
            &port.to_string(),
            primary,
            language,
        ];
        let supervised = Supervised::start(temporary, SUPERVISOR, &arguments)?;
        Ok(TestServer {
            binaries: binaries.to_owned(),
            folder,
            port,
            _supervised: supervised,
        })
    }

    /// Copies the server and starts the copy as a hot standby named `standby`, which replays what this one writes.
    pub fn standby(&self) -> TestServer {
        let primary = self.port.to_string();
        Self::launch(&self.binaries, &primary, "").expect("a standby")
    }

    /// Waits until this standby has replayed what its primary has written so far.
    ///
    /// # Panics
    ///
    /// It has not within half a minute.
    pub fn catch_up(&self, primary: &TestServer) {
        let written = primary.execute("SELECT pg_current_wal_lsn()::text AS position");
        let written: String = written[0].get("position").expect("a position");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}' AS is_there");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.execute(&sql)[0]
            .get::<bool>("is_there")
            .expect("an answer")
        {
            assert!(Instant::now() < deadline, "the standby is not at {written}");
        }
    }

    /// The URL of its database `postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process that all others of the server are children of.
    pub fn process_id(&self) -> u32 {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid"));
        let file = file.expect("the server runs");
        let first = file.lines().next().expect("it names its process");
        first.trim().parse().expect("a number")
    }

    /// Ends the server as a loss of power would, as far as clients and the files can tell.
    pub fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Ends the server in order, and connections with it.
    pub fn stop(&self) {
        self.control(&["-m", "fast", "stop"]);
    }

    /// Starts it again, on the same port, after [`crash`](Self::crash) or [`stop`](Self::stop).
    pub fn start_again(&self) {
        let log = self.folder.join("log");
        self.control(&["-l", &log.to_string_lossy(), "start"]);
    }

    /// Makes a standby a primary, which it is when this returns.
    pub fn promote(&self) {
        self.control(&["promote"]);
    }

    /// Lets clients encrypt their connections; both arguments are PEM.
    pub fn enable_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.folder.join("data").join(name);
            fs::write(&path, text).expect("a file");
            // The server takes no key that others may read.
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("our own file");
            unprivileged::own(&path).expect("an account to run it");
        }
        self.execute("ALTER SYSTEM SET ssl = on");
        self.control(&["restart"]);
    }

    /// Lets in only those whom these lines of `pg_hba.conf` name.
    pub fn allow(&self, rules: &str) {
        let path = self.folder.join("data/pg_hba.conf");
        fs::write(&path, rules).expect("a file");
        unprivileged::own(&path).expect("an account to run it");
        self.control(&["restart"]);
    }

    /// Stops all its processes where they are, so that it takes connections and answers nothing, until what is returned is dropped.
    pub fn freeze(&self) -> Frozen {
        let process = self.process_id();
        let children = format!("/proc/{process}/task/{process}/children");
        let children = fs::read_to_string(children).expect("the server runs");
        let mut processes = vec![process.to_string()];
        processes.extend(children.split_whitespace().map(str::to_owned));
        let frozen = Frozen { processes };
        frozen.signal("-STOP");
        frozen
    }

    /// Executes a statement on a connection of its own.
    ///
    /// # Panics
    ///
    /// The server does not do what it is told.
    #[track_caller]
    pub fn execute(&self, sql: &str) -> Vec<Row> {
        let config = DatabaseConfig::new(self.url().parse().expect("a valid URL"));
        let scope = Scope::new().provide(ConfigService::new(config));
        let result = scope.run(|| {
            let rows = DatabaseService::execute_query(sql, params! {});
            singleton_core::registry().shutdown_all();
            rows
        });
        result.expect("the server does what it is told")
    }

    fn control(&self, arguments: &[&str]) {
        let status = unprivileged::command(self.binaries.join("pg_ctl"))
            .expect("an account to run it")
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-w", "-t", "60"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(
            status.success(),
            "pg_ctl {arguments:?}: {status}\n{}",
            log()
        );
    }
}

/// The processes of a server that goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    processes: Vec<String>,
}

impl Frozen {
    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        // One may have ended meanwhile.
        let _ = kill
            .arg(signal)
            .args(&self.processes)
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// Where the server's programs are, if they are installed. A link to one of them need not have the others beside it.
pub(crate) fn binaries() -> Option<PathBuf> {
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
        .filter_map(|folder| folder.join("initdb").canonicalize().ok())
        .filter_map(|initdb| Some(initdb.parent()?.to_owned()))
        .find(|folder| folder.join("pg_ctl").exists() && folder.join("pg_basebackup").exists())
}
