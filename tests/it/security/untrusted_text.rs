//! The Big List of Naughty Strings and more unusual text, in each argument that takes text. The text is stored
//! unchanged or rejected with a typed error.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use db_service::{
    Backend, DatabaseConfig, DatabaseService, DatabaseUrl, DbError, Migrations, Params,
    WritePosition, params, values,
};
use diesel_migrations::{EmbeddedMigration, EmbeddedMigrations, EmbeddedName, TomlMetadataWrapper};
use singleton_core::testing::Scope;
use tests::TestDatabase;
use user_repo::{UserError, UserRepository, UserUpdate};

on_both_backends!(
    values_are_stored_unchanged,
    invalid_statements_and_names_return_typed_errors,
    tables_and_migration_sources_may_have_any_name,
    users_are_stored_or_rejected,
);

fn texts() -> impl Iterator<Item = &'static str> {
    let more = [
        "a\0b",
        "\0",
        "\u{feff}",
        "\r\n",
        "'; DROP TABLE t; --",
        "\\",
        ":x",
        "::x",
        "?",
        "$1",
        "%s",
        "{}",
    ];
    naughty_strings::BLNS.iter().copied().chain(more)
}

fn is_postgres() -> bool {
    DatabaseService::connection().unwrap().backend() == Backend::Postgres
}

/// Panics if a connection is checked out or was closed as invalid.
#[track_caller]
fn assert_pool_is_intact(text: &str) {
    let status = DatabaseService::get_pool_status().unwrap();
    assert_eq!((status.checked_out, status.invalid), (0, 0), "{text:?}");
}

fn values_are_stored_unchanged(database: &TestDatabase) {
    database.scope().run(|| {
        let run = DatabaseService::execute_query;
        run("CREATE TABLE t (a TEXT, b TEXT)", params! {}).unwrap();
        let is_postgres = is_postgres();
        let mut expected = Vec::new();
        for text in texts() {
            let row = || params! { "a" => text, "b" => "x" };
            let sql = "INSERT INTO t (a, b) VALUES (:a, :b)";
            let outcomes = [
                run(sql, row()).map(drop),
                DatabaseService::execute_many(sql, &[row(), row()]).map(drop),
                DatabaseService::bulk_insert("t", &["a", "b"], [values![text, "x"]]).map(drop),
            ];
            if is_postgres && text.contains('\0') {
                assert!(outcomes.iter().all(Result::is_err), "{text:?}");
            } else {
                outcomes.into_iter().for_each(|outcome| outcome.unwrap());
                expected.extend([text; 4]);
            }
            assert_pool_is_intact(text);
        }
        let mut found = Vec::new();
        DatabaseService::for_each_row("SELECT a FROM t", params! {}, |row| {
            found.push(row.get::<String>("a")?);
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
        .unwrap();
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected);
    });
}

fn invalid_statements_and_names_return_typed_errors(database: &TestDatabase) {
    database.scope().run(|| {
        DatabaseService::execute_query("CREATE TABLE t (a TEXT)", params! {}).unwrap();
        for text in texts() {
            // Some of the texts are valid SQL.
            let _ = DatabaseService::execute_query(text, params! {});
            let _ = DatabaseService::execute_query(&format!("SELECT {text}"), params! {});
            let unused =
                DatabaseService::execute_query("SELECT 1 AS n", Params::new().with(text, 1));
            assert!(
                matches!(unused, Err(DbError::UnusedParameter { .. })),
                "{text:?}"
            );
            for failure in [
                DatabaseService::get_table_info(text).map(drop),
                DatabaseService::vacuum_analyze(Some(text)),
                DatabaseService::bulk_insert(text, &["a"], [values!["x"]]).map(drop),
            ] {
                let error = failure.unwrap_err();
                let is_typed = matches!(
                    error,
                    DbError::UnknownTable { .. } | DbError::InvalidTableName { .. }
                );
                assert!(is_typed, "{text:?}: {error:?}");
            }
            DatabaseService::bulk_insert("t", &[text], [values!["x"]]).unwrap_err();
            let rows = DatabaseService::execute_query("SELECT 1 AS n", params! {}).unwrap();
            assert!(rows[0].get::<String>(text).is_err());
            if let Ok(position) = text.parse::<WritePosition>() {
                assert_eq!(
                    position.to_string().parse::<WritePosition>().unwrap(),
                    position
                );
            }
            assert_pool_is_intact(text);
        }
        assert_eq!(DatabaseService::list_tables().unwrap(), ["t"]);
    });
}

fn tables_and_migration_sources_may_have_any_name(database: &TestDatabase) {
    database.scope().run(|| {
        let mut created = 0;
        for text in texts().step_by(5) {
            let quoted = format!("\"{}\"", text.replace('"', "\"\""));
            // `:x` in quotes is not a parameter.
            if DatabaseService::execute_query(
                &format!("CREATE TABLE {quoted} (a TEXT)"),
                params! {},
            )
            .is_err()
            {
                continue;
            }
            created += 1;
            let listed = DatabaseService::list_tables().unwrap();
            assert_eq!(listed.len(), 1, "{text:?}");
            let info = DatabaseService::get_table_info(&listed[0]).unwrap();
            assert_eq!((info.row_count, info.columns.len()), (0, 1), "{text:?}");
            assert_eq!(
                DatabaseService::bulk_insert(&listed[0], &["a"], [values!["x"]]).unwrap(),
                1
            );
            DatabaseService::vacuum_analyze(Some(&listed[0])).unwrap();
            DatabaseService::execute_query(&format!("DROP TABLE {}", listed[0]), params! {})
                .unwrap();
            assert_pool_is_intact(text);
        }
        assert!(created > 50, "{created}");
        static ONE: [EmbeddedMigration; 1] = [EmbeddedMigration::new(
            "CREATE TABLE one (a TEXT)",
            None,
            EmbeddedName::new("1_one"),
            TomlMetadataWrapper::new(true),
        )];
        for text in texts().step_by(50).filter(|text| !text.contains('\0')) {
            let source = Migrations::new()
                .named(text)
                .sqlite(EmbeddedMigrations::new(&ONE))
                .postgres(EmbeddedMigrations::new(&ONE));
            // Each source has its own history.
            DatabaseService::execute_query("DROP TABLE IF EXISTS one", params! {}).unwrap();
            DatabaseService::run_migrations(&source).unwrap();
            assert!(
                DatabaseService::run_migrations(&source).unwrap().is_empty(),
                "{text:?}"
            );
        }
    });
}

fn users_are_stored_or_rejected(database: &TestDatabase) {
    database.scope().run(|| {
        let is_expected = |error: &UserError| {
            !matches!(
                error,
                UserError::Service(_) | UserError::Database(_) | UserError::UnusableHash { .. }
            )
        };
        UserRepository::create_user("somebody", "somebody@example.com", "secret").unwrap();
        let mut stored = BTreeSet::new();
        for text in texts() {
            let address = format!("n{}@example.com", stored.len());
            match UserRepository::create_user(text, &address, "secret") {
                Ok(user) => {
                    let found = UserRepository::get_user_by_username(text).unwrap().unwrap();
                    assert_eq!((found.id, &found.username), (user.id, &user.username));
                    stored.insert(user.id);
                }
                Err(error) => assert!(is_expected(&error), "{text:?}: {error:?}"),
            }
            let found = UserRepository::get_user_by_username(text);
            assert!(found.is_ok(), "{text:?}: {found:?}");
            for update in [
                UserUpdate::new().email(text),
                UserUpdate::new().username(text),
            ] {
                let updated = UserRepository::update_user(1, update);
                assert!(
                    updated.as_ref().map_or_else(is_expected, Option::is_some),
                    "{text:?}: {updated:?}"
                );
            }
        }
        assert!(stored.len() > 100, "{}", stored.len());
        for text in texts().step_by(5) {
            if let Ok(user) = UserRepository::create_user("login", "login@example.com", text) {
                assert!(
                    UserRepository::verify_password("login", text)
                        .unwrap()
                        .is_some(),
                    "{text:?}"
                );
                assert!(
                    UserRepository::verify_password("login", "other")
                        .unwrap()
                        .is_none()
                );
                assert!(UserRepository::delete_user(user.id).unwrap());
            }
            assert!(
                UserRepository::verify_password(text, text)
                    .unwrap()
                    .is_none()
            );
        }
    });
}

#[test]
fn application_name_may_be_any_text() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    for text in texts().step_by(25) {
        let named = |config: &mut DatabaseConfig| {
            config.postgres.application_name = Some(text.to_owned());
        };
        let shown = database.scope_with(named).run(|| {
            let sql = "SELECT current_setting('application_name') AS name";
            DatabaseService::execute_query(sql, params! {})
                .map(|rows| rows[0].get::<String>("name"))
        });
        match shown {
            // The server truncates the name and replaces characters that are not ASCII.
            Ok(shown) => assert!(shown.unwrap().len() < 256, "{text:?}"),
            Err(error) => assert!(text.contains('\0'), "{text:?}: {error}"),
        }
    }
}

#[test]
fn rejected_urls_and_variables_do_not_show_secrets() {
    const VARIABLES: [&str; 8] = [
        "DATABASE_URL",
        "DB_REPLICA_URLS",
        "DB_POOL_SIZE",
        "DB_POOL_TIMEOUT",
        "DB_TLS_MODE",
        "DB_SQLITE_WAL",
        "DB_APPLICATION_NAME",
        "DB_SLOW_QUERY_MS",
    ];
    for text in texts() {
        for url in [
            format!("postgresql://user:hunter2{text}@host/db"),
            format!("postgresql://user:hunter2@{text}/db"),
            format!("postgresql://user:hunter2@host/{text}?password=hunter2{text}"),
            format!("{text}://user:hunter2@host"),
        ] {
            let shown = match url.parse::<DatabaseUrl>() {
                Ok(url) => format!("{url} {url:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            assert!(!shown.contains("hunter2"), "{url:?}: {shown}");
        }
        for variable in VARIABLES.into_iter().filter(|_| !text.contains('\0')) {
            let scope = Scope::new()
                .env("DATABASE_URL", "sqlite::memory:")
                .env(variable, text);
            if let Err(error) = scope.run(DatabaseConfig::from_env) {
                assert!(error.to_string().contains(variable), "{text:?}: {error}");
            }
        }
    }
}
