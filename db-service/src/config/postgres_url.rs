//! PostgreSQL URLs, parsed as libpq parses them.
//!
//! libpq's messages quote the parts that it cannot parse, which can be parts of a password. So everything that libpq's
//! parser would refuse is refused here first, with an error that quotes nothing.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::percent_decode_str;
#[cfg(any(feature = "postgres", test))]
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::settings::TlsMode;
use super::url::UrlError;
use singleton_core::__private::Escaped;

const HIDDEN: &str = "***";

/// The libpq parameters that a URL sets.
///
/// The names are libpq's: `user`, `password`, `host`, `port` and `dbname` for the parts before the question mark.
/// `ssl=true` and `requiressl` are stored as the equivalent `sslmode`. `Display` hides each value that may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PostgresUrl {
    /// The parameters in the order of the URL, each at most once.
    parts: Vec<Part>,
}

#[derive(Clone, PartialEq, Eq)]
struct Part {
    parameter: &'static Parameter,
    /// Decoded.
    value: String,
    /// Whether it comes after the question mark.
    in_query: bool,
}

/// A server that a URL names. `None` leaves a part to libpq and its environment variables.
#[cfg(any(feature = "postgres", test))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    /// The host name, an IP address, or the directory of a Unix socket.
    pub(crate) host: Option<&'a str>,
    /// The IP address to connect to, instead of resolving `host`.
    pub(crate) hostaddr: Option<&'a str>,
    pub(crate) port: Option<u16>,
}

/// A parameter of libpq, in a version from 13 to 18.
#[derive(PartialEq, Eq)]
struct Parameter {
    name: &'static str,
    shape: Shape,
}

/// The form of a parameter's value.
#[derive(PartialEq, Eq)]
enum Shape {
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
static PARAMETERS: [Parameter; 53] = {
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

impl PostgresUrl {
    /// Parses what follows `postgresql://`, as `conninfo_uri_parse_options` of libpq does.
    pub(crate) fn parse(rest: &str) -> Result<Self, UrlError> {
        if rest.contains(|next: char| next.is_whitespace() || next.is_control()) {
            return Err(UrlError::WhiteSpace);
        }
        // The user's part ends at the first @, unless a slash comes before it.
        let (user, place) = match rest.find(['@', '/']) {
            Some(end) if rest[end..].starts_with('@') => (&rest[..end], &rest[end + 1..]),
            _ => ("", rest),
        };
        let (location, query) = place.split_once('?').unwrap_or((place, ""));
        let (hosts, database) = location.split_once('/').unwrap_or((location, ""));
        if user.contains(['?', '#'])
            || user.matches(':').count() > 1
            || hosts.contains('@')
            || database.contains(['@', ':'])
        {
            return Err(UrlError::UnencodedCharacter);
        }
        if location.contains(['&', ';', '#', '=']) {
            return Err(UrlError::UnencodedSeparator);
        }
        let mut url = PostgresUrl { parts: Vec::new() };
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        let (hosts, ports) = hosts_and_ports(hosts)?;
        for (name, value) in [
            ("user", user),
            ("password", password),
            ("host", &hosts),
            ("port", &ports),
            ("dbname", database),
        ] {
            if !value.is_empty() {
                url.set(known(name), decoded(value)?.into_owned(), false)?;
            }
        }
        url.parse_query(query)?;
        url.check_hosts()?;
        Ok(url)
    }

    fn parse_query(&mut self, query: &str) -> Result<(), UrlError> {
        if query.contains([';', '#']) {
            return Err(UrlError::UnencodedSeparator);
        }
        // libpq accepts an & at the end.
        let query = query.strip_suffix('&').unwrap_or(query);
        let pairs = query.split('&').filter(|_| !query.is_empty());
        for (pair, position) in pairs.zip(1..) {
            let (name, value) = pair
                .split_once('=')
                .ok_or(UrlError::MissingValue { position })?;
            if value.contains('=') {
                return Err(UrlError::UnencodedSeparator);
            }
            let (name, value) = (decoded(name)?, decoded(value)?);
            if name == "ssl" {
                if value != "true" {
                    let (name, expected) = ("ssl", "true");
                    return Err(UrlError::InvalidParameter { name, expected });
                }
                self.set(known("sslmode"), "require".to_owned(), true)?;
                continue;
            }
            let parameter = PARAMETERS
                .iter()
                .find(|known| known.name == name)
                .ok_or_else(|| UrlError::UnknownParameter {
                    position,
                    suggestion: similar(&name),
                })?;
            parameter.check(&value)?;
            match parameter.name {
                "requiressl" if value == "1" => {
                    self.set(known("sslmode"), "require".to_owned(), true)?;
                }
                "requiressl" => self.set(known("sslmode"), "prefer".to_owned(), true)?,
                _ => self.set(parameter, value.into_owned(), true)?,
            }
        }
        Ok(())
    }

    /// Sets a parameter. The last value counts, as in libpq, except that no `sslmode` weakens one before it.
    fn set(
        &mut self,
        parameter: &'static Parameter,
        value: String,
        in_query: bool,
    ) -> Result<(), UrlError> {
        parameter.check(&value)?;
        let part = Part {
            parameter,
            value,
            in_query,
        };
        let mut parts = self.parts.iter_mut();
        match parts.find(|part| part.parameter.name == parameter.name) {
            Some(before) if parameter.name == "sslmode" => {
                if TlsMode::named(&part.value) > TlsMode::named(&before.value) {
                    before.value = part.value;
                }
            }
            Some(before) => before.value = part.value,
            None => self.parts.push(part),
        }
        Ok(())
    }

    /// libpq compares the lists too; where the URL names no hosts, those of the environment may be as many as the
    /// ports.
    fn check_hosts(&self) -> Result<(), UrlError> {
        let count = |name| {
            let list = self.parameter(name).filter(|list| !list.is_empty());
            list.map(|list| list.split(',').count())
        };
        let (names, addresses) = (count("host"), count("hostaddr"));
        let hosts = addresses.or(names);
        let is_even = names.or(hosts) == hosts
            && count("port")
                .is_none_or(|ports| ports == 1 || hosts.is_none_or(|hosts| ports == hosts));
        is_even.then_some(()).ok_or(UrlError::UnevenHosts)
    }

    /// The decoded value of one of libpq's parameters; `None` where the URL does not set it.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.parameter.name == name)?;
        Some(&part.value)
    }

    /// The servers in the order in which libpq tries them, at least one.
    ///
    /// A URL that names none leaves them to `PGHOST`, `PGHOSTADDR` and `PGPORT`, which are not read here.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn hosts(&self) -> Vec<Host<'_>> {
        fn items(list: Option<&str>) -> Vec<Option<&str>> {
            let list = list.filter(|list| !list.is_empty());
            list.map_or_else(Vec::new, |list| {
                list.split(',')
                    .map(|item| Some(item).filter(|item| !item.is_empty()))
                    .collect()
            })
        }
        let names = items(self.parameter("host"));
        let addresses = items(self.parameter("hostaddr"));
        let ports = items(self.parameter("port"));
        let item = |items: &[Option<_>], at: usize| items.get(at).copied().flatten();
        (0..names.len().max(addresses.len()).max(ports.len()).max(1))
            .map(|at| Host {
                host: item(&names, at),
                hostaddr: item(&addresses, at),
                // A single port is for all hosts.
                port: item(&ports, if ports.len() == 1 { 0 } else { at })
                    .and_then(|port| port.parse().ok()),
            })
            .collect()
    }

    /// Writes a URL for libpq with all that this one sets, and some parameters in place of its own. It may hold a
    /// password.
    #[cfg(any(feature = "postgres", test))]
    pub(crate) fn with_parameters(&self, replacements: &[(&str, &str)]) -> String {
        let replaced = |name: &str| replacements.iter().any(|(replaced, _)| *replaced == name);
        let kept = self
            .parts
            .iter()
            .map(|part| (part.parameter.name, part.value.as_str()))
            .filter(|(name, _)| !replaced(name));
        let mut url = "postgresql://".to_owned();
        let mut separator = "/?";
        for (name, value) in kept.chain(replacements.iter().copied()) {
            let value = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
            url.extend([separator, name, "=", &value]);
            separator = "&";
        }
        url
    }
}

impl Part {
    fn is_harmless(&self) -> bool {
        let is_name = |next: char| next.is_alphanumeric() || "_-.+$ ".contains(next);
        match self.parameter.shape {
            Shape::Secret => false,
            Shape::Name => self.value.chars().all(is_name),
            Shape::Path => is_plain_path(&self.value),
            // Whatever else it is has been refused.
            _ => true,
        }
    }

    fn shown(&self) -> Cow<'_, str> {
        if !self.is_harmless() {
            return HIDDEN.into();
        }
        let is_reserved = |next: char| match next {
            ' ' | '%' | '+' | '&' | '=' => true,
            '/' | '@' | ':' => !self.in_query,
            _ => false,
        };
        if !self.value.contains(is_reserved) {
            return Cow::Borrowed(&self.value);
        }
        let mut shown = String::new();
        for next in self.value.chars() {
            if is_reserved(next) {
                shown.push_str(&format!("%{:02X}", u32::from(next)));
            } else {
                shown.push(next);
            }
        }
        shown.into()
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let located = |name| {
            let mut parts = self.parts.iter().filter(|part| !part.in_query);
            parts.find(|part| part.parameter.name == name)
        };
        formatter.write_str("postgresql://")?;
        let (user, password) = (located("user"), located("password"));
        if let Some(user) = user {
            write!(formatter, "{}", Escaped(user.shown()))?;
        }
        if password.is_some() {
            write!(formatter, ":{HIDDEN}")?;
        }
        if user.or(password).is_some() {
            formatter.write_str("@")?;
        }
        let list =
            |name| located(name).map_or_else(Vec::new, |part| part.value.split(',').collect());
        let (hosts, ports): (Vec<&str>, Vec<&str>) = (list("host"), list("port"));
        for at in 0..hosts.len().max(ports.len()) {
            let separator = if at == 0 { "" } else { "," };
            let host = hosts.get(at).copied().unwrap_or_default();
            match host.contains(':') {
                true => write!(
                    formatter,
                    "{separator}[{}]",
                    Escaped(host.replace('%', "%25"))
                )?,
                false => write!(
                    formatter,
                    "{separator}{}",
                    Escaped(host.replace('/', "%2F"))
                )?,
            }
            if let Some(port) = ports.get(at).filter(|port| !port.is_empty()) {
                write!(formatter, ":{port}")?;
            }
        }
        if let Some(database) = located("dbname") {
            write!(formatter, "/{}", Escaped(database.shown()))?;
        }
        let mut separator = match (located("dbname"), hosts.is_empty() && ports.is_empty()) {
            (None, true) => "/?",
            _ => "?",
        };
        for part in self.parts.iter().filter(|part| part.in_query) {
            let name = part.parameter.name;
            write!(formatter, "{separator}{name}={}", Escaped(part.shown()))?;
            separator = "&";
        }
        Ok(())
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PostgresUrl({self})")
    }
}

impl Parameter {
    /// Refuses what libpq would quote in an error.
    fn check(&self, value: &str) -> Result<(), UrlError> {
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
            Shape::Ports => (all(is_port), "a list of numbers between 1 and 65535"),
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

fn known(name: &str) -> &'static Parameter {
    let known = PARAMETERS.iter().find(|known| known.name == name);
    known.expect("it is in the table")
}

/// The parameter that was probably meant; the name in the URL may be a piece of a password.
fn similar(name: &str) -> Option<&'static str> {
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

/// The hosts and ports before the path as two lists, still encoded.
fn hosts_and_ports(hosts: &str) -> Result<(String, String), UrlError> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        let (name, port) = match host.strip_prefix('[') {
            Some(host) => match host.split_once(']') {
                None | Some(("", _)) => return Err(UrlError::Ipv6Host),
                Some((name, "")) => (name, ""),
                Some((name, port)) => match port.strip_prefix(':') {
                    Some(port) if is_port(port) => (name, port),
                    _ => return Err(UrlError::Ipv6Host),
                },
            },
            None => host.split_once(':').unwrap_or((host, "")),
        };
        // Without an @ a password comes where libpq expects a port.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UrlError::UnencodedCharacter);
        }
        names.push(name);
        ports.push(port);
    }
    Ok((names.join(","), ports.join(",")))
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

/// An empty port is the default one.
fn is_port(port: &str) -> bool {
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    port.is_empty() || is_number && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_plain_path(path: &str) -> bool {
    let mut chars = path.chars();
    chars.all(|next| next.is_alphanumeric() || "/._-+~@ ()\\".contains(next))
}

fn decoded(text: &str) -> Result<Cow<'_, str>, UrlError> {
    let encoded_well = text.split('%').skip(1).all(|after| {
        after.len() >= 2
            && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())
            && !after.starts_with("00")
    });
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .ok()
        .filter(|_| encoded_well)
        .ok_or(UrlError::InvalidEncoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(rest: &str) -> PostgresUrl {
        PostgresUrl::parse(rest).unwrap_or_else(|error| panic!("{rest}: {error}"))
    }

    fn error(rest: &str) -> UrlError {
        match PostgresUrl::parse(rest) {
            Ok(url) => panic!("{rest} is {url}"),
            Err(error) => error,
        }
    }

    #[test]
    fn ambiguous_passwords_are_refused_before_libpq_quotes_them() {
        for url in [
            "u:p@ss@h/d",
            "u:p/ss@h/d",
            "u:p:ss@h/d",
            "u:p/ss?x@h/d",
            "u:p:/ss@h/d",
            "u:p?a=b@h/d",
            "u:secret/d",
            "h:1,u:secret/d",
            "/u:secret",
        ] {
            assert_eq!(error(url), UrlError::UnencodedCharacter, "{url}");
        }
        for url in [
            "u:p%@h/d",
            "u:p%4@h/d",
            "u:%ff@h/d",
            "u:%00@h/d",
            "u@h/d?password=%zz",
            "u@h/d?pass%word=a",
        ] {
            assert_eq!(error(url), UrlError::InvalidEncoding, "{url}");
        }
        for url in [
            "u:p@[::1/d",
            "u:p@[]/d",
            "u:p@h,[::1]x/d",
            "u:p@[::1]:x/d",
            "u:p@[::1:5432",
        ] {
            assert_eq!(error(url), UrlError::Ipv6Host, "{url}");
        }
        for url in ["u:p @h/d", "u:p@h/d\n", "/d?password=a\tb"] {
            assert_eq!(error(url), UrlError::WhiteSpace, "{url}");
        }
        for url in [
            "",
            "h",
            "u@h",
            "u:p%40ss@h:1,k:2/d?sslmode=disable",
            "u:p@a,b:2,[::1],[fe80::1%25eth0]:5432,/d?target_session_attrs=read-write",
            "[::1]:5432/d",
            "/d?host=/tmp",
            "u:p&=;ss@h/d?",
            "h/d?sslmode=prefer&",
        ] {
            parse(url);
        }
    }

    #[test]
    fn unencoded_separators_are_refused_in_every_part() {
        for url in [
            "/d&password=secret",
            "/d;password=secret",
            "/d#secret",
            "/d=secret",
            "h&password=secret",
            "h;secret/d",
            "h#secret",
            "/d?sslmode=require;password=secret",
            "/d?sslmode=require#secret",
            "/d?password=abc=secret",
            "/d?password=abc;secret",
        ] {
            assert_eq!(error(url), UrlError::UnencodedSeparator, "{url}");
        }
        for (url, position) in [
            ("/d?secret", 1),
            ("/d?password=abc&secret", 2),
            ("/d?&password=abc", 1),
            ("/d?password=abc&&secret=a", 2),
        ] {
            assert_eq!(error(url), UrlError::MissingValue { position }, "{url}");
        }
        for (url, position, suggestion) in [
            ("/d?password=abc&secret=1", 2, None),
            ("/d?pool_size=5", 1, None),
            ("/d?sslMode=require", 1, Some("sslmode")),
            ("/d?ssl_mode=require", 1, Some("sslmode")),
            ("/d?sslmod=require", 1, Some("sslmode")),
            ("/d?host=a&=b", 2, None),
        ] {
            let expected = UrlError::UnknownParameter {
                position,
                suggestion,
            };
            assert_eq!(error(url), expected, "{url}");
        }
    }

    #[test]
    fn values_that_libpq_would_quote_are_refused() {
        for (url, name) in [
            ("/d?port=secret", "port"),
            ("/d?port=1,x", "port"),
            ("h:65536/d", "port"),
            ("h:0/d", "port"),
            ("/d?connect_timeout=secret", "connect_timeout"),
            ("/d?connect_timeout=", "connect_timeout"),
            ("/d?connect_timeout=2147484", "connect_timeout"),
            ("/d?keepalives_idle=32768", "keepalives_idle"),
            ("/d?tcp_user_timeout=2147483648", "tcp_user_timeout"),
            ("/d?sslmode=secret", "sslmode"),
            ("/d?sslmode=", "sslmode"),
            ("/d?sslmode=require?secret", "sslmode"),
            ("/d?ssl=secret", "ssl"),
            ("/d?requiressl=secret", "requiressl"),
            ("/d?require_auth=scram-sha-256,secret", "require_auth"),
            (
                "/d?ssl_min_protocol_version=secret",
                "ssl_min_protocol_version",
            ),
            ("/d?hostaddr=secret", "hostaddr"),
            ("/d?hostaddr=1.2.3.4:secret", "hostaddr"),
            ("/d?host=a:secret", "host"),
            ("/d?host=a%26secret", "host"),
            ("u%3Asecret%40h/d", "host"),
            ("/d?host=/tmp?secret", "host"),
            ("u%3Asecret@h/d", "user"),
            ("/d?user=u:secret", "user"),
        ] {
            match error(url) {
                UrlError::InvalidParameter { name: named, .. } => assert_eq!(named, name, "{url}"),
                other => panic!("{url}: {other}"),
            }
        }
        for url in [
            "a:1,b:2/d?host=c",
            "a,b/d?port=1,2,3",
            "a/d?hostaddr=1.2.3.4,::1",
        ] {
            assert_eq!(error(url), UrlError::UnevenHosts, "{url}");
        }
        parse(
            "/d?require_auth=!password,!none&ssl_max_protocol_version=tlsv1.3&connect_timeout=-1",
        );
        parse(
            "/d?hostaddr=1.2.3.4,fe80::1%25eth0&host=a,&requirepeer=&gsslib=&replication=database",
        );
    }

    #[test]
    fn parameters_are_parsed_like_libpq() {
        let url = parse(
            "ada:s%26cret@a:1,[::1]/a%20shop?h%6fst=b,c&port=&applicati%6Fn_name=x&application_name=y%3D%26&ssl=true",
        );
        for (name, value) in [
            ("user", Some("ada")),
            ("password", Some("s&cret")),
            ("host", Some("b,c")),
            ("port", Some("")),
            ("dbname", Some("a shop")),
            ("application_name", Some("y=&")),
            ("sslmode", Some("require")),
            ("ssl", None),
            ("sslrootcert", None),
        ] {
            assert_eq!(url.parameter(name), value, "{name}");
        }
        assert_eq!(
            url.with_parameters(&[("application_name", "a&b"), ("connect_timeout", "1")]),
            "postgresql:///?user=ada&password=s%26cret&host=b%2Cc&port=&dbname=a%20shop&sslmode=require\
             &application_name=a%26b&connect_timeout=1"
        );
        assert_eq!(parse("").with_parameters(&[]), "postgresql://");
    }

    #[test]
    fn url_written_for_libpq_parses_to_the_same_url() {
        for url in [
            "u:p%40ss@h:1,k:2/d?sslmode=disable",
            "u:p@a,b:2,[::1],[fe80::1%25eth0]:5432,/d?target_session_attrs=read-write",
            "/d?host=/tmp&options=-c%20a.b%3D%27%2B+%27",
            ":p%C3%A9%20%22%5C@%2Frun%2Fpostgresql,/d%2Fe?hostaddr=",
        ] {
            let url = parse(url);
            let written = url.with_parameters(&[]);
            let read = parse(written.strip_prefix("postgresql:///").unwrap_or_default());
            let values = |url: &PostgresUrl| -> Vec<_> {
                let parts = url.parts.iter();
                parts
                    .map(|part| (part.parameter.name, part.value.clone()))
                    .collect()
            };
            assert_eq!(values(&url), values(&read), "{url}");
        }
    }

    #[test]
    fn strictest_of_several_tls_modes_is_used() {
        for (query, mode) in [
            ("ssl=true&sslmode=prefer", "require"),
            ("sslmode=verify-full&ssl=true", "verify-full"),
            ("requiressl=1", "require"),
            ("requiressl=0", "prefer"),
            ("sslmode=require&requiressl=0", "require"),
            ("sslmode=disable&sslm%6fde=verify-ca", "verify-ca"),
        ] {
            let url = parse(&format!("h/d?{query}"));
            assert_eq!(url.parameter("sslmode"), Some(mode), "{query}");
        }
    }

    #[test]
    fn hosts_are_listed_in_libpq_order() {
        let shown = |rest: &str| -> Vec<_> {
            let url = parse(rest);
            let hosts = url.hosts();
            hosts
                .iter()
                .map(|host| {
                    let port = host.port.map(|port| port.to_string());
                    [
                        host.host.unwrap_or("-"),
                        host.hostaddr.unwrap_or("-"),
                        port.as_deref().unwrap_or("-"),
                    ]
                    .join(" ")
                })
                .collect()
        };
        for (url, hosts) in [
            ("", &["- - -"][..]),
            ("/d", &["- - -"]),
            ("h/d", &["h - -"]),
            ("u:p@a:1,[::1],/d", &["a - 1", "::1 - -", "- - -"]),
            ("a,b/d?port=7", &["a - 7", "b - 7"]),
            ("a:1/d?host=/run/postgresql", &["/run/postgresql - 1"]),
            ("%2Frun%2Fpostgresql:7/d", &["/run/postgresql - 7"]),
            ("a/d?hostaddr=1.2.3.4", &["a 1.2.3.4 -"]),
            (
                "/d?hostaddr=1.2.3.4,::1&port=,5",
                &["- 1.2.3.4 -", "- ::1 5"],
            ),
            ("a%2Cb/d?port=1,2", &["a - 1", "b - 2"]),
            ("/d?port=1,2", &["- - 1", "- - 2"]),
            (":5/d?host=", &["- - 5"]),
        ] {
            assert_eq!(shown(url), hosts, "{url}");
        }
    }

    #[test]
    fn only_plain_values_are_shown() {
        for (url, shown) in [
            ("ada:secret@h/d", "ada:***@h/d"),
            (":secret@h/d", ":***@h/d"),
            ("ada@h", "ada@h"),
            ("", ""),
            ("?host=/tmp", "/?host=/tmp"),
            (
                "h/d?port=1&password=secret&sslpassword=secret&user=a",
                "h/d?port=1&password=***&sslpassword=***&user=a",
            ),
            ("h/d?p%61ssword=secret&h%6Fst=k", "k/d?password=***"),
            (
                "ada:a,b@[fe80::1%25eth0]:1,b,c:3/d?target_session_attrs=read-write",
                "ada:***@[fe80::1%25eth0]:1,b,c:3/d?target_session_attrs=read-write",
            ),
            ("%2Frun%2Fpg:7/d", "%2Frun%2Fpg:7/d"),
            ("u%40secret@h/d%26secret", "***@h/***"),
            ("a%20b@h/m%C3%BCnchen", "a%20b@h/münchen"),
            (
                "h/d?application_name=a%26secret&options=-c%20a%3Dsecret&sslrootcert=/root.crt",
                "h/d?application_name=***&options=***&sslrootcert=/root.crt",
            ),
            ("h/d?sslrootcert=/root.crt%3Bsecret", "h/d?sslrootcert=***"),
            (
                "h/d?application_name=a%0Ab%E2%80%AE",
                "h/d?application_name=***",
            ),
        ] {
            let url = parse(url);
            assert_eq!(url.to_string(), format!("postgresql://{shown}"));
            assert_eq!(format!("{url:?}"), format!("PostgresUrl({url})"));
        }
    }
}
