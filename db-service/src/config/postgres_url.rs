//! PostgreSQL URLs, parsed as libpq parses them.
//!
//! libpq's messages quote the parts that it cannot parse, which can be parts of a password. So everything that libpq's
//! parser would refuse is refused here first, with an error that quotes nothing.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
#[cfg(any(feature = "postgres", test))]
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::libpq_parameters::{PARAMETERS, Parameter, Shape, is_plain_path, known, similar};
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
        // A text in place of a port may be a part of a password: before an @ that comes too late, or without any @.
        let not_a_port = if query.contains('@') {
            Some(UrlError::UnencodedCharacter)
        } else {
            (place.len() == rest.len()).then_some(UrlError::PortOrPassword)
        };
        let (hosts, ports) = hosts_and_ports(hosts, not_a_port.as_ref())?;
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

/// Returns the hosts and ports before the path as two lists, still encoded.
///
/// `not_a_port` is the error for a port that is not a number, if it may be a part of a password.
fn hosts_and_ports(
    hosts: &str,
    not_a_port: Option<&UrlError>,
) -> Result<(String, String), UrlError> {
    let (mut names, mut ports) = (Vec::new(), Vec::new());
    for host in hosts.split(',') {
        if host.parse::<Ipv6Addr>().is_ok() || is_unbracketed(host) {
            return Err(UrlError::Ipv6Host);
        }
        let (name, port) = match host.strip_prefix('[') {
            Some(host) => match host.split_once(']') {
                None | Some(("", _)) => return Err(UrlError::Ipv6Host),
                Some((name, "")) => (name, ""),
                Some((name, port)) => match port.strip_prefix(':') {
                    Some(port) => (name, port),
                    None => return Err(UrlError::Ipv6Host),
                },
            },
            None => host.split_once(':').unwrap_or((host, "")),
        };
        let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
        match not_a_port {
            Some(error) if !is_number && !host.starts_with('[') => return Err(error.clone()),
            _ => known("port").check(port)?,
        }
        names.push(name);
        ports.push(port);
    }
    Ok((names.join(","), ports.join(",")))
}

/// Returns whether a text is an IPv6 address without brackets and a port.
fn is_unbracketed(host: &str) -> bool {
    let address = host.rsplit_once(':').map_or("", |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
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
            "/u:secret",
        ] {
            assert_eq!(error(url), UrlError::UnencodedCharacter, "{url}");
        }
        for url in [
            "u:secret/d",
            "h:1,u:secret/d",
            "u:secret",
            "h:5432x/d",
            "h:-1/d",
            "u:p:ss/d",
        ] {
            assert_eq!(error(url), UrlError::PortOrPassword, "{url}");
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
            "u:p@[::1:5432",
            "u:p@::1:5432/d",
            "::1/d",
            "u:p@h,fe80::1:x/d",
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
            // An empty host is libpq's default, and an empty port is 5432.
            ":5432,/d",
            "u:p@,/d",
            "u:p@a:,,b/d",
            "u:p@:/d",
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
            ("u:p@h:secret/d", "port"),
            ("u:p@h:secret", "port"),
            ("u@h:1,k:secret/d?sslmode=disable", "port"),
            ("u:p@h:1:2/d", "port"),
            ("u:p@h:-1/d", "port"),
            ("u:p@h:$PORT/d", "port"),
            ("u:p@[::1]:secret/d", "port"),
            ("[::1]:secret/d", "port"),
            ("[::1]:65536/d", "port"),
            (":65536,/d", "port"),
            ("a:,b:0/d", "port"),
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
