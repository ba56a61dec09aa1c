//! A PostgreSQL server for tests: the one named by `TEST_DATABASE_URL`, or a throw-away one.

use std::io::{self, Write};
use std::sync::OnceLock;

use crate::server::{self, TestServer};

enum Server {
    Given(String),
    ThrowAway { url: String, _server: TestServer },
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

/// Says that a test is passed over for want of PostgreSQL, unless that is a failure.
pub(crate) fn skip() {
    skip_for_want_of(
        "install PostgreSQL (Debian: apt-get install postgresql), or set TEST_DATABASE_URL",
    );
}

/// Says that a test is passed over, and what to do about it, unless `REQUIRE_POSTGRES=1` makes that a failure.
pub(crate) fn skip_for_want_of(hint: &str) {
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
    let Some(binaries) = server::binaries() else {
        return Ok(Server::Missing);
    };
    let server = TestServer::with_binaries(&binaries)?;
    Ok(Server::ThrowAway {
        url: server.url(),
        _server: server,
    })
}
