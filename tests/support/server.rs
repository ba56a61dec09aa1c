//! A PostgreSQL server for one test.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, Row, params};
use singleton_core::testing::Scope;

use crate::shared_server;
use crate::unprivileged::{self, Supervisor};

/// The directory in which Debian and Ubuntu install each version's programs. It is not in `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Creates and starts a new server, or a standby of the server at the port `$primary`.
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
    # The system may lack the locale, so the server gets its own. The warnings of localedef do not matter.
    mkdir "$dir/locales" && localedef -i "$language" -f UTF-8 "$dir/locales/$language.UTF-8" >>"$dir/log" 2>&1
    export LOCPATH="$dir/locales"
    echo "lc_messages = '$language.UTF-8'" >>"$dir/data/postgresql.conf"
fi &&
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 start >/dev/null 2>&1 &&
echo ready || echo failed
cat >/dev/null
# The server may be stopped by SIGSTOP. It must continue to receive the request to shut down.
[ -s "$dir/data/postmaster.pid" ] && kill -CONT "$(head -n 1 "$dir/data/postmaster.pid")" 2>/dev/null
"$bin/pg_ctl" -D "$dir/data" -w -m immediate stop >/dev/null 2>&1
rm -rf "$dir"
"#;

/// A PostgreSQL server for one test. Dropping it ends the server and deletes its files.
///
/// It listens on 127.0.0.1 and accepts the user `postgres` without a password. `fsync` is off, so its files can be
/// damaged by a crash of the operating system, but not by [`crash`](Self::crash).
#[derive(Debug)]
pub struct TestServer {
    binaries: PathBuf,
    directory: PathBuf,
    port: u16,
    _supervisor: Supervisor,
}

impl TestServer {
    /// Starts a server with no tables.
    ///
    /// Returns `None`, and prints why, if PostgreSQL is not installed.
    ///
    /// # Panics
    ///
    /// Panics if the server does not start within 60 seconds, or if PostgreSQL is not installed and
    /// `REQUIRE_POSTGRES=1`.
    ///
    /// # Examples
    ///
    /// ```
    /// use tests::TestServer;
    ///
    /// fn test() {
    ///     let Some(server) = TestServer::start() else {
    ///         return;
    ///     };
    ///     server.execute("CREATE TABLE items (name text)");
    ///     server.crash();
    ///     server.start_again();
    ///     assert!(server.execute("SELECT name FROM items").is_empty());
    /// }
    /// # test();
    /// ```
    #[track_caller]
    pub fn start() -> Option<Self> {
        let Some(binaries) = binaries() else {
            shared_server::report_skip_without_postgres();
            return None;
        };
        Some(Self::with_binaries(&binaries).expect("a PostgreSQL server"))
    }

    pub(crate) fn with_binaries(binaries: &Path) -> anyhow::Result<Self> {
        // Another process may take the free port before the server does.
        Self::launch(binaries, "", "").or_else(|_| Self::launch(binaries, "", ""))
    }

    /// Starts a server that reports errors in `language`, such as `fr_FR`.
    ///
    /// Returns `None`, and prints why, if PostgreSQL, its translations, `localedef` or the sources of the locale are
    /// not installed, or if the server does not start.
    ///
    /// # Panics
    ///
    /// Panics in place of returning `None` if `REQUIRE_POSTGRES=1`.
    #[track_caller]
    pub fn start_in_language(language: &str) -> Option<Self> {
        let Some(binaries) = binaries() else {
            shared_server::report_skip_without_postgres();
            return None;
        };
        let server = Self::launch(&binaries, "", language)
            .or_else(|_| Self::launch(&binaries, "", language))
            .ok()
            .filter(|server| server.has_translated_messages());
        if server.is_none() {
            shared_server::report_skip(
                "install localedef, the sources of locales (Debian: apt-get install locales) and PostgreSQL's translations",
            );
        }
        server
    }

    fn has_translated_messages(&self) -> bool {
        let config = DatabaseConfig::new(self.url().parse().expect("a valid URL"));
        let scope = Scope::new().provide(ConfigService::new(config));
        let error = scope.run(|| DatabaseService::execute_query("SELECT 1 / 0", params! {}));
        let message = error.err().and_then(|error| match error {
            DbError::Query(error) => Some(error.driver_error().to_string()),
            _ => None,
        });
        message.is_some_and(|message| !message.contains("division by zero"))
    }

    fn launch(binaries: &Path, primary: &str, language: &str) -> anyhow::Result<Self> {
        let temporary = tempfile::Builder::new()
            .prefix("test-postgres-")
            .tempdir()?;
        let directory = temporary.path().to_owned();
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let arguments = [
            &*binaries.to_string_lossy(),
            &port.to_string(),
            primary,
            language,
        ];
        let supervisor = Supervisor::start(temporary, SUPERVISOR, &arguments)?;
        Ok(TestServer {
            binaries: binaries.to_owned(),
            directory,
            port,
            _supervisor: supervisor,
        })
    }

    /// Copies the server and starts the copy as a hot standby.
    ///
    /// The standby replays what this server writes, by streaming replication. Its setting `cluster_name` is `standby`.
    ///
    /// # Panics
    ///
    /// Panics if the standby does not start within 60 seconds.
    #[track_caller]
    pub fn standby(&self) -> TestServer {
        let primary = self.port.to_string();
        Self::launch(&self.binaries, &primary, "").expect("a standby")
    }

    /// Waits until this standby has replayed everything that `primary` has written so far.
    ///
    /// # Panics
    ///
    /// Panics if that takes more than 30 seconds.
    #[track_caller]
    pub fn wait_for_catchup(&self, primary: &TestServer) {
        let written = primary.execute("SELECT pg_current_wal_lsn()::text AS position");
        let written: String = written[0].get("position").expect("a WAL position");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}' AS is_replayed");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.execute(&sql)[0]
            .get::<bool>("is_replayed")
            .expect("a boolean")
        {
            assert!(
                Instant::now() < deadline,
                "the standby has not replayed the WAL up to {written} within 30 s"
            );
        }
    }

    /// Returns the URL of the database `postgres`.
    pub fn url(&self) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Returns the TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the process ID of the postmaster, the parent of all processes of the server.
    ///
    /// # Panics
    ///
    /// Panics if the server is not running.
    #[track_caller]
    pub fn process_id(&self) -> u32 {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let file = file.expect("the server is running");
        let first = file.lines().next().expect("a line with the process ID");
        first.trim().parse().expect("a number")
    }

    /// Ends the server without a checkpoint. For clients and for the server's files, this is like a loss of power.
    ///
    /// # Panics
    ///
    /// Panics if the server is not running, or does not end within 60 seconds.
    #[track_caller]
    pub fn crash(&self) {
        self.control(&["-m", "immediate", "stop"]);
    }

    /// Shuts the server down. It rolls back open transactions and closes all connections.
    ///
    /// # Panics
    ///
    /// Panics if the server is not running, or does not end within 60 seconds.
    #[track_caller]
    pub fn stop(&self) {
        self.control(&["-m", "fast", "stop"]);
    }

    /// Starts the server on the same port after [`crash`](Self::crash) or [`stop`](Self::stop).
    ///
    /// # Panics
    ///
    /// Panics if the server does not start within 60 seconds.
    #[track_caller]
    pub fn start_again(&self) {
        let log = self.directory.join("log");
        self.control(&["-l", &log.to_string_lossy(), "start"]);
    }

    /// Promotes a standby, and waits until it is a primary.
    ///
    /// # Panics
    ///
    /// Panics if the server is not a standby, or is not a primary within 60 seconds.
    #[track_caller]
    pub fn promote(&self) {
        self.control(&["promote"]);
    }

    /// Turns TLS on and restarts the server. `certificate` and `key` are PEM. Unencrypted connections stay possible.
    ///
    /// # Panics
    ///
    /// Panics if the server does not restart within 60 seconds, for example because the key does not match.
    #[track_caller]
    pub fn enable_tls(&self, certificate: &str, key: &str) {
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.directory.join("data").join(name);
            fs::write(&path, text).expect("a file");
            // The server rejects a key that others can read.
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a file of this user");
            unprivileged::give_to_unprivileged_user(&path).expect("a user to run the server as");
        }
        self.execute("ALTER SYSTEM SET ssl = on");
        self.control(&["restart"]);
    }

    /// Replaces `pg_hba.conf`, the rules for who may connect, with `rules` and restarts the server.
    ///
    /// # Panics
    ///
    /// Panics if the server does not restart within 60 seconds, for example because a rule is invalid.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn test() {
    /// # let Some(server) = tests::TestServer::start() else { return };
    /// // Accepts the user `postgres` only.
    /// server.set_access_rules("host all postgres 127.0.0.1/32 trust\n");
    /// server.execute("SELECT 1");
    /// # }
    /// # test();
    /// ```
    #[track_caller]
    pub fn set_access_rules(&self, rules: &str) {
        let path = self.directory.join("data/pg_hba.conf");
        fs::write(&path, rules).expect("a file");
        unprivileged::give_to_unprivileged_user(&path).expect("a user to run the server as");
        self.control(&["restart"]);
    }

    /// Stops all processes of the server with `SIGSTOP`. They continue when the returned value is dropped.
    ///
    /// The system still accepts TCP connections meanwhile, but nothing answers on them.
    ///
    /// # Panics
    ///
    /// Panics if the server is not running.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn test() {
    /// # let Some(server) = tests::TestServer::start() else { return };
    /// let frozen = server.freeze();
    /// // Calls time out here.
    /// drop(frozen);
    /// server.execute("SELECT 1");
    /// # }
    /// # test();
    /// ```
    #[track_caller]
    pub fn freeze(&self) -> FrozenServer {
        let process = self.process_id();
        let children = format!("/proc/{process}/task/{process}/children");
        let children = fs::read_to_string(children).expect("the server is running");
        let mut processes = vec![process.to_string()];
        processes.extend(children.split_whitespace().map(str::to_owned));
        let frozen = FrozenServer { processes };
        frozen.signal("-STOP");
        frozen
    }

    /// Executes a statement on a new connection, as the user `postgres`, and closes the connection.
    ///
    /// # Panics
    ///
    /// Panics if the statement fails.
    #[track_caller]
    pub fn execute(&self, sql: &str) -> Vec<Row> {
        let config = DatabaseConfig::new(self.url().parse().expect("a valid URL"));
        let scope = Scope::new().provide(ConfigService::new(config));
        let result = scope.run(|| {
            let rows = DatabaseService::execute_query(sql, params! {});
            singleton_core::registry().shutdown_all();
            rows
        });
        result.expect("the server executes the statement")
    }

    #[track_caller]
    fn control(&self, arguments: &[&str]) {
        let status = unprivileged::command(self.binaries.join("pg_ctl"))
            .expect("a user to run pg_ctl as")
            .arg("-D")
            .arg(self.directory.join("data"))
            .args(["-w", "-t", "60"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("pg_ctl runs");
        let log = || fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        assert!(
            status.success(),
            "pg_ctl {arguments:?}: {status}\n{}",
            log()
        );
    }
}

/// The stopped processes of a [`TestServer`]. Dropping it lets them continue.
///
/// [`TestServer::freeze`] returns it.
#[derive(Debug)]
pub struct FrozenServer {
    processes: Vec<String>,
}

impl FrozenServer {
    fn signal(&self, signal: &str) {
        let mut kill = Command::new("kill");
        // `kill` fails if one of the processes has ended meanwhile.
        let _ = kill
            .arg(signal)
            .args(&self.processes)
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for FrozenServer {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// Returns the directory of PostgreSQL's programs, or `None` if they are not installed.
///
/// Resolves symbolic links, because a directory with a link to one program may lack the others.
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
        .filter_map(|directory| directory.join("initdb").canonicalize().ok())
        .filter_map(|initdb| Some(initdb.parent()?.to_owned()))
        .find(|directory| {
            directory.join("pg_ctl").exists() && directory.join("pg_basebackup").exists()
        })
}
