//! The PostgreSQL server that all tests of a process share, and the handling of missing programs.

use std::io::{self, Write};
use std::sync::OnceLock;

use crate::server::{self, TestServer};

enum SharedServer {
    External(String),
    Temporary { url: String, _server: TestServer },
    Missing,
}

/// Returns the URL of the shared server: `TEST_DATABASE_URL`, or that of a temporary server, which the first call
/// starts.
///
/// Returns `None` if PostgreSQL is not installed.
///
/// # Panics
///
/// Panics if the temporary server does not start, or if PostgreSQL is not installed and `REQUIRE_POSTGRES=1`.
#[track_caller]
pub(crate) fn url() -> Option<&'static str> {
    static SERVER: OnceLock<SharedServer> = OnceLock::new();
    match SERVER.get_or_init(|| start().expect("a PostgreSQL server for the tests")) {
        SharedServer::External(url) | SharedServer::Temporary { url, .. } => Some(url),
        SharedServer::Missing => {
            report_skip_without_postgres();
            None
        }
    }
}

/// Reports that a test is skipped because PostgreSQL is not installed.
///
/// # Panics
///
/// Panics if `REQUIRE_POSTGRES=1`.
#[track_caller]
pub(crate) fn report_skip_without_postgres() {
    report_skip(
        "install PostgreSQL (Debian: apt-get install postgresql), or set TEST_DATABASE_URL",
    );
}

/// Prints to standard error that a test is skipped. `hint` says how to avoid it.
///
/// # Panics
///
/// Panics if `REQUIRE_POSTGRES=1`.
#[track_caller]
pub(crate) fn report_skip(hint: &str) {
    assert!(
        std::env::var_os("REQUIRE_POSTGRES").is_none_or(|value| value != "1"),
        "REQUIRE_POSTGRES=1, but the test cannot run: {hint}"
    );
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // The test runner captures the output of `eprintln!`, but not this.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {hint}");
}

fn start() -> anyhow::Result<SharedServer> {
    if let Some(url) = std::env::var("TEST_DATABASE_URL")
        .ok()
        .filter(|url| !url.is_empty())
    {
        return Ok(SharedServer::External(url));
    }
    let Some(binaries) = server::binaries() else {
        return Ok(SharedServer::Missing);
    };
    let server = TestServer::with_binaries(&binaries)?;
    Ok(SharedServer::Temporary {
        url: server.url(),
        _server: server,
    })
}
