//! Opening a connection touches no socket and no file lock of the program, whether the host answers or not. If no file
//! descriptor is left, the error shows this reason.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use rustix::fs::FlockOperation;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use singleton_core::testing::Scope;
use tests::TestDatabase;

on_both_backends!(connect_error_shows_that_no_file_descriptor_is_left);

/// Returns the number of locks to take and of bytes to exchange over sockets. The default is 100,000; `FUZZ_INPUTS`
/// sets another number.
fn rounds() -> u32 {
    let rounds = std::env::var("FUZZ_INPUTS").ok();
    rounds
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(100_000)
}

/// A port on each address of `localhost` that completes no connection, because its accept queue is full.
struct UnresponsiveHost {
    port: u16,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl UnresponsiveHost {
    fn start() -> Self {
        let socket = rustix::net::socket_with(
            AddressFamily::INET6,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        );
        let socket = socket.unwrap();
        rustix::net::sockopt::set_ipv6_v6only(&socket, false).unwrap();
        rustix::net::bind(&socket, &SocketAddr::from(([0u16; 8], 0))).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let timeout = Duration::from_millis(100);
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, timeout) {
            queue.push(stream);
        }
        UnresponsiveHost {
            port: address.port(),
            _listener: listener,
            _queue: queue,
        }
    }
}

/// Opens services one after the other until `end` is set.
fn open_until(end: &AtomicBool, config: &DatabaseConfig, is_unresponsive: bool) {
    while !end.load(Ordering::Relaxed) {
        let scope = Scope::new().provide(ConfigService::new(config.clone()));
        let answer = scope.run(|| {
            let answer = DatabaseService::execute_query("SELECT 1", params! {});
            singleton_core::registry().shutdown_all();
            answer
        });
        assert_eq!(
            matches!(answer, Err(DbError::Service(_))),
            is_unresponsive,
            "{answer:?}"
        );
    }
}

/// Opens sockets to other processes one after the other, and exchanges 1,000 bytes over each.
fn use_sockets(rounds: u32) {
    const USES: u32 = 1000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exec cat <&3 >&3");
    for round in 0..rounds / USES {
        let mut echo = Command::new("bash").args(["-c", &script]).spawn().unwrap();
        let mut stream = listener.accept().unwrap().0;
        for _ in 0..USES {
            let mut byte = [0];
            let used = stream
                .write_all(&[7])
                .and_then(|()| stream.read_exact(&mut byte));
            used.unwrap_or_else(|error| panic!("round {round}: the socket was shut down: {error}"));
        }
        drop(stream);
        echo.wait().unwrap();
    }
}

/// Takes file locks, and checks that each is still held after another descriptor was opened and closed.
fn use_locks(rounds: u32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locked");
    let pid = format!(" {} ", std::process::id());
    for round in 0..rounds {
        let file = File::create(&path).unwrap();
        rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        let inode = format!(":{} 0 EOF", file.metadata().unwrap().ino());
        drop(File::open("/dev/null").unwrap());
        thread::yield_now();
        // The list can change while it is read, so this reads it up to 10 times. A lost lock stays lost.
        let is_held = || {
            let locks = fs::read_to_string("/proc/locks").unwrap();
            // 1: POSIX ADVISORY WRITE 4711 fe:01:131 0 EOF
            locks
                .lines()
                .any(|lock| lock.contains("POSIX") && lock.contains(&pid) && lock.ends_with(&inode))
        };
        assert!(
            (0..10).any(|_| is_held()),
            "round {round}: the lock is lost"
        );
    }
}

fn connect_while_descriptors_are_used(config: &DatabaseConfig, is_unresponsive: bool) {
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| open_until(&end, config, is_unresponsive));
        }
        let sockets = scope.spawn(|| use_sockets(rounds()));
        let locks = scope.spawn(|| use_locks(rounds()));
        let outcomes = [sockets.join(), locks.join()];
        end.store(true, Ordering::Relaxed);
        for outcome in outcomes {
            outcome.unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        }
    });
}

#[test]
fn connecting_to_an_unresponsive_host_touches_no_foreign_descriptor() {
    let Some(_) = TestDatabase::postgres() else {
        return;
    };
    let host = UnresponsiveHost::start();
    let url = format!("postgresql://postgres@localhost:{}/postgres", host.port);
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.postgres.connect_timeout = Some(Duration::from_secs(2));
    config.postgres.tcp_user_timeout = None;
    for socket_timeout in [None, Some(Duration::from_secs(1))] {
        config.postgres.socket_timeout = socket_timeout;
        connect_while_descriptors_are_used(&config, true);
    }
}

#[test]
fn connecting_to_a_server_touches_no_foreign_descriptor() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for socket_timeout in [None, Some(Duration::from_secs(5))] {
        let mut config = database.config();
        config.postgres.socket_timeout = socket_timeout;
        connect_while_descriptors_are_used(&config, false);
    }
}

fn connect_error_shows_that_no_file_descriptor_is_left(database: &TestDatabase) {
    for mode in ["direct", "relay"] {
        let output = Command::new("prlimit")
            .args([
                "--nofile=64:64",
                env!("CARGO_BIN_EXE_exhausted"),
                database.url(),
                mode,
            ])
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("Too many open files"), "{mode}: {output:?}");
    }
}
