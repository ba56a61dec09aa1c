//! SQL that contains several statements is rejected, and none of them is executed. If a program splices untrusted text
//! into a statement, that text cannot add a second statement.

use std::ops::ControlFlow;

use db_service::{Connection, DatabaseService, DbError, Params, Value, params};
use singleton_core::testing::Scope;
use tests::{TestDatabase, TestPgBouncer, TestServer};

on_both_backends! {
    multiple_statements_are_rejected_by_every_entry_point,
    multiple_statements_are_rejected_without_a_statement_cache,
    create_trigger_with_a_body_is_one_statement,
}

/// SQL that a scanner with an error in quotes, comments or bodies could mistake for one statement. One of the
/// [`ATTACKS`] replaces `{}`.
const TEMPLATES: [&str; 9] = [
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

/// Injected statements. Each of them adds a row to `audit` or drops `victim` when it is executed.
const ATTACKS: [&str; 3] = [
    "INSERT INTO audit VALUES ('attack')",
    "DROP TABLE victim",
    "COMMIT; INSERT INTO audit VALUES ('attack'); BEGIN",
];

fn injections() -> impl Iterator<Item = String> {
    TEMPLATES.into_iter().flat_map(|text| {
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

/// Panics if any part of a rejected statement was executed.
#[track_caller]
fn assert_untouched() {
    let sql = "SELECT (SELECT count(*) FROM audit) + (SELECT count(*) FROM victim) AS count";
    let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
    assert_eq!(rows[0].get::<i64>("count").unwrap(), 0);
}

fn text_params() -> Params {
    params! { "a" => "text" }
}

/// Calls each method of a connection that takes SQL, and returns the results.
fn call_all_methods(connection: &mut Connection, sql: &str) -> Vec<Result<(), DbError>> {
    let skip_row = |_: db_service::Row| Ok::<_, DbError>(ControlFlow::Continue(()));
    vec![
        connection.execute_query(sql, text_params()).map(drop),
        connection.execute(sql, text_params()).map(drop),
        connection
            .query_as::<serde_json::Value>(sql, text_params())
            .map(drop),
        connection
            .execute_many(sql, &[text_params(), text_params()])
            .map(drop),
        connection.for_each_row(sql, text_params(), skip_row),
    ]
}

/// Panics unless each method that takes SQL rejects all texts.
fn assert_all_are_rejected() {
    for sql in injections() {
        let skip_row = |_: db_service::Row| Ok::<_, DbError>(ControlFlow::Continue(()));
        let mut outcomes = vec![
            DatabaseService::execute_query(&sql, text_params()).map(drop),
            DatabaseService::execute_query(&sql, params! { "a" => 1 }).map(drop),
            DatabaseService::execute(&sql, text_params()).map(drop),
            DatabaseService::query_as::<serde_json::Value>(&sql, text_params()).map(drop),
            DatabaseService::execute_many(&sql, &[text_params(), text_params()]).map(drop),
            DatabaseService::for_each_row(&sql, text_params(), skip_row),
            DatabaseService::read(|connection| connection.execute_query(&sql, text_params()))
                .map(drop),
        ];
        outcomes.extend(call_all_methods(
            &mut DatabaseService::connection().unwrap(),
            &sql,
        ));
        let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
            outcomes.extend(call_all_methods(connection, &sql));
            let nested = connection
                .transaction(|connection| connection.execute_query(&sql, text_params()).map(drop));
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
    // Names are quoted, so SQL in a name is not executed.
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

fn multiple_statements_are_rejected_by_every_entry_point(database: &TestDatabase) {
    database.scope().run(|| {
        prepare();
        assert_all_are_rejected();
    });
}

fn multiple_statements_are_rejected_without_a_statement_cache(database: &TestDatabase) {
    let scope = database.scope_with(|config| config.statement_cache_size = 0);
    scope.run(|| {
        prepare();
        assert_all_are_rejected();
    });
}

fn create_trigger_with_a_body_is_one_statement(database: &TestDatabase) {
    if database.url().starts_with("postgres") {
        return;
    }
    database.scope().run(|| {
        prepare();
        let trigger = "CREATE TRIGGER t AFTER INSERT ON victim BEGIN \
                       INSERT INTO audit VALUES (CASE new.id WHEN 1 THEN 'one' END); DELETE FROM victim; END";
        let two_statements = format!("{trigger}; DROP TABLE victim");
        let error = DatabaseService::execute_query(&two_statements, params! {}).unwrap_err();
        assert!(matches!(error, DbError::MultipleStatements { .. }), "{error}");
        DatabaseService::execute_query(trigger, params! {}).unwrap();
        DatabaseService::execute_query("INSERT INTO victim VALUES (1)", params! {}).unwrap();
        let rows = DatabaseService::execute_query("SELECT entry FROM audit", params! {}).unwrap();
        assert_eq!(rows[0].get::<String>("entry").unwrap(), "one");
    });
}

/// The scanner reads strings as the server does by default. With `standard_conforming_strings = off`, a text can hide a
/// second statement from the scanner. The extended query protocol still rejects it.
#[test]
fn server_rejects_statements_hidden_from_the_scanner() {
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
            // To the scanner this is one string. To the server it ends at the quote after the escaped quote.
            for attack in ATTACKS {
                let sql = format!(r"SELECT :a AS x, '\''; {attack}; --'");
                let rejected = call_all_methods(&mut connection, &sql);
                assert!(rejected.iter().all(Result::is_err), "{rejected:?}");
                let rejected = connection.execute_query(&sql, params! { "a" => 1 });
                assert!(rejected.is_err(), "{rejected:?}");
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
fn multiple_statements_are_rejected_behind_pgbouncer() {
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
        assert_all_are_rejected();
    });
}
