//! The parameters of libpq: their names, and the values that it accepts.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::url::UrlError;

/// A parameter of libpq, in a version from 13 to 18.
#[derive(PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
}

/// The form of a parameter's value.
#[derive(PartialEq, Eq)]
pub(super) enum Shape {
    /// Never shown.
    Secret,
    /// Shown if it is a plain name.
    Name,
    /// Shown if it is a plain path.
    Path,
    Hosts,
    Addresses,
    Ports,
    /// A whole number up to a maximum, and the range in an error.
    Number(i32, &'static str),
    /// One of these words.
    Word(&'static str),
    /// One of these words, in any case, or nothing.
    OptionalWord(&'static str),
    /// A comma-separated list of these words, each with or without an exclamation mark.
    Words(&'static str),
}

const fn parameter(name: &'static str, shape: Shape) -> Parameter {
    Parameter { name, shape }
}

/// libpq's parameters, from the table `PQconninfoOptions` in its `fe-connect.c`. The values are those that its
/// `pqConnectOptions2` accepts.
pub(super) static PARAMETERS: [Parameter; 53] = {
    use Shape::{Addresses, Hosts, Name, Number, OptionalWord, Path, Ports, Secret, Word, Words};
    const TLS_VERSIONS: &str = "one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3";
    const PROTOCOL_VERSIONS: &str = "one of 3.0, 3.2, latest";
    const SWITCH: &str = "one of 0, 1";
    const NUMBER: Shape = Number(i32::MAX, "a whole number up to 2147483647");
    const UP_TO_32767: Shape = Number(32_767, "a whole number up to 32767");
    [
        parameter("user", Name),
        parameter("password", Secret),
        parameter("host", Hosts),
        parameter("port", Ports),
        parameter("dbname", Name),
        parameter("hostaddr", Addresses),
        parameter("service", Name),
        parameter("passfile", Path),
        parameter("channel_binding", Word("one of disable, prefer, require")),
        // Before libpq 17 the time is counted in milliseconds, in 32 bits.
        parameter(
            "connect_timeout",
            Number(2_147_483, "a whole number up to 2147483"),
        ),
        parameter("client_encoding", Name),
        // It may set parameters of an application, which may be secrets.
        parameter("options", Secret),
        parameter("application_name", Name),
        parameter("fallback_application_name", Name),
        parameter("keepalives", NUMBER),
        // What Linux accepts.
        parameter("keepalives_idle", UP_TO_32767),
        parameter("keepalives_interval", UP_TO_32767),
        parameter("keepalives_count", Number(127, "a whole number up to 127")),
        parameter("tcp_user_timeout", NUMBER),
        parameter(
            "sslmode",
            Word("one of disable, allow, prefer, require, verify-ca, verify-full"),
        ),
        parameter("sslnegotiation", Word("one of postgres, direct")),
        parameter("sslcompression", Word(SWITCH)),
        parameter("sslcert", Path),
        parameter("sslkey", Path),
        parameter("sslcertmode", Word("one of disable, allow, require")),
        parameter("sslpassword", Secret),
        parameter("sslrootcert", Path),
        parameter("sslcrl", Path),
        parameter("sslcrldir", Path),
        parameter("sslsni", Word(SWITCH)),
        parameter("sslkeylogfile", Path),
        parameter("requirepeer", Name),
        parameter(
            "require_auth",
            Words("a list of password, md5, gss, sspi, scram-sha-256, oauth, none"),
        ),
        parameter("min_protocol_version", Word(PROTOCOL_VERSIONS)),
        parameter("max_protocol_version", Word(PROTOCOL_VERSIONS)),
        parameter("ssl_min_protocol_version", OptionalWord(TLS_VERSIONS)),
        parameter("ssl_max_protocol_version", OptionalWord(TLS_VERSIONS)),
        parameter("gssencmode", Word("one of disable, prefer, require")),
        parameter("krbsrvname", Name),
        parameter("gsslib", OptionalWord("one of gssapi, sspi")),
        parameter("gssdelegation", Word(SWITCH)),
        parameter(
            "replication",
            OptionalWord("one of database, true, on, yes, 1, false, off, no, 0"),
        ),
        parameter(
            "target_session_attrs",
            Word("one of any, read-write, read-only, primary, standby, prefer-standby"),
        ),
        parameter("load_balance_hosts", Word("one of disable, random")),
        parameter("scram_client_key", Secret),
        parameter("scram_server_key", Secret),
        parameter("oauth_issuer", Secret),
        parameter("oauth_client_id", Secret),
        parameter("oauth_client_secret", Secret),
        parameter("oauth_scope", Secret),
        // Ignored by libpq 13, and unknown to later versions.
        parameter("authtype", Secret),
        parameter("tty", Secret),
        parameter("requiressl", Word(SWITCH)),
    ]
};

impl Parameter {
    /// Refuses what libpq would quote in an error.
    pub(super) fn check(&self, value: &str) -> Result<(), UrlError> {
        let words_of = |expected: &'static str| {
            let list = expected.trim_start_matches("one of ");
            list.trim_start_matches("a list of ").split(", ")
        };
        let all = |is_right: fn(&str) -> bool| value.split(',').all(is_right);
        let (is_right, expected) = match self.shape {
            Shape::Secret | Shape::Path => return Ok(()),
            // A password may follow an encoded colon.
            Shape::Name if self.name == "user" => (!value.contains(':'), "a name without a colon"),
            Shape::Name => return Ok(()),
            Shape::Hosts => (
                all(is_host),
                "a list of host names, IP addresses and absolute paths",
            ),
            Shape::Addresses => (all(is_address), "a list of IP addresses"),
            Shape::Ports => (all(is_port), "a number between 1 and 65535 for each host"),
            Shape::Number(maximum, expected) => (
                value.parse().is_ok_and(|number: i32| number <= maximum),
                expected,
            ),
            Shape::Word(words) => (words_of(words).any(|word| word == value), words),
            Shape::OptionalWord(words) => {
                let is_known = words_of(words).any(|word| word.eq_ignore_ascii_case(value));
                (value.is_empty() || is_known, words)
            }
            Shape::Words(words) => {
                let is_known = |method: &str| {
                    let method = method.strip_prefix('!').unwrap_or(method);
                    words_of(words).any(|word| word == method)
                };
                (value.is_empty() || value.split(',').all(is_known), words)
            }
        };
        let name = self.name;
        is_right
            .then_some(())
            .ok_or(UrlError::InvalidParameter { name, expected })
    }
}

/// Returns the parameter with a name that is in the table.
pub(super) fn known(name: &str) -> &'static Parameter {
    let known = PARAMETERS.iter().find(|known| known.name == name);
    known.expect("it is in the table")
}

/// Returns the parameter that was probably meant. The name in the URL is not shown, because it may be a part of a
/// password.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
    let (name, min) = (plain(name), 4);
    let mut known = PARAMETERS.iter().map(|known| known.name);
    known.find(|known| {
        let known = plain(known);
        known == name
            || name.len() >= min && known.starts_with(&name)
            || known.len() >= min && name.starts_with(&known)
    })
}

fn is_host(host: &str) -> bool {
    if host.starts_with(['/', '@']) {
        is_plain_path(host)
    } else if cfg!(windows) && host.get(1..3) == Some(":\\") {
        is_plain_path(&host[3..])
    } else if host.contains(':') {
        is_address(host)
    } else {
        // An address of fe80::1%eth0 has a colon.
        host.chars()
            .all(|next| next.is_alphanumeric() || "-._".contains(next))
    }
}

fn is_address(address: &str) -> bool {
    let (plain, zone) = address.split_once('%').unwrap_or((address, ""));
    address.is_empty()
        || address.parse::<Ipv4Addr>().is_ok()
        || plain.parse::<Ipv6Addr>().is_ok()
            && zone
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Returns whether a port is valid. An empty one is the default.
fn is_port(port: &str) -> bool {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.is_empty() || is_number && port.parse::<u16>().is_ok_and(|port| port > 0)
}

pub(super) fn is_plain_path(path: &str) -> bool {
    let mut chars = path.chars();
    chars.all(|next| next.is_alphanumeric() || "/._-+~@ ()\\".contains(next))
}
