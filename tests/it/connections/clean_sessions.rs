//! A returned connection is clean for the next caller, whatever the statements were.

use std::time::Duration;

use db_service::{Connection, DatabaseService, DbError, ResetOnReturn, params};
use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use tests::TestDatabase;

use db_service::DatabaseConfig;

fn one_connection(config: &mut DatabaseConfig) {
    (config.pool_size, config.max_overflow) = (1, 0);
}

/// Executes `change` in one checkout, and returns whether `check` finds a clean session in the next one.
#[track_caller]
fn is_clean_after(change: impl FnOnce(&mut Connection), check: &str) -> bool {
    let mut connection = DatabaseService::connection().unwrap();
    change(&mut connection);
    drop(connection);
    let rows = DatabaseService::execute_query(check, params! {}).unwrap();
    rows[0].get("clean").unwrap()
}

const NO_LOCK: &str = "SELECT count(*) = 0 AS clean FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
const NO_LISTENER: &str = "SELECT count(*) = 0 AS clean FROM pg_listening_channels()";
const NO_ROLE: &str = "SELECT current_user = session_user AS clean";
const NO_SETTING: &str = "SELECT current_setting('work_mem') <> '4711kB' AS clean";
const NO_TABLE: &str = "SELECT to_regclass('pg_temp.mine') IS NULL AS clean";

/// Statements whose words do not show what they change.
const HIDDEN: [(&str, &str); 14] = [
    ("DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$", NO_LOCK),
    ("SELECT \"pg_advisory_lock\"(1)", NO_LOCK),
    ("SELECT pg_catalog.\"pg_advisory_lock\"(1)", NO_LOCK),
    ("SELECT U&\"pg!005fadvisory_lock\" UESCAPE '!' (1)", NO_LOCK),
    ("SELECT lock_it()", NO_LOCK),
    (
        "SELECT n FROM (VALUES (1)) AS v (n) JOIN lock_it() AS l ON true",
        NO_LOCK,
    ),
    ("DO $$ BEGIN LISTEN news; END $$", NO_LISTENER),
    ("DO $$ BEGIN SET ROLE visitor; END $$", NO_ROLE),
    ("DO $$ BEGIN SET work_mem = '4711kB'; END $$", NO_SETTING),
    (
        "UPDATE pg_settings SET setting = '4711kB' WHERE name = 'work_mem'",
        NO_SETTING,
    ),
    (
        "UPDATE \"pg_catalog\".\"pg_settings\" SET setting = '4711kB' WHERE name = 'work_mem'",
        NO_SETTING,
    ),
    ("CREATE TABLE pg_temp.mine (n int)", NO_TABLE),
    ("CREATE TABLE \"pg_temp\".mine (n int)", NO_TABLE),
    ("SELECT make_table()", NO_TABLE),
];

const FUNCTIONS: &str = "CREATE FUNCTION lock_it() RETURNS int AS 'SELECT pg_advisory_lock(1); SELECT 1' LANGUAGE sql; \
     CREATE FUNCTION make_table() RETURNS int AS $$ BEGIN CREATE TEMP TABLE mine (n int); RETURN 1; END $$ LANGUAGE plpgsql; \
     DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'visitor') THEN CREATE ROLE visitor; END IF; \
     EXCEPTION WHEN OTHERS THEN NULL; END $$;";

#[test]
fn changes_that_no_word_shows_are_not_handed_on() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(FUNCTIONS)
            .unwrap();
    });
    database.scope_with(one_connection).run(|| {
        for (sql, check) in HIDDEN {
            let ways: [fn(&mut Connection, &str); 4] = [
                |connection, sql| drop(connection.execute_query(sql, params! {}).unwrap()),
                |connection, sql| connection.batch_execute(sql).unwrap(),
                |connection, sql| _ = diesel::sql_query(sql).execute(connection).unwrap(),
                |connection, sql| {
                    let Connection::Postgres(inner) = connection else {
                        panic!("a connection to PostgreSQL");
                    };
                    inner.batch_execute(sql).unwrap();
                },
            ];
            for (number, way) in ways.into_iter().enumerate() {
                assert!(
                    is_clean_after(|connection| way(connection, sql), check),
                    "{sql}, way {number}"
                );
            }
        }
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

/// One tenant's setting decides what a policy shows, so another tenant must not inherit it.
#[test]
fn tenant_does_not_see_rows_of_the_previous_one() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope_with(one_connection).run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(
                "CREATE TABLE notes (tenant text, note text); \
                 INSERT INTO notes VALUES ('a', 'of a'), ('b', 'of b'); \
                 CREATE FUNCTION become(tenant text) RETURNS void AS \
                 $$ SELECT set_config('app.tenant', tenant, false) $$ LANGUAGE sql;",
            )
            .unwrap();
        let visible = "SELECT count(*) AS count FROM notes WHERE tenant = current_setting('app.tenant', true)";
        for _ in 0..3 {
            DatabaseService::execute_query("SELECT become('a')", params! {}).unwrap();
            let rows = DatabaseService::execute_query(visible, params! {}).unwrap();
            assert_eq!(rows[0].get::<i64>("count").unwrap(), 0);
        }
    });
}

/// An unknown function costs a reset, not the connection.
#[test]
fn connection_is_kept_if_its_state_can_be_reset() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let config = |config: &mut DatabaseConfig| {
        one_connection(config);
        config.postgres.statement_timeout = Some(Duration::from_secs(4711));
    };
    database.scope_with(config).run(|| {
        let execute = |sql: &str| DatabaseService::execute_query(sql, params! {}).unwrap();
        execute("CREATE FUNCTION double(n int) RETURNS int AS 'SELECT 2 * n' LANGUAGE sql");
        let process = || {
            execute("SELECT pg_backend_pid() AS pid")[0]
                .get::<i64>("pid")
                .unwrap()
        };
        let before = process();
        for _ in 0..3 {
            execute("SELECT double(1)");
            assert_eq!(process(), before);
        }
        // The driver's prepared statements are kept too.
        let prepared = "SELECT count(*) AS count FROM pg_prepared_statements WHERE statement LIKE '%double%'";
        assert_eq!(execute(prepared)[0].get::<i64>("count").unwrap(), 1 + 1);
        // A statement that the user has prepared cannot be told from the others by name, so the connection is closed.
        execute("DO $$ BEGIN EXECUTE 'PREPARE mine AS SELECT 1'; END $$");
        assert_ne!(process(), before);
        // The driver's settings are set again, and so are those of the service.
        let zone = "SELECT current_setting('TimeZone') AS zone, current_setting('statement_timeout') AS timeout";
        execute("SELECT double(1)");
        let row = &execute(zone)[0];
        assert_eq!(row.get::<String>("zone").unwrap(), "UTC");
        assert_eq!(row.get::<String>("timeout").unwrap(), "4711s");
    });
}

#[test]
fn pragmas_and_temporary_objects_of_sqlite_are_not_handed_on() {
    const FOREIGN_KEYS: &str = "SELECT foreign_keys AS clean FROM pragma_foreign_keys";
    const NOTHING_TEMPORARY: &str = "SELECT count(*) = 0 AS clean FROM sqlite_temp_schema";
    TestDatabase::sqlite().scope_with(one_connection).run(|| {
        for (sql, check) in [
            ("PRAGMA foreign_keys(0)", FOREIGN_KEYS),
            ("PRAGMA main.foreign_keys (off)", FOREIGN_KEYS),
            ("pragma foreign_keys=0", FOREIGN_KEYS),
            ("CREATE TABLE temp.mine (n)", NOTHING_TEMPORARY),
            ("CREATE TABLE \"temp\".mine (n)", NOTHING_TEMPORARY),
            ("CREATE TABLE [temp] . mine (n)", NOTHING_TEMPORARY),
            ("CREATE VIEW temp.mine AS SELECT 1", NOTHING_TEMPORARY),
        ] {
            let ways: [fn(&mut Connection, &str); 2] = [
                |connection, sql| drop(connection.execute_query(sql, params! {}).unwrap()),
                |connection, sql| connection.batch_execute(sql).unwrap(),
            ];
            for way in ways {
                assert!(
                    is_clean_after(|connection| way(connection, sql), check),
                    "{sql}"
                );
            }
        }
        // A foreign key is enforced for the next caller.
        DatabaseService::connection()
            .unwrap()
            .batch_execute(
                "CREATE TABLE a (id INTEGER PRIMARY KEY); CREATE TABLE b (a INTEGER REFERENCES a)",
            )
            .unwrap();
        DatabaseService::execute_query("PRAGMA foreign_keys(0)", params! {}).unwrap();
        let orphan = DatabaseService::execute_query("INSERT INTO b VALUES (1)", params! {});
        assert!(
            matches!(orphan, Err(DbError::ForeignKeyViolation { .. })),
            "{orphan:?}"
        );
        // A pragma that only reads keeps the connection.
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .execute_query("PRAGMA cache_size = 4711", params! {})
            .unwrap();
        let rows = connection
            .execute_query("PRAGMA table_info(a)", params! {})
            .unwrap();
        assert_eq!(rows.len(), 1);
    });
}

/// A schema before `pg_catalog` in the search path changes what a name or an operator means.
#[test]
fn reset_calls_no_function_of_the_user() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let hostile = "CREATE SCHEMA hostile; \
        CREATE FUNCTION hostile.lock_it(int, int) RETURNS int AS \
        'SELECT pg_catalog.pg_advisory_lock(1); SELECT 1' LANGUAGE sql; \
        CREATE OPERATOR hostile./ (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.lock_it); \
        DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = hostile, pg_catalog', current_database()); END $$";
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.batch_execute(hostile).unwrap();
    });
    database.scope_with(one_connection).run(|| {
        let process = || {
            let rows = DatabaseService::execute_query("SELECT pg_backend_pid() AS pid", params! {});
            rows.unwrap()[0].get::<i64>("pid").unwrap()
        };
        let before = process();
        let change =
            |connection: &mut Connection| connection.batch_execute("DO $$ BEGIN END $$").unwrap();
        assert!(is_clean_after(change, NO_LOCK));
        assert_eq!(process(), before, "the connection was reset and not closed");
    });
}

#[test]
fn reset_restores_the_default_role_of_the_session() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let monitor = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET role = pg_monitor', current_database()); END $$";
    database.scope().run(|| {
        DatabaseService::execute_query(monitor, params! {}).unwrap();
    });
    database.scope_with(one_connection).run(|| {
        const IS_MONITOR: &str = "SELECT current_user = 'pg_monitor' AS clean";
        for change in [
            "SELECT 1",
            "DO $$ BEGIN END $$",
            "DO $$ BEGIN RESET ROLE; SET ROLE none; END $$",
        ] {
            let change = |connection: &mut Connection| connection.batch_execute(change).unwrap();
            assert!(is_clean_after(change, IS_MONITOR));
        }
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

/// A trigger changes a setting without a word of the statement.
#[test]
fn changes_by_triggers_are_reset_if_the_state_is_always_reset() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let schema = "CREATE TABLE t (n int); \
        CREATE FUNCTION lock_it() RETURNS trigger AS \
        $$ BEGIN PERFORM pg_advisory_lock(1); RETURN NEW; END $$ LANGUAGE plpgsql; \
        CREATE TRIGGER lock_it BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION lock_it()";
    let scope = database.scope_with(|config| {
        one_connection(config);
        config.reset_on_return = ResetOnReturn::Always;
    });
    scope.run(|| {
        DatabaseService::connection()
            .unwrap()
            .batch_execute(schema)
            .unwrap();
        let insert = |connection: &mut Connection| {
            connection
                .execute_query("INSERT INTO t VALUES (1)", params! {})
                .unwrap();
        };
        assert!(is_clean_after(insert, NO_LOCK));
        let process = || {
            let rows = DatabaseService::execute_query("SELECT pg_backend_pid() AS pid", params! {});
            rows.unwrap()[0].get::<i64>("pid").unwrap()
        };
        let before = process();
        assert_eq!(process(), before, "an unchanged connection is kept");
    });
    TestDatabase::sqlite()
        .scope_with(|config| {
            one_connection(config);
            config.reset_on_return = ResetOnReturn::Always;
        })
        .run(|| {
            let mut connection = DatabaseService::connection().unwrap();
            let Connection::Sqlite(inner) = &mut *connection else {
                panic!("a connection to SQLite");
            };
            // Not even the driver's own statements escape.
            inner.batch_execute("CREATE TEMP TABLE mine (n)").unwrap();
            drop(connection);
            let sql = "SELECT count(*) = 0 AS clean FROM sqlite_temp_schema";
            let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
            assert!(rows[0].get::<bool>("clean").unwrap());
        });
}
