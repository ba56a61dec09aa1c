//! Files of migrations with transactions, dumps, roles, byte-order marks, or nothing.

use db_service::{
    DatabaseService, DbError, MigrationError, MigrationState, Migrations, RefusedStatement, params,
};
use diesel_migrations::EmbeddedMigration;
use tests::TestDatabase;

use super::{migration, outside, source};

on_both_backends!(
    own_transactions_are_refused_before_anything_is_applied,
    begin_with_commit_is_possible_outside_a_transaction,
    failed_block_outside_a_transaction_is_repeated,
    byte_order_mark_is_ignored,
    file_without_statements_is_applied,
);

fn leak<const N: usize>(steps: [EmbeddedMigration; N]) -> Migrations {
    source("", Box::leak(Box::new(steps)))
}

fn run(source: &Migrations) -> Result<Vec<String>, DbError> {
    DatabaseService::run_migrations(source)
}

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn exists(table: &str) -> bool {
    DatabaseService::get_table_info(table).is_ok()
}

fn own_transactions_are_refused_before_anything_is_applied(database: &TestDatabase) {
    database.scope().run(|| {
        for sql in [
            "BEGIN; CREATE TABLE b (c INTEGER); COMMIT;",
            "-- one\nCREATE TABLE b (c INTEGER);\n/* two */ commit",
            "SAVEPOINT s; CREATE TABLE b (c INTEGER); RELEASE s",
            "CREATE TABLE b (c INTEGER); ROLLBACK",
        ] {
            let sql: &'static str = sql;
            let both = leak([
                migration("001_a", "CREATE TABLE a (b INTEGER)", None),
                migration("002_b", sql, None),
            ]);
            let error = run(&both).unwrap_err();
            assert!(
                matches!(&error, DbError::Migration(MigrationError::Refused { migration, reason: RefusedStatement::InTransaction(_), .. }) if migration == "002_b"),
                "{error}"
            );
            assert!(!exists("a") && !exists("b"), "{sql}");
        }
        let body = "CREATE TABLE b (c INTEGER); INSERT INTO b SELECT 1 WHERE 'x' <> 'COMMIT; BEGIN'";
        assert_eq!(run(&leak([migration("001_b", body, Some("DROP TABLE b; COMMIT"))])).unwrap(), ["001"]);
        let error = DatabaseService::revert_migrations(&leak([migration("001_b", body, Some("DROP TABLE b; COMMIT"))]), 1).unwrap_err();
        assert!(error.to_string().contains("001_b, statement 2, line 1: COMMIT"), "{error}");
        assert!(exists("b"));
    });
}

fn begin_with_commit_is_possible_outside_a_transaction(database: &TestDatabase) {
    database.scope().run(|| {
        let steps = leak([outside(
            "001_a",
            "BEGIN; CREATE TABLE a (b INTEGER); INSERT INTO a VALUES (1); COMMIT; CREATE TABLE c (d INTEGER)",
            None,
        )]);
        assert_eq!(run(&steps).unwrap(), ["001"]);
        assert!(exists("a") && exists("c"));
        let open = leak([outside("002_b", "CREATE TABLE e (f INTEGER); BEGIN; CREATE TABLE g (h INTEGER)", None)]);
        let error = run(&open).unwrap_err();
        assert!(matches!(error, DbError::Migration(MigrationError::Refused { statement: 2, .. })), "{error}");
        assert!(!exists("e"));
    });
}

fn failed_block_outside_a_transaction_is_repeated(database: &TestDatabase) {
    database.scope().run(|| {
        let steps = leak([outside(
            "001_a",
            "CREATE TABLE a (b INTEGER); BEGIN; INSERT INTO a VALUES (1); INSERT INTO later VALUES (1); COMMIT; INSERT INTO a VALUES (2)",
            None,
        )]);
        let error = run(&steps).unwrap_err();
        assert!(error.to_string().contains("statement 4 of 6"), "{error}");
        let states = DatabaseService::migration_status(&steps).unwrap();
        assert!(matches!(states[0].state, MigrationState::Incomplete { done: 1, .. }), "{states:?}");
        execute("CREATE TABLE later (b INTEGER)");
        assert_eq!(run(&steps).unwrap(), ["001"]);
        assert_eq!(DatabaseService::get_table_info("a").unwrap().row_count, 2);
    });
}

fn byte_order_mark_is_ignored(database: &TestDatabase) {
    database.scope().run(|| {
        let marked = leak([migration(
            "001_a",
            "\u{feff}CREATE TABLE a (b INTEGER)",
            Some("\u{feff}DROP TABLE a"),
        )]);
        let plain = leak([migration(
            "001_a",
            "CREATE TABLE a (b INTEGER)",
            Some("DROP TABLE a"),
        )]);
        assert_eq!(run(&marked).unwrap(), ["001"]);
        assert_eq!(run(&plain).unwrap(), [""; 0], "it is no change");
        assert_eq!(
            DatabaseService::revert_migrations(&marked, 1).unwrap(),
            ["001"]
        );
        let outside = leak([outside("001_a", "\u{feff}CREATE TABLE a (b INTEGER)", None)]);
        assert_eq!(run(&outside).unwrap(), ["001"]);
    });
}

fn file_without_statements_is_applied(database: &TestDatabase) {
    database.scope().run(|| {
        let texts = ["", "-- nothing", "/* nothing */ ;;\n", "\u{feff}"];
        let names = ["001_a", "002_b", "003_c", "004_d"];
        let mut steps = Vec::new();
        for (name, text) in names.into_iter().zip(texts) {
            steps.push(migration(name, text, Some("-- nothing")));
        }
        for (name, text) in ["005_e", "006_f", "007_g", "008_h"].into_iter().zip(texts) {
            steps.push(outside(name, text, Some("")));
        }
        let all = source("", Vec::leak(steps));
        assert_eq!(run(&all).unwrap().len(), 8);
        assert_eq!(run(&all).unwrap(), [""; 0]);
        assert_eq!(
            DatabaseService::revert_migrations(&all, 8).unwrap().len(),
            8
        );
    });
}

/// The beginning of what `pg_dump --inserts` writes.
const DUMP: &str = "--
-- PostgreSQL database dump
--

\\restrict 8Vq0bS5fCkW

SET statement_timeout = 0;
SET lock_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET row_security = off;
SET default_tablespace = '';

CREATE TABLE public.items (
    id bigint NOT NULL,
    name text
);

INSERT INTO public.items VALUES (1, 'a');

\\unrestrict 8Vq0bS5fCkW
";

#[test]
fn dump_can_be_the_first_migration() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for outside_a_transaction in [false, true] {
            let first = match outside_a_transaction {
                false => migration("001_dump", DUMP, Some("DROP TABLE public.items")),
                true => outside("001_dump", DUMP, Some("DROP TABLE public.items")),
            };
            let both = leak([first, migration("002_index", "CREATE INDEX items_by_name ON items (name)", Some(""))]);
            assert_eq!(run(&both).unwrap(), ["001", "002"]);
            assert_eq!(run(&both).unwrap(), [""; 0]);
            let rows = DatabaseService::execute_query("SELECT current_setting('search_path') AS path, current_setting('row_security') AS rows", params! {}).unwrap();
            assert_eq!(rows[0].get::<String>("path").unwrap(), "\"$user\", public");
            assert_eq!(rows[0].get::<String>("rows").unwrap(), "on");
            assert_eq!(DatabaseService::revert_migrations(&both, 2).unwrap(), ["002", "001"]);
        }
        let data = leak([migration("003_data", "CREATE TABLE a (b int); COPY public.a (b) FROM stdin;\n1\n\\.\n", None)]);
        let error = run(&data).unwrap_err();
        assert!(error.to_string().contains("--inserts"), "{error}");
        assert!(!exists("a"));
    });
}

#[test]
fn roles_of_a_migration_end_with_it() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let role = format!(
        "role_{}",
        database
            .url()
            .rsplit('_')
            .next()
            .unwrap()
            .split('?')
            .next()
            .unwrap()
    );
    database.scope().run(|| {
        execute(&format!("CREATE ROLE {role}"));
        execute(&format!("GRANT CREATE, USAGE ON SCHEMA public TO {role}"));
        let leaked = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let set = leaked(format!("SET ROLE {role}; CREATE TABLE a (b int)"));
        let local = leaked(format!("SET LOCAL SESSION AUTHORIZATION {role}; CREATE TABLE c (b int)"));
        let open = leaked(format!("SET SESSION AUTHORIZATION {role}; CREATE TABLE d (b int); SELECT 1; CREATE TABLE e (b int)"));
        let steps = leak([
            migration("001_a", set, None),
            migration("002_c", local, None),
            outside("003_d", open, None),
            migration("004_f", "CREATE TABLE f (b int)", None),
        ]);
        assert_eq!(run(&steps).unwrap().len(), 4);
        let owners = "SELECT string_agg(relname || CASE WHEN relowner = quote_ident(:role)::regrole THEN '+' ELSE '-' END, ' ' ORDER BY relname) AS owners \
                      FROM pg_class WHERE relname IN ('a', 'c', 'd', 'e', 'f')";
        let rows = DatabaseService::execute_query(owners, params! { "role" => role.as_str() }).unwrap();
        assert_eq!(rows[0].get::<String>("owners").unwrap(), "a+ c+ d+ e+ f-");
        for table in ["a", "c", "d", "e"] {
            execute(&format!("DROP TABLE {table}"));
        }
        execute(&format!("DROP OWNED BY {role}"));
        execute(&format!("DROP ROLE {role}"));
    });
}

#[test]
fn settings_are_repeated_when_a_migration_resumes() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE SCHEMA other");
        let steps = leak([outside("001_a", "SET search_path = other; CREATE TABLE a (b int); INSERT INTO later VALUES (1); CREATE TABLE c (d int)", None)]);
        run(&steps).unwrap_err();
        execute("CREATE TABLE other.later (b int)");
        assert_eq!(run(&steps).unwrap(), ["001"]);
        assert!(exists("other.a") && exists("other.c") && !exists("c"));
    });
}
