//! Log lines of the database service, and a logger that captures them.

use std::sync::{Mutex, Once};
use std::time::Duration;

use db_service::{DatabaseService, params};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tests::TestDatabase;

on_both_backends!(
    statements_and_parameters_are_logged_only_on_request,
    control_characters_in_a_statement_are_escaped,
);

/// A logger that keeps the log lines of db-service, of its pool and of user-repo.
struct Capture(Mutex<Vec<String>>);

static CAPTURE: Capture = Capture(Mutex::new(Vec::new()));

/// The text at which the logger panics once.
static PANICS_AT: Mutex<Option<&str>> = Mutex::new(None);

/// Makes the logger panic in the thread that next logs `text`.
pub(crate) fn panic_at(text: &'static str) {
    *PANICS_AT.lock().unwrap() = Some(text);
}

/// Returns whether the logger has panicked since the last [`panic_at`].
pub(crate) fn has_panicked() -> bool {
    PANICS_AT.lock().unwrap().is_none()
}

/// Installs the capturing logger. A process has one logger, so only the first call installs it.
pub(crate) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&CAPTURE).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// Returns the log lines of all tests so far that contain `text`.
pub(crate) fn lines_with(text: &str) -> Vec<String> {
    let lines = CAPTURE.0.lock().unwrap();
    lines
        .iter()
        .filter(|line| line.contains(text))
        .cloned()
        .collect()
}

impl log::Log for Capture {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        let target = metadata.target();
        ["db_service", "r2d2", "user_repo"]
            .iter()
            .any(|name| target.starts_with(name))
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            let panics = PANICS_AT
                .lock()
                .unwrap()
                .take_if(|text| line.contains(*text))
                .is_some();
            self.0.lock().unwrap().push(line);
            assert!(!panics, "the logger panics on purpose");
        }
    }

    fn flush(&self) {}
}

fn statements_and_parameters_are_logged_only_on_request(database: &TestDatabase) {
    capture();
    for (echo_sql, echo_parameters) in [(true, false), (true, true), (false, true)] {
        // The tests of both backends write to the same log.
        let marker = format!(
            "m{}_{echo_sql}_{echo_parameters}",
            database.url().starts_with("sqlite")
        );
        let secret = format!("hush {marker}");
        let scope = database.scope_with(|config| {
            (config.echo_sql, config.echo_parameters) = (echo_sql, echo_parameters);
        });
        scope.run(|| {
            let sql = format!("SELECT :secret AS {marker}");
            let cast = sql.replace(":secret", "CAST(:secret AS TEXT)");
            DatabaseService::execute_query(&cast, params! { "secret" => secret.as_str() }).unwrap();
            let mut connection = DatabaseService::connection().unwrap();
            let typed = diesel::dsl::sql::<diesel::sql_types::Text>("SELECT ")
                .bind::<diesel::sql_types::Text, _>(&secret);
            match &mut *connection {
                db_service::Connection::Postgres(inner) => typed.get_result::<String>(inner),
                db_service::Connection::Sqlite(inner) => typed.get_result::<String>(inner),
            }
            .unwrap();
        });
        let echoed = lines_with(&format!("AS {marker}")).len();
        assert_eq!(echoed > 0, echo_sql, "{marker}");
        let shown = lines_with(&secret).len();
        assert_eq!(shown > 0, echo_sql && echo_parameters, "{marker}: {shown}");
        assert!(
            shown == 0 || shown >= 2,
            "from db-service's statement and from diesel's: {shown}"
        );
    }
}

fn control_characters_in_a_statement_are_escaped(database: &TestDatabase) {
    capture();
    let marker = format!("line_{}", database.url().starts_with("sqlite"));
    let scope = database.scope_with(|config| {
        (config.echo_sql, config.echo_parameters) = (true, true);
        config.slow_query_threshold = Some(Duration::from_nanos(1));
    });
    let untrusted = "\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
    let shown = r"\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
    scope.run(|| {
        let sql = format!("SELECT '{untrusted}', :x AS {marker}");
        DatabaseService::execute_query(&sql, params! { "x" => 1 }).unwrap();
        DatabaseService::connection()
            .unwrap()
            .batch_execute(&format!("SELECT '{untrusted}' AS {marker}"))
            .unwrap();
        // The same holds for names in errors.
        for (sql, name) in [
            ("SELECT :a\u{2028}b", r"a\u{2028}b"),
            ("SELECT 1 FROM \"a\u{1b}b\"", r"a\u{1b}b"),
        ] {
            let error = DatabaseService::execute_query(sql, params! {}).unwrap_err();
            assert!(error.to_string().contains(name), "{error:?}");
        }
    });
    let lines = lines_with(&marker);
    // Each of the two statements is logged once as a statement and once as slow.
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        assert!(line.contains(shown), "{line:?}");
    }
}
