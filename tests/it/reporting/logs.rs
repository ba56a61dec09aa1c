//! What the database service logs, and what it does not.

use std::sync::{Mutex, Once};
use std::time::Duration;

use db_service::{DatabaseService, params};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use tests::TestDatabase;

on_both_backends!(
    statements_are_echoed_with_their_parameters_only_on_request,
    nothing_in_a_statement_begins_a_line,
);

/// Keeps what the service logs for tests to look at.
struct Capture(Mutex<Vec<String>>);

static CAPTURE: Capture = Capture(Mutex::new(Vec::new()));

/// At which text the logger panics, once.
static PANICS_AT: Mutex<Option<&str>> = Mutex::new(None);

/// Lets the logger panic in whatever thread logs `text` next.
pub(crate) fn panic_at(text: &'static str) {
    *PANICS_AT.lock().unwrap() = Some(text);
}

/// Whether it has done so.
pub(crate) fn has_panicked() -> bool {
    PANICS_AT.lock().unwrap().is_none()
}

/// Begins to keep what is logged; a process has one logger.
pub(crate) fn capture() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        log::set_logger(&CAPTURE).unwrap();
        log::set_max_level(log::LevelFilter::Info);
    });
}

/// What was logged with `text` in it, by all tests so far.
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
        metadata.target().starts_with("db_service")
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

fn statements_are_echoed_with_their_parameters_only_on_request(database: &TestDatabase) {
    capture();
    for (echo_sql, echo_parameters) in [(true, false), (true, true), (false, true)] {
        // Both backends write into one log.
        let mark = format!(
            "m{}_{echo_sql}_{echo_parameters}",
            database.url().starts_with("sqlite")
        );
        let secret = format!("hush {mark}");
        let scope = database.scope_with(|config| {
            (config.echo_sql, config.echo_parameters) = (echo_sql, echo_parameters);
        });
        scope.run(|| {
            let sql = format!("SELECT :secret AS {mark}");
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
        let echoed = lines_with(&format!("AS {mark}")).len();
        assert_eq!(echoed > 0, echo_sql, "{mark}");
        let shown = lines_with(&secret).len();
        assert_eq!(shown > 0, echo_sql && echo_parameters, "{mark}: {shown}");
        assert!(shown == 0 || shown >= 2, "of either form: {shown}");
    }
}

fn nothing_in_a_statement_begins_a_line(database: &TestDatabase) {
    capture();
    let mark = format!("line_{}", database.url().starts_with("sqlite"));
    let scope = database.scope_with(|config| {
        (config.echo_sql, config.echo_parameters) = (true, true);
        config.slow_query_threshold = Some(Duration::from_nanos(1));
    });
    let hostile = "\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
    let shown = r"\r\nERROR forged \u{1b}[2J\u{2028}\u{202e}";
    scope.run(|| {
        let sql = format!("SELECT '{hostile}', :x AS {mark}");
        DatabaseService::execute_query(&sql, params! { "x" => 1 }).unwrap();
        DatabaseService::connection()
            .unwrap()
            .batch_execute(&format!("SELECT '{hostile}' AS {mark}"))
            .unwrap();
        // So it is with names in errors.
        for (sql, name) in [
            ("SELECT :a\u{2028}b", r"a\u{2028}b"),
            ("SELECT 1 FROM \"a\u{1b}b\"", r"a\u{1b}b"),
        ] {
            let error = DatabaseService::execute_query(sql, params! {}).unwrap_err();
            assert!(error.to_string().contains(name), "{error:?}");
        }
    });
    let lines = lines_with(&mark);
    // Each is echoed, and slow.
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        assert!(line.contains(shown), "{line:?}");
    }
}
