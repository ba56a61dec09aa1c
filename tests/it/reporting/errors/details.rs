//! The parts of an error that only methods return: hint, detail, position. And violated exclusion constraints.

use std::ops::ControlFlow;

use chrono::NaiveDate;
use db_service::{Connection, DatabaseService, DbError, Params, ServerError, params, values};
use diesel::prelude::*;
use tests::TestDatabase;

use super::{execute, shown};

on_both_backends!(
    details_quote_values_and_are_never_shown,
    violated_restriction_is_a_foreign_key_violation,
    syntax_error_shows_its_position_and_its_word_but_no_value,
);

diesel::table! {
    pets (id) {
        id -> Integer,
        name -> Text,
    }
}

fn create_pets() {
    execute("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL)").unwrap();
    execute("INSERT INTO pets VALUES (4711, 'Rex')").unwrap();
}

fn server_error(error: &DbError) -> &ServerError {
    error.cause().unwrap().downcast_ref().unwrap()
}

fn details_quote_values_and_are_never_shown(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database.scope().run(|| {
        create_pets();
        let sql = "INSERT INTO pets VALUES (:id, :name)";
        let again = || params! { "id" => 4711, "name" => "Rex" };
        let mut aborted = None;
        let in_transaction = DatabaseService::transaction(|connection| {
            connection.execute_query(sql, again()).unwrap_err();
            aborted = connection.execute_query("SELECT 1", params! {}).err();
            Ok::<_, DbError>(())
        });
        assert_eq!(
            (in_transaction.is_err(), aborted.is_some()),
            (is_postgres, is_postgres)
        );
        let mut errors = vec![
            DatabaseService::execute_query(sql, again()).unwrap_err(),
            DatabaseService::execute(sql, again()).unwrap_err(),
            DatabaseService::execute_many(sql, &[again()]).unwrap_err(),
            DatabaseService::bulk_insert("pets", &["id", "name"], [values![4711, "Rex"]])
                .unwrap_err(),
            DatabaseService::with_connection(|connection| {
                let again = (pets::id.eq(4711), pets::name.eq("Rex"));
                diesel::insert_into(pets::table)
                    .values(again)
                    .execute(connection)
            })
            .unwrap_err(),
        ];
        errors.extend(in_transaction.err().into_iter().chain(aborted));
        for error in errors {
            let detail = is_postgres.then_some("Key (id)=(4711) already exists.");
            assert_eq!(error.detail(), detail, "{error}");
            assert_eq!(server_error(&error).detail(), detail);
            assert_eq!((error.hint(), error.position()), (None, None), "{error}");
            let shown = shown(&error);
            assert!(!shown.contains("4711"), "{shown}");
        }
        let misspelled = "SELECT nmae FROM pets";
        let error = execute(misspelled).unwrap_err();
        if is_postgres {
            let hint = "Perhaps you meant to reference the column \"pets.name\".";
            assert_eq!((error.hint(), error.position()), (Some(hint), Some(8)));
            let server = server_error(&error);
            assert_eq!((server.hint(), server.position()), (Some(hint), Some(8)));
            let raised =
                "DO $$ BEGIN RAISE 'x' USING HINT = 'secret ☃', DETAIL = E'secret\\nvalue'; END $$";
            let error = execute(raised).unwrap_err();
            assert_eq!(error.hint(), Some("secret ☃"));
            assert_eq!(error.detail(), Some("secret\nvalue"));
            assert!(!shown(&error).contains("secret"), "{error}");
        } else {
            assert_eq!(
                (error.hint(), error.detail(), error.position()),
                (None, None, None)
            );
        }
        // Errors without a server.
        let unused = DatabaseService::execute("SELECT 1", params! { "x" => 1 }).unwrap_err();
        assert_eq!(
            (unused.hint(), unused.detail(), unused.position()),
            (None, None, None)
        );
    });
}

fn violated_restriction_is_a_foreign_key_violation(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        execute("CREATE TABLE toys (pet INTEGER REFERENCES pets (id) ON DELETE RESTRICT)").unwrap();
        execute("INSERT INTO toys VALUES (4711)").unwrap();
        let restricted = execute("DELETE FROM pets");
        assert!(
            matches!(restricted, Err(DbError::ForeignKeyViolation { .. })),
            "{restricted:?}"
        );
    });
}

/// The ways to run a statement.
fn all_paths(sql: &str, params: &Params) -> Vec<(&'static str, DbError)> {
    let streamed = DatabaseService::for_each_row(sql, params.clone(), |_| {
        Ok::<_, DbError>(ControlFlow::Continue(()))
    });
    let in_transaction =
        DatabaseService::transaction(|connection| connection.execute_query(sql, params.clone()));
    let connection = &mut DatabaseService::connection().unwrap();
    vec![
        (
            "execute_query",
            DatabaseService::execute_query(sql, params.clone()).unwrap_err(),
        ),
        (
            "execute",
            DatabaseService::execute(sql, params.clone()).unwrap_err(),
        ),
        (
            "execute_many",
            connection
                .execute_many(sql, std::slice::from_ref(params))
                .unwrap_err(),
        ),
        ("for_each_row", streamed.unwrap_err()),
        ("transaction", in_transaction.unwrap_err()),
    ]
}

fn syntax_error_shows_its_position_and_its_word_but_no_value(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    let near = |token: &str| match is_postgres {
        true => format!("syntax error at or near \"{token}\""),
        false => format!("near \"{token}\": syntax error"),
    };
    database.scope().run(|| {
        create_pets();
        // A date in a text is sent to PostgreSQL as a literal.
        let hush = || params! { "hush" => "hush" };
        let day = || params! { "day" => "2024-02-29" };
        for (sql, params, position, shown_token) in [
            ("SELEC 1", params! {}, 1, "SELEC"),
            (
                "SELECT 'ß☃' AS größe größe2 FROM pets",
                params! {},
                22,
                "größe2",
            ),
            (
                "SELECT id FROM pets WHERE name = :hush ORDR BY id",
                hush(),
                40,
                "ORDR",
            ),
            (
                "SELECT id FROM pets WHERE name = :hush hush",
                hush(),
                40,
                "hush",
            ),
            ("SELECT id FROM pets WHERE )", params! {}, 27, ")"),
            ("SELECT 1 AS x 'hush'", params! {}, 15, "…"),
            ("SELECT 1 AS x 4711", params! {}, 15, "…"),
            ("SELECT CAST(:day AS date) AS a b c", day(), 32, "b"),
        ] {
            for (path, error) in all_paths(sql, &params) {
                let text = shown(&error);
                let expected = format!(
                    "syntax error at character {position}: {}",
                    near(shown_token)
                );
                assert!(text.contains(&expected), "{path} {sql}: {text}");
                assert_eq!(error.position(), Some(position), "{path} {sql}");
                assert!(!text.contains("4711") && !text.contains("2024"), "{text}");
            }
        }
        for (path, error) in all_paths("SELECT (", &params! {}) {
            assert_eq!(error.position(), Some(9), "{path} {error}");
        }
        // A text of diesel's is not the caller's.
        let error = DatabaseService::with_connection(|connection| {
            diesel::sql_query("SELEC 1").execute(connection)
        });
        let error = error.unwrap_err();
        assert_eq!(error.position(), None);
        assert!(shown(&error).contains(&near("SELEC")), "{error}");
    });
}

#[test]
fn position_is_that_in_the_text_of_the_caller() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_pets();
        let (number, text) = (
            || params! { "number" => 7 },
            || params! { "a_text" => "2024-02-29" },
        );
        let day = || params! { "day" => NaiveDate::MIN };
        for (sql, params, marked) in [
            ("SELECT nothing FROM pets", params! {}, "nothing"),
            (
                "SELECT 'ß☃' AS größe, nothing FROM pets",
                params! {},
                "nothing",
            ),
            (
                "SELECT :number AS a, :number + :number AS b, nothing FROM pets",
                number(),
                "nothing",
            ),
            (
                "SELECT :number::int AS a, '{1}'\\:\\:int[] AS b, 1\\:\\:int, nothing FROM pets",
                number(),
                "nothing",
            ),
            (
                "SELECT :a_text::date AS a, :a_text AS b, nothing FROM pets",
                text(),
                "nothing",
            ),
            (
                "SELECT id FROM pets WHERE name = :a_text AND nothing = 1",
                text(),
                "nothing",
            ),
            ("SELECT :number AS a, lower(:number)", number(), "lower"),
            (
                "INSERT INTO pets (id, name) VALUES (:day, 'x')",
                day(),
                ":day",
            ),
            (
                "INSERT INTO pets (id, name) VALUES (:day, 'x') RETURNING id",
                day(),
                ":day",
            ),
            ("UPDATE pets SET name = 'é', id = (:day)", day(), "(:day"),
            ("SELECT :number AS a FROM pets GROUP", number(), "$"),
            ("SELECT :number AS \"ü\" FROM pets WHERE (  ", number(), "$"),
        ] {
            let expected = match marked {
                "$" => sql.chars().count() + 1,
                // The parenthesis is not a part of the expression.
                "(:day" => sql.split(marked).next().unwrap().chars().count() + 2,
                _ => sql.split(marked).next().unwrap().chars().count() + 1,
            };
            for (path, error) in all_paths(sql, &params) {
                assert_eq!(error.position(), Some(expected), "{path} {sql}: {error}");
                assert_eq!(server_error(&error).position(), Some(expected));
            }
        }
        // The rows of one INSERT.
        let rows: Vec<_> = (1..=10)
            .map(|id| params! { "name" => "Rex", "id" => id })
            .collect();
        for (sql, marked) in [
            (
                "INSERT INTO pets (nothing, name) VALUES (:id, :name)",
                "nothing",
            ),
            (
                "INSERT INTO pets (name, id) VALUES (:name, lower(:id));",
                "lower",
            ),
            (
                "INSERT INTO pets (name, id) VALUES (:name, now() + :id)",
                "+",
            ),
        ] {
            let error = DatabaseService::execute_many(sql, &rows).unwrap_err();
            assert_eq!(
                error.position(),
                sql.find(marked).map(|before| before + 1),
                "{sql}: {error}"
            );
        }
        // The first error of a transaction keeps its position.
        let aborted = DatabaseService::transaction(|connection| {
            connection
                .execute_query("SELECT :number, nothing", number())
                .unwrap_err();
            Ok::<_, DbError>(())
        });
        let error = aborted.unwrap_err();
        assert!(
            matches!(error, DbError::TransactionAborted { .. }),
            "{error}"
        );
        assert_eq!(error.position(), Some(17));
    });
}

#[test]
fn position_in_another_text_is_not_returned() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_pets();
        execute(
            "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN nothing; END $$",
        )
        .unwrap();
        execute("CREATE VIEW v AS SELECT id, name FROM pets").unwrap();
        let in_dsl = DatabaseService::with_connection(|connection| {
            diesel::sql_query("SELECT nothing").execute(connection)
        });
        let errors = [
            execute("SELECT f()").unwrap_err(),
            execute("SELECT 1 / (id - 4711) FROM pets").unwrap_err(),
            DatabaseService::bulk_insert("pets", &["nothing"], [values![1]]).unwrap_err(),
            DatabaseService::bulk_insert("v", &["nothing"], [values![1]]).unwrap_err(),
            in_dsl.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.position(), None, "{error}");
        }
    });
}

#[test]
fn violated_exclusion_constraint_names_it_and_its_table() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for (table, deferred) in [("at_once", ""), ("at_commit", "DEFERRABLE INITIALLY DEFERRED")] {
            let name = format!("{table}_overlap");
            execute(&format!(
                "CREATE TABLE {table} (during int4range, CONSTRAINT {name} EXCLUDE USING gist (during WITH &&) {deferred})"
            ))
            .unwrap();
            execute(&format!("INSERT INTO {table} VALUES ('[1,3)')")).unwrap();
            let sql = format!("INSERT INTO {table} VALUES (:during)");
            let overlap = || params! { "during" => "[2,4)" };
            let mut errors = all_paths(&sql, &overlap());
            let many = vec![params! { "during" => "[5,7)" }, params! { "during" => "[6,8)" }];
            errors.push(("two rows", DatabaseService::execute_many(&sql, &many).unwrap_err()));
            let rows = [values!["[2,4)"]];
            errors.push(("bulk", DatabaseService::bulk_insert(table, &["during"], rows).unwrap_err()));
            let literal = format!("INSERT INTO {table} VALUES ('[2,4)')");
            let in_dsl = |connection: &mut Connection| diesel::sql_query(&*literal).execute(connection);
            errors.push(("DSL", DatabaseService::with_connection(in_dsl).unwrap_err()));
            let in_dsl = DatabaseService::with_connection(|connection| connection.transaction(in_dsl));
            errors.push(("DSL in a transaction", in_dsl.unwrap_err()));
            for (path, error) in errors {
                let shown = shown(&error);
                assert!(!shown.contains("[2,4)") && !shown.contains("[6,8)"), "{shown}");
                assert!(!error.is_retryable());
                let detail = error.detail().unwrap_or_default().to_owned();
                assert!(detail.contains("conflicts with existing key (during)=("), "{detail}");
                let text = error.to_string();
                match error {
                    DbError::ExclusionViolation { constraint, table: of, .. } => {
                        assert_eq!((constraint, of.as_deref()), (Some(name.clone()), Some(table)), "{path}");
                    }
                    other => panic!("{path}: {other:?}"),
                }
                assert_eq!(
                    text,
                    format!("exclusion constraint violated: conflicting key value violates exclusion constraint \"{name}\"")
                );
            }
        }
        execute("CREATE TABLE added (during int4range)").unwrap();
        execute("INSERT INTO added VALUES ('[1,3)'), ('[2,4)')").unwrap();
        let added = execute("ALTER TABLE added ADD CONSTRAINT c EXCLUDE USING gist (during WITH &&)");
        assert!(matches!(added, Err(DbError::ExclusionViolation { .. })), "{added:?}");
    });
}
