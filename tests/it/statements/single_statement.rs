//! A text that holds several statements is refused, and none of them is executed: whoever splices a caller's text into a
//! statement must not hand over the database.

use std::ops::ControlFlow;

use db_service::{Connection, DatabaseService, DbError, Params, Value, params};
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestPgBouncer, TestServer};

on_both_backends! {
    several_statements_are_refused_by_every_entry_point,
    several_statements_are_refused_without_a_statement_cache,
    a_trigger_with_a_body_is_one_statement,
}

/// What the scan could take for one statement, if it took quotes, comments or bodies for something else. Each would execute
/// [`ATTACK`].
const TEXTS: [&str; 9] = [
    "SELECT :a AS x; {}",
    "SELECT :a AS x;; /* ; */ {};",
    "SELECT :a AS x\n;{}",
    "SELECT :a AS x ORDER BY 1; {} --",
    "SELECT ';' || :a AS x; {}",
    "SELECT (SELECT :a) AS x; {}",
    "SELECT \";\" FROM (SELECT :a AS \";\") AS x; {}",
    "INSERT INTO audit VALUES (:a); {}",
    "WITH x AS (SELECT :a AS y) SELECT * FROM x; {}",
];

/// Leaves a row for each time that it is executed, and takes the table away.
const ATTACKS: [&str; 3] = [
    "INSERT INTO audit VALUES ('attack')",
    "DROP TABLE victim",
    "COMMIT; INSERT INTO audit VALUES ('attack'); BEGIN",
];

fn texts() -> impl Iterator<Item = String> {
    TEXTS.into_iter().flat_map(|text| {
        ATTACKS
            .into_iter()
            .map(move |attack| text.replace("{}", attack))
    })
}

fn prepare() {
    for sql in [
        "CREATE TABLE audit (entry varchar(100))",
        "CREATE TABLE victim (id int)",
    ] {
        DatabaseService::execute_query(sql, params! {}).unwrap();
    }
}

/// Fails if anything of a refused statement was executed.
#[track_caller]
fn assert_untouched() {
    let sql = "SELECT (SELECT count(*) FROM audit) + (SELECT count(*) FROM victim) AS count";
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    assert_eq!(rows[0].get::<i64>("count").unwrap(), 0);
}

fn of_text() -> Params {
    params! { "a" => "text" }
}

/// Calls everything that takes a statement, on a connection.
fn on_connection(connection: &mut Connection, sql: &str) -> Vec<Result<(), DbError>> {
    let done = |_: db_service::Row| Ok::<_, DbError>(ControlFlow::Continue(()));
    vec![
        connection.execute_query(sql, of_text()).map(drop),
        connection
            .execute_many(sql, &[of_text(), of_text()])
            .map(drop),
        connection.for_each_row(sql, of_text(), done),
    ]
}

fn refuse_all() {
    for sql in texts() {
        let done = |_: db_service::Row| Ok::<_, DbError>(ControlFlow::Continue(()));
        let mut outcomes = vec![
            DatabaseService::execute_query(&sql, of_text()).map(drop),
            DatabaseService::execute_query(&sql, params! { "a" => 1 }).map(drop),
            DatabaseService::execute_many(&sql, &[of_text(), of_text()]).map(drop),
            DatabaseService::for_each_row(&sql, of_text(), done),
            DatabaseService::read(|connection| connection.execute_query(&sql, of_text())).map(drop),
        ];
        outcomes.extend(on_connection(
            &mut DatabaseService::connection().unwrap(),
            &sql,
        ));
        let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
            outcomes.extend(on_connection(connection, &sql));
            let nested = connection
                .transaction(|connection| connection.execute_query(&sql, of_text()).map(drop));
            outcomes.push(nested);
            Ok(())
        });
        committed.unwrap();
        for outcome in outcomes {
            let error = outcome.expect_err(&sql);
            assert!(
                matches!(error, DbError::MultipleStatements { .. }),
                "{sql}: {error}"
            );
        }
        assert_untouched();
    }
    // Names are quoted, so what stands in one is no statement.
    for name in ["audit; DROP TABLE victim", "audit\"; DROP TABLE victim; --"] {
        let row = || [vec![Value::from("x")]];
        assert!(DatabaseService::bulk_insert(name, &["entry"], row()).is_err());
        let column = name.replace("audit", "entry");
        assert!(DatabaseService::bulk_insert("audit", &[&*column], row()).is_err());
        assert!(DatabaseService::get_table_info(name).is_err());
        assert!(DatabaseService::vacuum_analyze(Some(name)).is_err());
        assert_untouched();
    }
}

fn several_statements_are_refused_by_every_entry_point(database: &TestDatabase) {
    database.scope().run(|| {
        prepare();
        refuse_all();
    });
}

fn several_statements_are_refused_without_a_statement_cache(database: &TestDatabase) {
    let scope = database.scope_with(|config| config.statement_cache_size = 0);
    scope.run(|| {
        prepare();
        refuse_all();
    });
}

fn a_trigger_with_a_body_is_one_statement(database: &TestDatabase) {
    if database.url().starts_with("postgres") {
        return;
    }
    database.scope().run(|| {
        prepare();
        let trigger = "CREATE TRIGGER t AFTER INSERT ON victim BEGIN \
                       INSERT INTO audit VALUES (CASE new.id WHEN 1 THEN 'one' END); DELETE FROM victim; END";
        let two = format!("{trigger}; DROP TABLE victim");
        let error = DatabaseService::execute_query(&two, params! {}).unwrap_err();
        assert!(matches!(error, DbError::MultipleStatements { .. }), "{error}");
        DatabaseService::execute_query(trigger, params! {}).unwrap();
        DatabaseService::execute_query("INSERT INTO victim VALUES (1)", params! {}).unwrap();
        let rows = DatabaseService::execute_query("SELECT entry FROM audit", params! {}).unwrap();
        assert_eq!(rows[0].get::<String>("entry").unwrap(), "one");
    });
}

/// The scan reads strings as the server does by default. Where the server was told otherwise, a text can hide a second
/// statement from the scan; the protocol refuses it all the same.
#[test]
fn the_server_refuses_what_the_scan_does_not_see() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for cache in [0, 512] {
        let scope = database.scope_with(|config| {
            config.statement_cache_size = cache;
            (config.pool_size, config.max_overflow) = (1, 0);
        });
        scope.run(|| {
            let _ = DatabaseService::execute_query("DROP TABLE audit, victim", params! {});
            prepare();
            let mut connection = DatabaseService::connection().unwrap();
            let off = "SET standard_conforming_strings = off";
            connection.execute_query(off, params! {}).unwrap();
            // To the scan this is one string; to the server it ends at the escaped quote's successor.
            for attack in ATTACKS {
                let sql = format!(r"SELECT :a AS x, '\''; {attack}; --'");
                let refused = on_connection(&mut connection, &sql);
                assert!(refused.iter().all(Result::is_err), "{refused:?}");
                let refused = connection.execute_query(&sql, params! { "a" => 1 });
                assert!(refused.is_err(), "{refused:?}");
                assert_untouched_on(&mut connection);
            }
        });
    }
}

#[track_caller]
fn assert_untouched_on(connection: &mut Connection) {
    let sql = "SELECT (SELECT count(*) FROM audit) + (SELECT count(*) FROM victim) AS count";
    let rows = connection.execute_query(sql, params! {}).unwrap();
    assert_eq!(rows[0].get::<i64>("count").unwrap(), 0);
}

#[test]
fn several_statements_are_refused_behind_pgbouncer() {
    let Some(server) = TestServer::start() else {
        return;
    };
    let Some(pgbouncer) = TestPgBouncer::start(&server, "pool_mode = transaction") else {
        return;
    };
    let mut config = db_service::DatabaseConfig::new(pgbouncer.url().parse().unwrap());
    config.statement_cache_size = 0;
    let config = db_service::ConfigService::new(config);
    Scope::new().provide(config).run(|| {
        prepare();
        refuse_all();
    });
}
