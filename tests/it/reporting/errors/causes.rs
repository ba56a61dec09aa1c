//! An error prints its causes and does not return them from `source()`, so no report prints a message twice.

use std::error::Error as StdError;
use std::iter;
use std::net::TcpListener;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use db_service::{
    ConfigFault, ConfigService, DatabaseConfig, DatabaseService, DatabaseUrl, DbError, Isolation,
    MigrationError, Migrations, Params, ServerError, TransactionOptions, WritePosition, params,
    values,
};
use diesel::connection::{Connection as _, SimpleConnection};
use diesel_migrations::{EmbeddedMigration, EmbeddedMigrations, EmbeddedName, TomlMetadataWrapper};
use singleton_core::ServiceContext;
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestServer};
use user_repo::{Argon2Params, ListUsers, PasswordService, UserError, UserRepository, UserUpdate};

use super::{backend_pid, execute, terminate};
use crate::reporting::logs;

on_both_backends!(
    errors_of_statements_print_each_message_once,
    errors_of_the_pool_print_each_message_once,
    errors_of_migrations_print_each_message_once,
    errors_of_users_print_each_message_once,
);

/// Returns the errors below an error: those that `cause()` returns, and those that other crates return from
/// `source()`.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    iter::successors(below(error), |error| below(*error))
}

fn below<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    None.or_else(|| error.downcast_ref::<DbError>()?.cause())
        .or_else(|| error.downcast_ref::<MigrationError>()?.cause())
        .or_else(|| error.downcast_ref::<ConfigFault>()?.cause())
        .or_else(|| error.downcast_ref::<UserError>()?.cause())
        .or_else(|| error.source())
}

/// Checks what a report of an error prints: one line, with the message of each cause once.
#[track_caller]
fn assert_printed_once(error: impl StdError + Send + Sync + 'static) {
    assert_one_line(&error);
    let shown = error.to_string();
    let error = anyhow::Error::from(error);
    assert_eq!(format!("{error:#}"), shown);
    let debug = format!("{error:?}");
    let without_backtrace = debug.split("\n\nStack backtrace:").next();
    assert_eq!(without_backtrace, Some(&*shown));
}

/// Checks that `Display` is one line with the message of each cause once, and that there is no source.
#[track_caller]
fn assert_one_line(error: &(dyn StdError + 'static)) {
    let shown = error.to_string();
    assert!(
        error.source().is_none(),
        "{shown:?} returns {:?}",
        error.source()
    );
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert_eq!(shown, shown.trim());
    assert_eq!(format!("{error:#}"), shown);
    assert_eq!(repeated(&shown), None, "{shown:?}");
    for cause in causes(error) {
        let message = cause.to_string();
        // `DbError::PoolTimeout` says this in its own words.
        let message = message
            .strip_prefix("timed out waiting for connection")
            .unwrap_or(&message);
        // The lines of another crate's message are joined.
        if message.is_empty() || message.contains(char::is_control) {
            continue;
        }
        assert!(shown.ends_with(message), "{shown:?} lacks {message:?}");
        assert_eq!(shown.matches(message).count(), 1, "{shown:?}: {message:?}");
    }
}

/// Returns the messages that appear twice in a row, as in a report that adds the source to a text that contains it.
fn repeated(shown: &str) -> Option<String> {
    let messages: Vec<_> = shown.split(": ").collect();
    (1..=messages.len() / 2).find_map(|length| {
        let pairs = messages.windows(2 * length);
        let twice = pairs
            .map(|pair| pair.split_at(length))
            .find(|(left, right)| left == right);
        twice.map(|(left, _)| left.join(": "))
    })
}

#[test]
fn repeated_messages_are_found() {
    let found = |text| repeated(text).unwrap_or_default();
    assert_eq!(found("connection lost: x: x"), "x");
    assert_eq!(
        found("no start: no server: x: no server: x"),
        "no server: x"
    );
    assert_eq!(found("a: b: a"), "");
    assert_eq!(found("syntax error: near \"x\": syntax error"), "");
}

#[track_caller]
fn failure<T>(result: Result<T, DbError>) -> DbError {
    result.err().expect("an error")
}

/// Checks the errors, and that they are those of the table.
#[track_caller]
fn assert_all_printed_once(errors: impl IntoIterator<Item = (&'static str, DbError)>) {
    for (expected, error) in errors {
        let kind = match &error {
            DbError::Migration(error) => format!("{error:?}"),
            error => format!("{error:?}"),
        };
        assert!(kind.starts_with(expected), "{expected}: {kind}");
        assert_printed_once(error);
    }
}

fn errors_of_statements_print_each_message_once(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database.scope().run(|| {
        execute("CREATE TABLE owners (id INTEGER PRIMARY KEY)").unwrap();
        execute(
            "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, owner INTEGER REFERENCES owners (id), \
             legs INTEGER CHECK (legs >= 0))",
        )
        .unwrap();
        execute("INSERT INTO pets VALUES (1, 'Rex', NULL, 4)").unwrap();
        let fails = |sql: &str| failure(execute(sql));
        let row = execute("SELECT 1 AS n, 'x' AS name").unwrap().remove(0);
        let read_only = TransactionOptions {
            read_only: true,
            ..TransactionOptions::default()
        };
        let fake = Scope::new().provide(DatabaseService::fake(|_, _| Ok(Vec::new())));
        let placeholder = if is_postgres { "SELECT $1" } else { "SELECT ?1" };
        assert_all_printed_once([
            ("UniqueViolation", fails("INSERT INTO pets VALUES (1, 'Rex', NULL, 4)")),
            ("ForeignKeyViolation", fails("INSERT INTO pets VALUES (2, 'Rex', 7, 4)")),
            ("NotNullViolation", fails("INSERT INTO pets VALUES (2, NULL, NULL, 4)")),
            ("CheckViolation", fails("INSERT INTO pets VALUES (2, 'Rex', NULL, -1)")),
            ("Syntax", fails("SELEC 1")),
            ("Syntax", fails("SELECT (")),
            ("Query", fails("SELECT * FROM nowhere")),
            ("Query", fails("SELECT * FROM \"no\nwhere\"")),
            ("EmptyStatement", fails(" -- nothing\n")),
            ("MultipleStatements", fails("SELECT 1; SELECT 2")),
            ("RawPlaceholder", fails(placeholder)),
            ("MissingParameter", fails("SELECT :a\u{2028}b")),
            (
                "UnusedParameter",
                failure(DatabaseService::execute_query("SELECT 1", params! { "a\nb" => 1 })),
            ),
            (
                "InvalidColumns",
                failure(DatabaseService::bulk_insert("pets", &["a\nb", "a\nb"], [values![1, 2]])),
            ),
            (
                "RowLength",
                failure(DatabaseService::bulk_insert("pets", &["id", "name"], [values![7]])),
            ),
            (
                "EndsTransaction",
                failure(DatabaseService::transaction(|connection| {
                    connection.execute_query("COMMIT", params! {})
                })),
            ),
            ("UnknownColumn", failure(row.get::<i64>("a\nb"))),
            ("WrongType", failure(row.get::<i64>("name"))),
            ("Deserialize", failure(row.deserialize::<(i64, i64)>())),
            ("Serialize", failure(Params::from_serialize("a\nb"))),
            ("UnknownTable", failure(DatabaseService::get_table_info("nowhere"))),
            ("InvalidTableName", failure(DatabaseService::get_table_info("a\nb"))),
            (
                "ReadOnly",
                failure(DatabaseService::transaction_with(&read_only, |connection| {
                    connection.execute_query("DELETE FROM pets", params! {})
                })),
            ),
            ("Fake", failure(fake.run(DatabaseService::connection))),
        ]);
        if is_postgres {
            let row = values![7, "a\0b"];
            let unstorable = DatabaseService::bulk_insert("pets", &["id", "name"], [row]);
            execute("CREATE TABLE spans (r int4range, EXCLUDE USING gist (r WITH &&))").unwrap();
            assert_all_printed_once([
                ("UnstorableValue", failure(unstorable)),
                ("CopyUnsupported", fails("COPY pets FROM STDIN")),
                (
                    "ExclusionViolation",
                    fails("INSERT INTO spans VALUES ('[1,3)'), ('[2,4)')"),
                ),
            ]);
        } else {
            let nan = params! { "x" => f64::NAN };
            let unstorable = DatabaseService::execute_query("SELECT :x AS x", nan);
            assert_all_printed_once([
                ("UnstorableValue", failure(unstorable)),
                (
                    "UnreadableValue",
                    fails("SELECT CAST(x'ff' AS TEXT) AS name"),
                ),
            ]);
        }
    });
    assert_printed_once("1/".parse::<WritePosition>().unwrap_err());
}

fn errors_of_the_pool_print_each_message_once(database: &TestDatabase) {
    let small_pool = |config: &mut DatabaseConfig| {
        (config.pool_size, config.max_overflow) = (1, 0);
        config.pool_timeout = Duration::from_millis(50);
        config.drain_timeout = Duration::from_millis(1);
    };
    database.scope_with(small_pool).run(|| {
        let held = DatabaseService::connection().unwrap();
        assert_all_printed_once([("PoolTimeout", failure(execute("SELECT 1")))]);
        drop(held);
        singleton_core::registry().shutdown_all();
        assert_printed_once(failure(execute("SELECT 1")));
        assert_printed_once(DbError::Closed);
    });
    // Each connection is older than that when it is checked out.
    let recycled = database.scope_with(|config| {
        small_pool(config);
        config.pool_recycle = Some(Duration::from_nanos(1));
    });
    let error = failure(recycled.run(DatabaseService::get_pool_status));
    let error = error.cause().and_then(|cause| cause.downcast_ref());
    match error.expect("the error of the start") {
        error @ DbError::PoolTimeout { source, .. } => {
            let replaced =
                "a connection was replaced, because of its age or because another one was lost";
            assert!(
                source.is_some() && error.to_string().ends_with(replaced),
                "{error}"
            );
            assert_one_line(error);
        }
        other => panic!("{other}"),
    }
}

/// An error of another crate that prints its cause and also returns it.
#[derive(Debug, thiserror::Error)]
#[error("cannot list\n\tthe folder: {0}")]
struct PrintsAndReturns(#[source] std::io::Error);

const fn migration(
    name: &'static str,
    up: &'static str,
    in_transaction: bool,
) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(in_transaction);
    EmbeddedMigration::new(up, None, EmbeddedName::new(name), metadata)
}

fn source(migrations: &'static [EmbeddedMigration]) -> Migrations {
    Migrations::new()
        .named("causes")
        .lock_timeout(Duration::ZERO)
        .sqlite(EmbeddedMigrations::new(migrations))
        .postgres(EmbeddedMigrations::new(migrations))
}

fn errors_of_migrations_print_each_message_once(database: &TestDatabase) {
    const ONE: EmbeddedMigration = migration("001_a\nb", "CREATE TABLE one (n INTEGER)", true);
    const THREE: EmbeddedMigration = migration("003_three", "CREATE TABLE three (n INTEGER)", true);
    let run = |migrations| failure(DatabaseService::run_migrations(&source(migrations)));
    database.scope().run(|| {
        DatabaseService::run_migrations(&source(const { &[ONE, THREE] })).unwrap();
        let unreadable = PrintsAndReturns(std::io::Error::other("no folder\n"));
        let unreadable = MigrationError::Unreadable(Box::new(unreadable));
        assert_eq!(
            unreadable.to_string(),
            "the migrations cannot be read: cannot list the folder: no folder"
        );
        let revert = || {
            failure(DatabaseService::revert_migrations(
                &source(const { &[ONE] }),
                2,
            ))
        };
        assert_all_printed_once([
            (
                "Unsupported",
                failure(DatabaseService::run_migrations(&Migrations::new())),
            ),
            ("Unreadable", unreadable.into()),
            (
                "Duplicate",
                run(const { &[ONE, migration("001_other", "SELECT 1", true)] }),
            ),
            (
                "Drift",
                run(const { &[migration("001_a\nb", "SELECT 1", true), THREE] }),
            ),
            ("Missing", run(const { &[THREE] })),
            ("Irreversible", revert()),
            (
                "UnknownVersion",
                failure(DatabaseService::baseline_migrations(
                    &source(const { &[ONE] }),
                    "9\n",
                )),
            ),
            (
                "Failed",
                run(const {
                    &[
                        ONE,
                        THREE,
                        migration("004_b\n", "INSERT INTO nowhere VALUES (1)", true),
                    ]
                }),
            ),
            (
                "Failed",
                run(const { &[ONE, THREE, migration("004_b\n", "SELECT 1; SELEC 2", false)] }),
            ),
            (
                "Incomplete",
                run(const { &[ONE, THREE, migration("004_b\n", "SELECT 2", false)] }),
            ),
            (
                "Refused",
                run(const { &[ONE, THREE, migration("005_b\n", "SELECT 1;\nCOMMIT", true)] }),
            ),
        ]);
        let pending = const {
            &[
                ONE,
                THREE,
                migration("005_c", "CREATE TABLE five (n INTEGER)", true),
            ]
        };
        match database.url().strip_prefix("sqlite:///") {
            Some(path) => {
                let lock = format!("{path}-migrations.lock");
                let file = std::fs::File::open(&lock).unwrap();
                file.lock().unwrap();
                let timed_out = run(pending);
                std::fs::remove_file(&lock).unwrap();
                std::fs::create_dir(&lock).unwrap();
                let refused = run(pending);
                assert_all_printed_once([("LockTimeout", timed_out), ("LockFile", refused)]);
            }
            None => {
                let mut other = DatabaseService::connection().unwrap();
                let lock = i64::from_be_bytes(*b"db-servi");
                let sql = "SELECT pg_advisory_lock(:lock)";
                other
                    .execute_query(sql, params! { "lock" => lock })
                    .unwrap();
                assert_all_printed_once([("LockTimeout", run(pending))]);
            }
        }
    });
}

fn errors_of_users_print_each_message_once(database: &TestDatabase) {
    database.scope().run(|| {
        let create = UserRepository::create_user;
        let user = create("ada", "a@x", "secret").unwrap();
        let no_memory = Argon2Params {
            memory_kib: 0,
            ..Argon2Params::default()
        };
        execute("UPDATE users SET password_hash = '$argon2id$\n'").unwrap();
        let unusable = UserRepository::verify_password("ada", "secret").unwrap_err();
        execute("DROP TABLE users").unwrap();
        let lost = UserRepository::get_user_by_id(user.id).unwrap_err();
        assert!(lost.cause().is_some_and(|cause| cause.is::<ServerError>()));
        let hashing = PasswordService::new(no_memory).unwrap_err();
        let argon2 = hashing.cause().expect("the error of Argon2").to_string();
        assert_eq!(
            hashing.to_string(),
            format!("the password could not be hashed: {argon2}")
        );
        for (expected, error) in [
            ("Invalid", create("a\nb", "x", "y").unwrap_err()),
            (
                "NoUpdates",
                UserRepository::update_user(user.id, UserUpdate::new()).unwrap_err(),
            ),
            (
                "LimitExceeded",
                UserRepository::list_users(ListUsers::default().limit(1001)).unwrap_err(),
            ),
            ("UnusableHash", unusable),
            ("Database", lost),
            ("Hashing", hashing),
        ] {
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
            assert_printed_once(error);
        }
    });
    database.scope().run(|| {
        execute("DROP TABLE __diesel_schema_migrations").unwrap();
        let create = UserRepository::create_user;
        create("ada", "a@x", "secret").unwrap();
        for (expected, error) in [
            ("UsernameTaken", create("ada", "b@x", "secret").unwrap_err()),
            ("EmailTaken", create("bob", "a@x", "secret").unwrap_err()),
        ] {
            assert!(format!("{error:?}").starts_with(expected), "{error:?}");
            assert_printed_once(error);
        }
    });
}

#[test]
fn errors_of_sqlite_locks_and_full_disks_print_each_message_once() {
    let database = TestDatabase::sqlite();
    let scope = database.scope_with(|config| config.sqlite.busy_timeout = Duration::ZERO);
    scope.run(|| {
        execute("CREATE TABLE t (x BLOB)").unwrap();
        let path = database.url().strip_prefix("sqlite:///").unwrap();
        let mut other = diesel::SqliteConnection::establish(path).unwrap();
        other.batch_execute("BEGIN IMMEDIATE").unwrap();
        let locked = failure(execute("INSERT INTO t VALUES (1)"));
        other.batch_execute("ROLLBACK").unwrap();
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .batch_execute("PRAGMA max_page_count = 1")
            .unwrap();
        let full = connection.execute_query("INSERT INTO t VALUES (zeroblob(1000000))", params! {});
        assert_all_printed_once([("LockTimeout", locked), ("DiskFull", failure(full))]);
    });
}

#[test]
fn errors_of_postgres_print_each_message_once() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER PRIMARY KEY, m INTEGER)").unwrap();
        execute("INSERT INTO t VALUES (1, 0), (2, 0)").unwrap();
        let within = |setting: &str, sql: &str| {
            failure(DatabaseService::transaction(|connection| {
                connection.execute_query(&format!("SET LOCAL {setting} = '50ms'"), params! {})?;
                connection.execute_query(sql, params! {})
            }))
        };
        let lock = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE";
        let mut holder = DatabaseService::connection().unwrap();
        holder.execute_query("BEGIN", params! {}).unwrap();
        holder.execute_query(lock, params! {}).unwrap();
        let lock_timeout = within("lock_timeout", lock);
        terminate(backend_pid(&mut holder));
        let lost = failure(holder.execute_query("SELECT 1", params! {}));
        let lost_again = failure(holder.execute_query("SELECT 1", params! {}));
        let unknown = failure(DatabaseService::transaction(|connection| {
            connection.execute_query("UPDATE t SET m = 0", params! {})?;
            terminate(backend_pid(connection));
            Ok::<_, DbError>(())
        }));
        assert_all_printed_once([
            (
                "StatementTimeout",
                within("statement_timeout", "SELECT pg_sleep(60)"),
            ),
            ("LockTimeout", lock_timeout),
            ("ConnectionLost", lost),
            ("ConnectionLost", lost_again),
            ("OutcomeUnknown", unknown),
            (
                "Query",
                failure(execute("DO $$ BEGIN RAISE EXCEPTION E'a\nb\n'; END $$")),
            ),
            ("Deadlock", conflict(None, LOCK_ROW, LOCK_ROW)),
            (
                "SerializationFailure",
                conflict(Some(Isolation::Serializable), READ_ALL, WRITE_ROW),
            ),
        ]);
    });
    let impatient = database.scope_with(|config| {
        config.postgres.socket_timeout = Some(Duration::from_millis(100));
    });
    let error = impatient.run(|| failure(execute("SELECT pg_sleep(60)")));
    assert_all_printed_once([("NoAnswer", error)]);
}

const LOCK_ROW: &str = "SELECT n FROM t WHERE n = :n FOR UPDATE";
const READ_ALL: &str = "SELECT sum(m) FROM t WHERE n >= :n OR n < :n";
const WRITE_ROW: &str = "UPDATE t SET m = m + 1 WHERE n = :n";

/// Runs two transactions that execute `first` and then `second`, for two rows in opposite order. Returns the error of
/// the transaction that the server rolls back.
fn conflict(isolation: Option<Isolation>, first: &str, second: &str) -> DbError {
    let (scope, both_have_one) = (ServiceContext::current(), Barrier::new(2));
    let options = TransactionOptions {
        isolation,
        ..TransactionOptions::default()
    };
    let outcomes = thread::scope(|threads| {
        let threads = [[1, 2], [2, 1]].map(|order| {
            let (scope, options, both) = (&scope, &options, &both_have_one);
            threads.spawn(move || {
                scope.sync_scope(|| {
                    DatabaseService::transaction_with(options, |connection| {
                        connection.execute_query(first, params! { "n" => order[0] })?;
                        both.wait();
                        connection.execute_query(second, params! { "n" => order[1] })?;
                        Ok::<_, DbError>(())
                    })
                })
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    outcomes
        .into_iter()
        .find_map(Result::err)
        .expect("a conflict")
}

fn closed_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Returns the errors of services that do not start.
fn start_failures() -> Vec<DbError> {
    let mut urls = vec![
        format!("postgresql://ada:hunter2@127.0.0.1:{}/shop", closed_port()),
        "postgresql://ada:hunter2@host.invalid/shop".to_owned(),
        "postgresql:///shop?host=/nowhere".to_owned(),
        "sqlite:////nowhere/shop.db".to_owned(),
    ];
    if let Some(server) = TestServer::start() {
        let port = server.port();
        urls.push(format!("postgresql://postgres@127.0.0.1:{port}/nothing"));
        let refused = format!("postgresql://postgres:hunter2@127.0.0.1:{port}/postgres");
        let failure = |url: &str| start_failure(DatabaseConfig::new(url.parse().unwrap()));
        let mut failures: Vec<_> = urls.iter().map(|url| failure(url)).collect();
        server.execute("ALTER ROLE postgres PASSWORD 'other'");
        server.set_access_rules("host all all 127.0.0.1/32 scram-sha-256\n");
        failures.push(failure(&refused));
        // The relay of `DB_SOCKET_TIMEOUT` opens connections in another way.
        for url in urls.iter().chain([&refused]) {
            let mut config = DatabaseConfig::new(url.parse().unwrap());
            config.postgres.socket_timeout = Some(Duration::from_secs(10));
            failures.push(start_failure(config));
        }
        return failures;
    }
    let configs = urls
        .iter()
        .map(|url| DatabaseConfig::new(url.parse().unwrap()));
    configs.map(start_failure).collect()
}

#[track_caller]
fn start_failure(config: DatabaseConfig) -> DbError {
    let scope = Scope::new().provide(ConfigService::new(config));
    scope.run(|| failure(DatabaseService::connection()))
}

#[test]
fn cause_of_a_failed_start_prints_each_message_once() {
    for error in start_failures() {
        match error.cause().and_then(|cause| cause.downcast_ref()) {
            Some(cause @ DbError::Connect { source, .. }) => {
                assert!(error.to_string().ends_with(&cause.to_string()), "{error}");
                assert!(cause.to_string().ends_with(&source.to_string()), "{cause}");
                assert_one_line(cause);
            }
            other => panic!("{error}: {other:?}"),
        }
    }
}

fn invalid_settings() -> Scope {
    Scope::new()
        .env("DATABASE_URL", "postgresql://ada:hun@ter2@h/shop")
        .env("DB_REPLICA_URLS", "mysql://h")
        .env("DB_POOL_SIZE", "a\nb")
        .env("DB_MAX_OVERFLOW", "1000000")
}

#[test]
fn errors_of_settings_print_each_message_once() {
    let error = invalid_settings()
        .run(DatabaseConfig::from_env)
        .unwrap_err();
    assert!(error.faults().len() > 2, "{error}");
    for fault in error.faults() {
        assert_printed_once(fault.clone());
    }
    assert_printed_once(error);
    assert_printed_once("mysql://h".parse::<DatabaseUrl>().unwrap_err());
}

#[test]
fn errors_of_the_start_print_each_message_once() {
    let invalid = invalid_settings().run(|| failure(DatabaseService::connection()));
    for error in start_failures().into_iter().chain([invalid]) {
        assert_printed_once(error);
    }
}

/// While the server is away, each checkout fails, the pool replaces connections, and a replica is probed.
#[test]
fn log_lines_and_errors_of_an_outage_have_no_line_breaks() {
    let Some(server) = TestServer::start() else {
        return;
    };
    logs::capture();
    let mut config = DatabaseConfig::new(server.url().parse().unwrap());
    config.pool_timeout = Duration::from_millis(800);
    config.replicas.urls = vec![server.url().parse().unwrap()];
    let port = format!(":{}", server.port());
    Scope::new().provide(ConfigService::new(config)).run(|| {
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let mut held = DatabaseService::connection().unwrap();
        server.stop();
        assert_all_printed_once([(
            "ConnectionLost",
            failure(held.execute_query("SELECT 1", params! {})),
        )]);
        drop(held);
        let error = failure(execute("SELECT 1"));
        assert!(error.to_string().contains("Connection refused"), "{error}");
        match &error {
            DbError::PoolTimeout {
                last_failure: Some(last_failure),
                ..
            } => {
                assert!(!last_failure.contains(char::is_control), "{last_failure:?}");
            }
            other => panic!("{other:?}"),
        }
        assert_all_printed_once([("PoolTimeout", error)]);
        let replica = || DatabaseService::statistics().unwrap().replicas.remove(0);
        while !replica()
            .last_failure
            .is_some_and(|failure| failure.contains("refused"))
        {
            thread::yield_now();
        }
        let failure = replica().last_failure.unwrap_or_default();
        assert!(!failure.contains(char::is_control), "{failure:?}");
    });
    let lines = logs::lines_with("");
    let refused = |line: &&String| line.contains(&port) && line.contains("Connection refused");
    assert!(lines.iter().filter(refused).count() > 1, "{lines:#?}");
    for line in lines {
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
