//! A secret in a URL is never shown, wherever in the URL it ends up by mistake.
//!
//! `FUZZ_INPUTS` sets the number of URLs (default 5,000). `FUZZ_SEED` repeats a run.

use std::error::Error;
use std::fmt::Write;
use std::net::TcpListener;
use std::time::Duration;

use db_service::{ConfigService, DatabaseConfig, DatabaseService, DatabaseUrl};
use fastrand::Rng;
use singleton_core::testing::Scope;
use tests::TestDatabase;

use crate::reporting::errors::causes::causes;

/// URLs in which the secret replaces `{}`, and a closed port replaces `PORT`.
const TEMPLATES: &[&str] = &[
    "postgresql://user:{}@127.0.0.1:PORT/db",
    "postgresql://user:{}@127.0.0.1:PORT",
    "postgresql://:{}@127.0.0.1:PORT",
    "postgresql+psycopg2://user:{}@127.0.0.1:PORT,[::1]:PORT/db?sslmode=disable",
    "postgresql://user@127.0.0.1:PORT/db?password={}",
    "postgresql://user@127.0.0.1:PORT/db?sslmode=disable&password={}&connect_timeout=2",
    "postgresql://user@127.0.0.1:PORT/db?sslpassword={}",
    "postgresql://user@127.0.0.1:PORT/db?p%61ssword={}",
    "postgresql://user@127.0.0.1:PORT/db?options=-c%20a.b%3D{}",
    "postgresql://user@127.0.0.1:PORT/db?password=abc&{}",
    "postgresql://user@127.0.0.1:PORT/db?password=abc;{}",
    "postgresql://user@127.0.0.1:PORT/db?password=abc#{}",
    "postgresql://user@127.0.0.1:PORT/db?password=abc={}",
    "postgresql://user@127.0.0.1:PORT/db?password=abc&{}=def",
    "postgresql://user@127.0.0.1:PORT/db?sslmode=require;password={}",
    "postgresql://user@127.0.0.1:PORT/db?sslmode=require#{}",
    "postgresql://user@127.0.0.1:PORT/db?sslmode=require?{}",
    "postgresql://user@127.0.0.1:PORT/db?application_name=a;password={}",
    "postgresql://user@127.0.0.1:PORT/db?application_name=a%3Bpassword%3D{}",
    "postgresql://user@127.0.0.1:PORT/db&password={}",
    "postgresql://user@127.0.0.1:PORT/db;password={}",
    "postgresql://user@127.0.0.1:PORT/db;{}",
    "postgresql://user@127.0.0.1:PORT/db#{}",
    "postgresql://user@127.0.0.1:PORT/db%26password%3D{}",
    "postgresql://user@127.0.0.1:PORT&password={}",
    "postgresql://user@127.0.0.1:PORT#{}",
    "postgresql://user@127.0.0.1;password={}:PORT/db",
    "postgresql://user@127.0.0.1:PORT/db?{}",
    "postgresql://user@127.0.0.1:PORT/db?{}=1",
    "postgresql://user@127.0.0.1:PORT/db?port={}",
    "postgresql://user@127.0.0.1:PORT/db?port=PORT,{}",
    "postgresql://user@127.0.0.1:PORT/db?sslmode={}",
    "postgresql://user@127.0.0.1:PORT/db?connect_timeout={}",
    "postgresql://user@127.0.0.1:PORT/db?keepalives_idle={}",
    "postgresql://user@127.0.0.1:PORT/db?tcp_user_timeout={}",
    "postgresql://user@127.0.0.1:PORT/db?target_session_attrs={}",
    "postgresql://user@127.0.0.1:PORT/db?require_auth={}",
    "postgresql://user@127.0.0.1:PORT/db?channel_binding={}",
    "postgresql://user@127.0.0.1:PORT/db?ssl_min_protocol_version={}",
    "postgresql://user@127.0.0.1:PORT/db?hostaddr={}",
    "postgresql://user@127.0.0.1:PORT/db?host=127.0.0.1:{}",
    "postgresql://user@127.0.0.1:PORT/db?user=user:{}",
    "postgresql://user@127.0.0.1:PORT/db?requiressl={}",
    "postgresql://user@127.0.0.1:PORT/db?ssl={}",
    "postgresql://user%3A{}@127.0.0.1:PORT/db",
    "postgresql://user:{}%40127.0.0.1:PORT/db",
    "postgresql://user%3A{}%40127.0.0.1:PORT/db",
    "postgresql:/user:{}@127.0.0.1:PORT/db",
    "postgresql:///user:{}@127.0.0.1:PORT/db",
    "sqlite:///data.db?key={}",
    "sqlite:///data.db#{}",
    "sqlite:///data.db;password={}",
    "sqlite://user:{}@/data.db",
    "sqlite:///user:{}@127.0.0.1/data.db",
    "user:{}@127.0.0.1:PORT/db",
];

/// Text to insert into URLs.
const INSERTED: &[&str] = &[
    "@", ":", "/", "?", "#", "&", ";", "=", "%", ",", "[", "]", "+", " ", "\t", "\n", "'", "\"",
    "\\", ".", "!", "%%", "%20", "%00", "%ff", "::", "//", "&&", "é", "\u{202e}",
];

/// A secret of two parts with a separator. Neither part may be shown.
struct Secret {
    parts: [String; 2],
    /// Whether the separator has a character that keeps a user, host or database name from being shown.
    has_special_character: bool,
    text: String,
}

impl Secret {
    fn new(rng: &mut Rng) -> Self {
        // The first letter is not a hexadecimal digit, so a percent sign before it does not form an escape with it.
        let mut part = || -> String {
            let first = rng.choice(b"ghjkmnpqrstuvwxyz").unwrap();
            std::iter::once(char::from(*first))
                .chain((0..7).map(|_| rng.alphanumeric()))
                .collect()
        };
        let parts = [part(), part()];
        let has_special_character = rng.bool();
        let separator = if has_special_character {
            rng.choice(["!", "*", "^", "!|", "(", "~<"]).unwrap()
        } else {
            ""
        };
        let text = parts.join(separator);
        Secret {
            parts,
            has_special_character,
            text,
        }
    }
}

/// Inserts characters in and around the secret. With `may_remove`, also removes and replaces characters around it. It
/// must be `false` if that could turn the secret into a name that is shown.
fn mutate(url: &mut Vec<char>, secret: std::ops::Range<usize>, may_remove: bool, rng: &mut Rng) {
    for _ in 0..rng.usize(0..4) {
        let around = secret.start.saturating_sub(10)..(secret.end + 10).min(url.len());
        let at = rng.usize(around);
        let inserted = rng.choice(INSERTED).unwrap().chars();
        match rng.u8(0..4) {
            0 if may_remove && !secret.contains(&at) => {
                url.remove(at);
                return;
            }
            1 if may_remove && !secret.contains(&at) => drop(url.splice(at..=at, inserted)),
            _ => drop(url.splice(at..at, inserted)),
        }
    }
}

/// Returns the debug output and the messages of an error and its causes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut shown = format!("{error:?}\n{error}");
    for cause in causes(error) {
        write!(shown, "\n{cause:?}\n{cause}").unwrap();
    }
    shown
}

/// Returns everything that is shown when the URL is parsed, read from variables and, if `connects`, connected to.
fn shown(url: &str, closed: u16, connects: bool) -> Vec<String> {
    let mut shown = Vec::new();
    let parsed = url.parse::<DatabaseUrl>();
    match &parsed {
        Ok(url) => shown.push(format!("{url}\n{url:?}")),
        Err(error) => shown.push(chain(error)),
    }
    for variable in ["DATABASE_URL", "DB_REPLICA_URLS", "DB_POOL_SIZE"] {
        let scope = Scope::new()
            .env("DATABASE_URL", "sqlite::memory:")
            .env(variable, url);
        match scope.run(DatabaseConfig::from_env) {
            Ok(config) => shown.push(format!("{config:?}")),
            Err(error) => shown.push(chain(&error)),
        }
    }
    let here = format!("127.0.0.1:{closed}");
    if let Ok(url) = parsed
        && connects
        && url.to_string().contains(&here)
    {
        let mut config = DatabaseConfig::new(url);
        config.pool_timeout = Duration::from_secs(2);
        let scope = Scope::new().provide(ConfigService::new(config));
        let error = scope
            .run(|| DatabaseService::connection().map(drop))
            .expect_err("the port is closed");
        shown.push(chain(&error));
        shown.push(format!("{:#}", anyhow::Error::from(error)));
    }
    shown
}

#[test]
fn secret_in_a_url_is_never_shown() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse().unwrap());
    let inputs = number("FUZZ_INPUTS").unwrap_or(5_000);
    let seed = number("FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let mut rng = Rng::with_seed(seed);
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let (mut accepted, mut connected) = (0, 0);
    let mut leaks = Vec::new();
    for input in 0..inputs {
        let template = TEMPLATES[usize::try_from(input).unwrap() % TEMPLATES.len()];
        let template = template.replace("PORT", &closed.to_string());
        let secret = Secret::new(&mut rng);
        let (before, after) = template.split_once("{}").unwrap();
        let mut url: Vec<char> = format!("{before}{}{after}", secret.text).chars().collect();
        let start = before.chars().count();
        let range = start..start + secret.text.chars().count();
        // The first round uses the URLs unchanged.
        if usize::try_from(input).unwrap() >= TEMPLATES.len() {
            // The name of a SQLite file is always shown.
            let may_remove = secret.has_special_character && !template.starts_with("sqlite");
            mutate(&mut url, range, may_remove, &mut rng);
        }
        let url: String = url.into_iter().collect();
        let connects = input < 200 || rng.u8(..) < 32;
        let shown = shown(&url, closed, connects);
        accepted += u64::from(url.parse::<DatabaseUrl>().is_ok());
        connected += u64::from(shown.len() > 4);
        let is_shown = |text: &String| secret.parts.iter().any(|part| text.contains(part));
        leaks.extend(
            shown
                .iter()
                .filter(|text| is_shown(text))
                .map(|text| format!("{url:?}: {text}")),
        );
    }
    assert!(
        leaks.is_empty(),
        "{} leaks with FUZZ_SEED={seed}, such as\n{}",
        leaks.len(),
        leaks[..leaks.len().min(30)].join("\n")
    );
    assert!(
        accepted > 0 && connected > 0 && accepted < inputs,
        "{accepted} of {inputs} were accepted, {connected} were connected to"
    );
}

#[test]
fn server_messages_do_not_show_secrets_of_a_url() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let separator = if database.url().contains('?') {
        '&'
    } else {
        '?'
    };
    for (parameter, is_redacted) in [
        ("dbname=d%26password%3Dhunter2", true),
        ("dbname=hunter2", false),
        ("user=u%40hunter2", true),
        ("user=hunter2", false),
        ("options=-c%20work_mem%3Dhunter2", true),
        ("options=-c%20hunter2", true),
        ("client_encoding=%3Bhunter2", true),
    ] {
        let url = format!("{}{separator}{parameter}", database.url());
        let mut config = DatabaseConfig::new(url.parse().unwrap());
        config.pool_timeout = Duration::from_secs(2);
        let scope = Scope::new().provide(ConfigService::new(config));
        let error = scope
            .run(|| DatabaseService::connection().map(drop))
            .expect_err(parameter);
        let shown = format!("{}\n{error:#?}", chain(&error));
        assert_eq!(shown.contains("hunter2"), !is_redacted, "{shown}");
        assert!(shown.contains("FATAL"), "{shown}");
    }
}
