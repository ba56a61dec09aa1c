//! Opening of a connection through a relay, to the servers of a URL in libpq's order.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use diesel::ConnectionError;
use diesel::connection::Connection;
use diesel::pg::PgConnection;

use crate::config::DatabaseConfig;
use crate::config::{Host, PostgresUrl};
use crate::error::DbError;
use crate::watchdog::{Destination, Keepalive, Link, Relay};

/// The environment variables that libpq reads for parameters that the URL does not set.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
];

/// PostgreSQL's default port.
const PORT: u16 = 5432;

/// A server of a URL, and the parameters with which the driver connects to it through a relay.
#[derive(Debug, PartialEq)]
struct Server {
    /// The host name for the check of the certificate and the lookup of the password.
    name: String,
    destination: Destination,
}

/// Opens a connection with the URL's parameters. Tries each server with each requested kind of session, as libpq does.
/// Unlike libpq, also tries the next server after a refused login.
pub(crate) fn establish(url: &str) -> Result<(PgConnection, Arc<Link>), Failure> {
    let url = parse(url).and_then(|url| completed(&url, |name| env::var(name).ok()));
    let url = url.map_err(Failure::Refused)?;
    let mut servers = servers(&url).map_err(Failure::Refused)?;
    if url.parameter("load_balance_hosts") == Some("random") {
        fastrand::shuffle(&mut servers);
    }
    let wanted = url.parameter("target_session_attrs");
    let sessions: &[_] = match wanted {
        Some("prefer-standby") => &["standby", "any"],
        other => &[other.unwrap_or("any")],
    };
    let mut failures = Vec::new();
    for session in sessions {
        for server in &servers {
            match through_relay(&url, server, session) {
                Ok(opened) => return Ok(opened),
                Err(Failure::Driver(ConnectionError::BadConnection(text))) => failures.push(text),
                Err(failure) => return Err(failure),
            }
        }
    }
    // One line per failure, as in libpq's message.
    let failures = failures.join("\n");
    Err(Failure::Driver(ConnectionError::BadConnection(failures)))
}

/// The reason why no connection was opened.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A relay does not support the settings.
    Refused(String),
    /// The driver's error, or one of this crate in the driver's form.
    Driver(ConnectionError),
}

impl Failure {
    pub(crate) fn into_error(self, config: &DatabaseConfig) -> DbError {
        let target = config.url.to_string();
        match self {
            Failure::Refused(reason) => DbError::not_connected(target, reason),
            Failure::Driver(source) => DbError::connect(target, source),
        }
    }
}

/// Returns the URL with the parameters that libpq would read from the environment.
fn completed(
    url: &PostgresUrl,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<PostgresUrl, String> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if url.parameter("service").is_some() || set("PGSERVICE").is_some() {
        return Err(
            "DB_SOCKET_TIMEOUT needs the host in DATABASE_URL, and not in a service file"
                .to_owned(),
        );
    }
    let added: Vec<_> = ENVIRONMENT
        .into_iter()
        .filter(|(parameter, _)| url.parameter(parameter).is_none())
        .filter_map(|(parameter, name)| Some((parameter, set(name)?)))
        .collect();
    let added: Vec<_> = added
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    parse(&url.with_parameters(&added))
}

fn parse(url: &str) -> Result<PostgresUrl, String> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    PostgresUrl::parse(rest).map_err(|error| error.to_string())
}

fn servers(url: &PostgresUrl) -> Result<Vec<Server>, String> {
    let is_peer_checked = url
        .parameter("requirepeer")
        .is_some_and(|peer| !peer.is_empty());
    let servers: Vec<_> = url
        .hosts()
        .into_iter()
        .map(server)
        .collect::<Result<_, _>>()?;
    let is_local = |server: &Server| matches!(server.destination, Destination::Unix(_));
    if is_peer_checked && servers.iter().any(is_local) {
        return Err(
            "requirepeer cannot be checked with DB_SOCKET_TIMEOUT; leave one of them out"
                .to_owned(),
        );
    }
    Ok(servers)
}

fn server(
    Host {
        host,
        hostaddr,
        port,
    }: Host<'_>,
) -> Result<Server, String> {
    let port = port.unwrap_or(PORT);
    let name = host.or(hostaddr).ok_or(
        "DB_SOCKET_TIMEOUT needs a host in DATABASE_URL, such as ?host=/run/postgresql for a Unix socket",
    )?;
    let destination = match hostaddr {
        None if name.starts_with('@') => {
            return Err("DB_SOCKET_TIMEOUT is not for abstract Unix sockets".to_owned());
        }
        None if name.starts_with('/') => {
            Destination::Unix(Path::new(name).join(format!(".s.PGSQL.{port}")))
        }
        address => Destination::Tcp(address.unwrap_or(name).to_owned(), port),
    };
    Ok(Server {
        name: name.to_owned(),
        destination,
    })
}

fn through_relay(
    url: &PostgresUrl,
    server: &Server,
    session: &str,
) -> Result<(PgConnection, Arc<Link>), Failure> {
    let failed = |error: io::Error| {
        let place = match &server.destination {
            Destination::Tcp(_, port) => format!("at \"{}\", port {port}", server.name),
            Destination::Unix(path) => format!("on socket \"{}\"", path.display()),
        };
        let error = match error.kind() {
            io::ErrorKind::TimedOut => "timeout expired".to_owned(),
            _ => error.to_string(),
        };
        // std appends the error number, which libpq's messages do not contain.
        let reason = error.split(" (os error").next().unwrap_or_default();
        let text = format!("connection to server {place} failed: {reason}");
        Failure::Driver(ConnectionError::BadConnection(text))
    };
    let destination = server.destination.clone();
    let relay = Relay::connect(destination, keepalive(url), limit(url)).map_err(failed)?;
    let port = relay.port().to_string();
    let mut replaced = vec![
        ("host", server.name.as_str()),
        ("hostaddr", "127.0.0.1"),
        ("port", &port),
        ("target_session_attrs", session),
    ];
    if matches!(server.destination, Destination::Unix(_)) {
        // libpq does not encrypt on Unix sockets.
        replaced.extend([("sslmode", "disable"), ("gssencmode", "disable")]);
    }
    let links = relay.start().map_err(failed)?;
    let url = url.with_parameters(&replaced);
    let connection = PgConnection::establish(&url).map_err(Failure::Driver)?;
    match links.last() {
        Some(link) => Ok((connection, link)),
        None => Err(failed(io::ErrorKind::NotConnected.into())),
    }
}

/// Returns the timeout of each address, parsed like libpq's `connect_timeout`.
fn limit(url: &PostgresUrl) -> Option<Duration> {
    let seconds: u64 = url.parameter("connect_timeout")?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds.max(2)))
}

/// Returns the keepalive settings that libpq would apply to its own socket, with the defaults of libpq and the system.
fn keepalive(url: &PostgresUrl) -> Keepalive {
    let number = |name: &str| {
        let number: Option<u32> = url.parameter(name).and_then(|value| value.parse().ok());
        number.filter(|number| *number > 0)
    };
    let seconds =
        |name: &str, default: u64| Duration::from_secs(number(name).map_or(default, u64::from));
    let is_probed = url.parameter("keepalives") != Some("0");
    Keepalive {
        probes: is_probed.then(|| {
            (
                seconds("keepalives_idle", 7200),
                seconds("keepalives_interval", 75),
                number("keepalives_count").unwrap_or(9),
            )
        }),
        user_timeout: number("tcp_user_timeout"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str, environment: &[(&str, &str)]) -> Result<Vec<Server>, String> {
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        servers(&completed(&PostgresUrl::parse(url).unwrap(), variable)?)
    }

    fn tcp(name: &str, address: &str, port: u16) -> Server {
        Server {
            name: name.to_owned(),
            destination: Destination::Tcp(address.to_owned(), port),
        }
    }

    #[test]
    fn servers_come_from_the_url_and_the_environment() {
        assert_eq!(
            of("u@a:1,b/d", &[("PGHOST", "c")]),
            Ok(vec![tcp("a", "a", 1), tcp("b", "b", 5432)])
        );
        assert_eq!(
            of("/d?host=a&hostaddr=10.0.0.1&port=7", &[]),
            Ok(vec![tcp("a", "10.0.0.1", 7)])
        );
        assert_eq!(
            of("/d", &[("PGHOST", "a,b"), ("PGPORT", "6")]),
            Ok(vec![tcp("a", "a", 6), tcp("b", "b", 6)])
        );
        assert_eq!(
            of("[::1]:1/d", &[("PGHOSTADDR", "")]),
            Ok(vec![tcp("::1", "::1", 1)])
        );
        let local = Server {
            name: "/run/postgresql".to_owned(),
            destination: Destination::Unix("/run/postgresql/.s.PGSQL.5433".into()),
        };
        assert_eq!(
            of("/d?host=/run/postgresql&port=5433", &[]),
            Ok(vec![local])
        );
    }

    #[test]
    fn settings_that_a_relay_cannot_support_are_refused_with_the_reason() {
        for (url, environment, reason) in [
            ("/d", &[][..], "needs a host"),
            ("a/d?service=x", &[], "service file"),
            ("a/d", &[("PGSERVICE", "x")], "service file"),
            ("/d?host=/tmp&requirepeer=postgres", &[], "requirepeer"),
            ("/d?host=@tmp", &[], "abstract"),
        ] {
            let error = of(url, environment).unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn keepalive_parameters_are_applied_like_libpq() {
        let of = |query: &str| keepalive(&PostgresUrl::parse(&format!("a/d{query}")).unwrap());
        let seconds = Duration::from_secs;
        let probes = Some((seconds(7200), seconds(75), 9));
        assert_eq!(of("").probes, probes);
        assert_eq!(
            of("?keepalives_idle=1&keepalives_interval=2&keepalives_count=3").probes,
            Some((seconds(1), seconds(2), 3))
        );
        assert_eq!(
            of("?keepalives=0&tcp_user_timeout=5"),
            Keepalive {
                probes: None,
                user_timeout: Some(5)
            }
        );
    }
}
