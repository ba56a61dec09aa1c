//! Settings: their effect, their limits and their errors.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use db_service::{ConfigError, ConfigService, DatabaseConfig, DatabaseService, DbError, params};
use singleton_core::testing::Scope;
use singleton_core::{ServiceContext, registry};
use tests::{TestDatabase, TestServer};

use crate::reporting::logs::{capture, lines_with};

#[test]
fn postgres_settings_take_effect() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let scope = database.scope_with(|config| {
        config.postgres.application_name = Some("a shop & more".to_owned());
        config.postgres.statement_timeout = Some(Duration::from_secs(61));
        config.postgres.lock_timeout = Some(Duration::from_secs(62));
        config.postgres.idle_in_transaction_timeout = Some(Duration::from_secs(63));
        config.postgres.tls_mode = Some(db_service::TlsMode::Disable);
    });
    scope.run(|| {
        let sql = "SELECT concat_ws(' ', current_setting('application_name'), current_setting('statement_timeout'), \
                   current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')) AS shown";
        let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
        assert_eq!(rows[0].get::<String>("shown").unwrap(), "a shop & more 61s 62s 63s");
    });
    // The connection fails if the server has no TLS and the settings require it, even if only by a root certificate.
    for mode in [Some(db_service::TlsMode::VerifyFull), None] {
        let requires_tls = database.scope_with(|config| {
            config.postgres.tls_mode = mode;
            config.postgres.tls_root_certificate = Some("/nowhere/root.crt".to_owned());
        });
        let error = requires_tls
            .run(|| DatabaseService::connection().map(drop))
            .unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(
            text.contains("/nowhere/root.crt") || text.contains("SSL"),
            "{text}"
        );
    }
}

#[test]
fn unresponsive_host_times_out_while_connecting() {
    if TestDatabase::postgres().is_none() {
        return;
    }
    // This host accepts connections and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut config =
        DatabaseConfig::new(format!("postgresql://127.0.0.1:{port}/x").parse().unwrap());
    config.postgres.connect_timeout = Some(Duration::from_secs(2));
    let scope = Scope::new().provide(ConfigService::new(config));
    let error = scope
        .run(|| DatabaseService::connection().map(drop))
        .unwrap_err();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("timeout expired"), "{text}");
}

#[test]
fn sqlite_settings_take_effect() {
    let database = TestDatabase::sqlite();
    let scope = database.scope_with(|config| {
        config.sqlite.busy_timeout = Duration::from_millis(1234);
        config.sqlite.write_ahead = false;
        config.sqlite.foreign_keys = false;
        config.sqlite.synchronous = db_service::Synchronous::Extra;
    });
    let shown = || {
        let sql = "SELECT timeout || ' ' || journal_mode || ' ' || foreign_keys || ' ' || synchronous AS shown \
                   FROM pragma_busy_timeout, pragma_journal_mode, pragma_foreign_keys, pragma_synchronous";
        let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
        rows[0].get::<String>("shown").unwrap()
    };
    assert_eq!(scope.run(shown), "1234 delete 0 3");
    assert_eq!(database.scope().run(shown), "5000 wal 1 2");
}

/// Sets one of the durations.
type Change = fn(&mut DatabaseConfig, Duration);

/// The durations with a maximum that a server, a driver or the system imposes: the variable, the maximum in
/// milliseconds, and a function that sets the duration in code.
const BOUNDED: [(&str, u64, Change); 7] = [
    ("DB_CONNECT_TIMEOUT", 2_147_483_000, |config, time| {
        config.postgres.connect_timeout = Some(time);
    }),
    ("DB_TCP_KEEPALIVE", 32_767_000, |config, time| {
        config.postgres.tcp_keepalive = Some(time);
    }),
    ("DB_TCP_USER_TIMEOUT", 2_147_483_647, |config, time| {
        config.postgres.tcp_user_timeout = Some(time);
    }),
    ("DB_STATEMENT_TIMEOUT", 2_147_483_647, |config, time| {
        config.postgres.statement_timeout = Some(time);
    }),
    ("DB_LOCK_TIMEOUT", 2_147_483_647, |config, time| {
        config.postgres.lock_timeout = Some(time);
    }),
    (
        "DB_IDLE_IN_TRANSACTION_TIMEOUT",
        2_147_483_647,
        |config, time| {
            config.postgres.idle_in_transaction_timeout = Some(time);
        },
    ),
    ("DB_BUSY_TIMEOUT", 2_147_483_647, |config, time| {
        config.sqlite.busy_timeout = time;
    }),
];

#[test]
fn duration_above_its_maximum_is_rejected_at_start_by_name() {
    for (variable, maximum, change) in BOUNDED {
        // One second more, so that the number of whole seconds is also above the maximum.
        for too_long in [Duration::from_millis(maximum + 1000), Duration::MAX] {
            let database = TestDatabase::sqlite();
            let scope = database.scope_with(|config| change(config, too_long));
            let error = scope
                .run(|| DatabaseService::connection().map(drop))
                .expect_err(variable);
            let text = error.to_string();
            assert!(
                text.contains(&format!("{variable} must be between 1 and ")),
                "{text}"
            );
        }
        let from_env = |seconds: u64| {
            Scope::new()
                .env("DATABASE_URL", "sqlite::memory:")
                .env(variable, seconds.to_string())
                .run(DatabaseConfig::from_env)
                .map(drop)
                .map_err(|error: ConfigError| error.to_string())
        };
        let seconds = maximum / 1000;
        assert_eq!(from_env(1), Ok(()), "{variable}");
        assert_eq!(from_env(seconds), Ok(()), "{variable}");
        for too_long in [seconds + 1, 30 * 24 * 3600, i64::MAX.unsigned_abs()] {
            let text = from_env(too_long).expect_err(variable);
            let expected = format!("{variable} must be between 1 and {seconds} seconds");
            assert!(text.starts_with(&expected), "{text}");
        }
    }
}

#[test]
fn postgres_durations_must_not_be_zero() {
    for (variable, _, change) in &BOUNDED[..6] {
        let database = TestDatabase::sqlite();
        let scope = database.scope_with(|config| change(config, Duration::ZERO));
        let error = scope
            .run(|| DatabaseService::connection().map(drop))
            .expect_err(variable);
        assert!(error.to_string().contains(variable), "{error}");
    }
}

#[test]
fn longest_and_shortest_durations_take_effect() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let shown = |change: &dyn Fn(&mut DatabaseConfig)| {
        let scope = database.scope_with(|config| change(config));
        scope.run(|| {
            let sql = "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'), \
                       current_setting('idle_in_transaction_session_timeout')) AS shown";
            let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
            rows[0].get::<String>("shown").unwrap()
        })
    };
    let longest = shown(&|config| {
        for (_, maximum, change) in BOUNDED {
            change(config, Duration::from_millis(maximum));
        }
    });
    assert_eq!(longest, "2147483647ms 2147483647ms 2147483647ms");
    // Fractions of a millisecond are rounded up. Zero would turn the timeout off.
    let shortest = shown(&|config| {
        config.postgres.lock_timeout = Some(Duration::from_nanos(1));
        config.postgres.idle_in_transaction_timeout = Some(Duration::from_micros(60_000_001));
        config.postgres.connect_timeout = Some(Duration::from_millis(1));
        config.postgres.tcp_user_timeout = Some(Duration::from_secs(1));
    });
    assert_eq!(shortest, "0 1ms 60001ms");
}

#[test]
fn sqlite_busy_timeout_is_not_rounded_down_to_zero() {
    let database = TestDatabase::sqlite();
    let scope = database.scope_with(|config| config.sqlite.busy_timeout = Duration::from_micros(1));
    let sql = "SELECT timeout FROM pragma_busy_timeout";
    let rows = scope
        .run(|| DatabaseService::execute_query(sql, params! {}))
        .unwrap();
    assert_eq!(rows[0].get::<i64>("timeout").unwrap(), 1);
}

/// Returns the error of the first use of a database.
#[track_caller]
fn connect_error(url: &str) -> String {
    let config = DatabaseConfig::new(url.parse().unwrap());
    let scope = Scope::new().provide(ConfigService::new(config));
    let error = scope
        .run(|| DatabaseService::connection().map(drop))
        .expect_err(url);
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn sqlite_file_that_cannot_be_opened_is_reported_with_its_resolved_path() {
    let here = std::env::current_dir().unwrap();
    let here = here.display();
    let text = connect_error("sqlite:///no_such_folder/x.db\n");
    for part in [
        &format!("{here}/no_such_folder/x.db"),
        &format!("the folder {here}/no_such_folder does not exist"),
        "an absolute path has four slashes: sqlite:////no_such_folder/x.db",
    ] {
        assert!(text.contains(part), "{text}: {part}");
    }
    let text = connect_error("sqlite:////no_such_folder/x.db");
    assert!(
        text.ends_with("/no_such_folder/x.db (the folder /no_such_folder does not exist)"),
        "{text}"
    );
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().display();
    let text = connect_error(&format!("sqlite:///{folder}"));
    assert!(
        text.ends_with(&format!("{folder} (it is a folder)")),
        "{text}"
    );
    // Windows paths are relative elsewhere.
    let text = connect_error("sqlite:///C:/no_such_folder/x.db");
    assert!(
        text.contains(&format!("{here}/C:/no_such_folder/x.db")),
        "{text}"
    );
    let text = connect_error("sqlite:///a\n\u{1b}b/x.db");
    assert!(
        text.contains(&format!(r"{here}/a\n\u{{1b}}b/x.db")),
        "{text}"
    );
}

#[test]
fn misspelt_variable_is_logged_once_with_the_likely_name() {
    capture();
    let scope = Scope::new()
        .env("DATABASE_URL", "sqlite::memory:")
        .env("DB_POLL_SIZE", "secret_4711")
        .env("DATABASE_URI", "postgresql://u:secret_4711@h/d")
        .env("DB_POOLSIZE", "secret_4711")
        .env("DB_MIN_IDEL", "")
        .env("DB_HOST", "secret_4711");
    scope.run(|| {
        DatabaseConfig::from_env().unwrap();
        DatabaseService::connection().unwrap();
    });
    for (name, meant) in [
        ("DB_POLL_SIZE", "DB_POOL_SIZE"),
        ("DB_POOLSIZE", "DB_POOL_SIZE"),
        ("DATABASE_URI", "DATABASE_URL"),
    ] {
        let line = format!(
            "the environment variable {name} is not a setting of the database and has no effect; did you mean {meant}?"
        );
        assert_eq!(lines_with(name), [line]);
    }
    for unlogged in ["DB_MIN_IDEL", "DB_HOST", "secret_4711"] {
        assert_eq!(lines_with(unlogged), [""; 0]);
    }
}

/// Returns the number of a port on which nothing listens.
fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Returns a scope whose start waits for a server.
fn patient(url: &str) -> Scope {
    let mut config = DatabaseConfig::new(url.parse().unwrap());
    config.start_timeout = Duration::from_secs(600);
    Scope::new().provide(ConfigService::new(config))
}

/// Waits until the start waits for the server on a port.
#[track_caller]
fn wait_for_first_failure(port: u16) {
    let end = Instant::now() + Duration::from_secs(60);
    let line = format!("127.0.0.1:{port}/");
    while lines_with(&line).is_empty() {
        assert!(Instant::now() < end, "nothing was logged");
        thread::yield_now();
    }
    let lines = lines_with(&line);
    assert!(
        lines[0].contains("trying again for at most 600s (DB_START_TIMEOUT)"),
        "{lines:?}"
    );
}

#[test]
fn start_waits_for_a_server_that_starts_later() {
    let Some(server) = TestServer::start() else {
        return;
    };
    capture();
    server.stop();
    patient(&server.url()).run(|| {
        let first = ServiceContext::current()
            .wrap(|| DatabaseService::execute_query("SELECT 1 AS n", params! {}));
        let first = thread::spawn(first);
        wait_for_first_failure(server.port());
        server.start_again();
        assert_eq!(first.join().unwrap().unwrap().len(), 1);
    });
    let lines = lines_with(&format!("127.0.0.1:{}/", server.port()));
    let waits = lines.iter().filter(|line| line.contains("trying again"));
    assert_eq!(waits.count(), 1, "{lines:?}");
}

#[test]
fn start_does_not_wait_for_a_server_that_refuses_the_settings() {
    let Some(server) = TestServer::start() else {
        return;
    };
    server.execute("CREATE ROLE ada LOGIN PASSWORD 'right'");
    server.set_access_rules(
        "host all postgres 127.0.0.1/32 trust\nhost all ada 127.0.0.1/32 scram-sha-256\n",
    );
    let place = format!("127.0.0.1:{}", server.port());
    for (url, reason) in [
        (
            format!("ada:wrong@{place}/postgres"),
            "password authentication failed",
        ),
        (format!("ada@{place}/postgres"), "no password supplied"),
        (
            format!("postgres@{place}/none"),
            "database \"none\" does not exist",
        ),
        (format!("nobody@{place}/postgres"), "no pg_hba.conf entry"),
        (format!("postgres@{place}/postgres?sslmode=require"), "SSL"),
        // The last host decides.
        (
            format!("ada:wrong@127.0.0.1:{},{place}/postgres", closed_port()),
            "password authentication failed",
        ),
    ] {
        let started_at = Instant::now();
        let error = patient(&format!("postgresql://{url}"))
            .run(|| DatabaseService::connection().map(drop))
            .unwrap_err();
        assert!(started_at.elapsed() < Duration::from_secs(60), "{url}");
        let text = error.to_string();
        assert!(text.contains(reason) && !text.contains("wrong"), "{text}");
    }
}

#[test]
fn start_stops_waiting_at_its_timeout_and_at_a_shutdown() {
    if TestDatabase::postgres().is_none() {
        return;
    }
    capture();
    let url = |port: u16| format!("postgresql://postgres@127.0.0.1:{port}/postgres");
    // With a socket timeout, a relay of this crate connects in place of libpq.
    for socket_timeout in [None, Some(Duration::from_secs(60))] {
        let mut config = DatabaseConfig::new(url(closed_port()).parse().unwrap());
        config.start_timeout = Duration::from_millis(300);
        config.postgres.socket_timeout = socket_timeout;
        let started_at = Instant::now();
        let error = Scope::new()
            .provide(ConfigService::new(config))
            .run(|| DatabaseService::connection().map(drop))
            .unwrap_err();
        assert!(error.to_string().contains("Connection refused"), "{error}");
        assert!(
            started_at.elapsed() >= Duration::from_millis(300),
            "{error}"
        );
    }

    let port = closed_port();
    patient(&url(port)).run(|| {
        let start = ServiceContext::current().wrap(|| DatabaseService::connection().map(drop));
        let start = thread::spawn(start);
        wait_for_first_failure(port);
        registry().shutdown_all();
        let error = start.join().unwrap().unwrap_err();
        assert!(matches!(error, DbError::Service(_)), "{error}");
    });
}
