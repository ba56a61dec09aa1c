//! Text parameters on PostgreSQL: each does what the same literal does.

use std::ops::ControlFlow;

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use db_service::{DatabaseService, DbError, Params, Row, Value, params, values};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tests::TestDatabase;

fn execute(sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params)
}

fn run(sql: &str) {
    execute(sql, params! {}).unwrap();
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the number that a query counts, or `None` if the server refuses the statement.
fn count(sql: &str, params: Params) -> Option<i64> {
    Some(execute(sql, params).ok()?[0].get("count").unwrap())
}

/// A way to write a text, and its name.
type Path = (&'static str, fn(&str) -> Result<(), DbError>);

/// The ways to write a text into the column `c` of the table `t`.
const PATHS: [Path; 7] = [
    ("execute_query", |text| {
        execute("INSERT INTO t (c) VALUES (:c)", params! { "c" => text }).map(drop)
    }),
    ("execute_query in a transaction", |text| {
        DatabaseService::transaction(|connection| {
            connection.execute_query("INSERT INTO t (c) SELECT :c", params! { "c" => text })
        })
        .map(drop)
    }),
    ("UPDATE", |text| {
        run("INSERT INTO t (c) VALUES (NULL)");
        execute("UPDATE t SET c = :c", params! { "c" => text }).map(drop)
    }),
    ("execute_many", |text| {
        let rows = [params! { "c" => text }, params! { "c" => None::<&str> }];
        DatabaseService::execute_many("INSERT INTO t (c) VALUES (:c)", &rows).map(drop)
    }),
    ("bulk_insert", |text| {
        DatabaseService::bulk_insert("t", &["c"], [values![text]]).map(drop)
    }),
    ("bulk_insert into a view", |text| {
        DatabaseService::bulk_insert("v", &["c"], [values![text]]).map(drop)
    }),
    ("for_each_row", |text| {
        let insert = "INSERT INTO t (c) VALUES (:c) RETURNING 1 AS one";
        DatabaseService::for_each_row(insert, params! { "c" => text }, |_| {
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
    }),
];

/// Returns the text of the column, and clears the table.
fn stored() -> Option<String> {
    let rows = execute("SELECT c::text AS c FROM t WHERE c IS NOT NULL", params! {}).unwrap();
    run("DELETE FROM t");
    rows.first().map(|row| row.get("c").unwrap())
}

/// Types with a length or a precision, arrays and domains of them, and texts that are kept, cut or refused.
const CASES: [(&str, &[&str]); 27] = [
    ("bit(3)", &["101", "1010", "1", ""]),
    ("bit(1)", &["1", "1010"]),
    ("bit varying(3)", &["101", "1010", ""]),
    ("char(3)", &["ab", "abc", "abcd", "abc   ", " a", ""]),
    ("\"char\"", &["a", "abc", ""]),
    ("varchar(3)", &["abc", "abcd", "abc  ", "é€😀"]),
    (
        "name",
        &[
            "pg_class",
            "a name of more than sixty-three bytes, which PostgreSQL cuts off behind them",
        ],
    ),
    (
        "text",
        &["it's \\ $q$ '' :x ?", "$", "$q", "$qq$q", "\u{1}\n\r\t", ""],
    ),
    ("numeric(4, 1)", &["12.34", "1234.5", "12.35", "NaN", "x"]),
    (
        "numeric",
        &["12345678901234567890123.45678901234567890", "1e5", " 7 "],
    ),
    ("integer", &["00501", "1.5", "2147483648", " 7 ", "-0"]),
    ("smallint", &["32768", "1"]),
    ("real", &["0.1", "16777217", "1e39"]),
    (
        "double precision",
        &["0.1", "-0", "Infinity", "9007199254740993"],
    ),
    ("boolean", &["yes", "off", "2"]),
    ("time(0)", &["12:00:00.6", "24:00", "23:59:60"]),
    (
        "timestamp(0)",
        &[
            "2026-11-28 12:00:00.6",
            "2026-11-28 12:00+02",
            "infinity",
            "2016-12-31 23:59:60",
        ],
    ),
    (
        "timestamptz(3)",
        &[
            "2026-11-28 12:00:00.123456+02",
            "2026-11-28 12:00 America/New_York",
        ],
    ),
    ("interval(0)", &["1 day 0.6 seconds", "P1Y"]),
    ("interval day to minute", &["1 day 02:03:04"]),
    ("uuid", &["6A8D1C6E-0f8e-4f1c-8f0a-0c1d2e3f4a5b", "x"]),
    (
        "jsonb",
        &["{\"a\": 18446744073709551616, \"a\": 2}", "1e400", "{"],
    ),
    ("json", &["{\"b\": 1,  \"a\": 2, \"a\": 3}"]),
    (
        "char(2)[]",
        &[
            "{ab,cd}",
            "{abc}",
            "{NULL, a }",
            "[0:1]={a,b}",
            "{{a,b},{c,d}}",
            "{",
        ],
    ),
    ("short", &["ab", "abc", "ab ", "no"]),
    ("shorts", &["{ab,cd}", "{abc}", "{a,NULL}"]),
    ("mood", &["it's fine", "Bad", "bad "]),
];

#[test]
fn text_does_what_a_literal_does() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE DOMAIN short AS char(2) CHECK (VALUE <> 'no')");
        run("CREATE DOMAIN shorts AS varchar(2)[]");
        run("CREATE TYPE mood AS ENUM ('it''s fine', 'bad ')");
        for (name, texts) in CASES {
            run(&format!("CREATE TABLE t (c {name})"));
            run("CREATE VIEW v AS SELECT * FROM t");
            for text in texts {
                let insert = format!("INSERT INTO t VALUES ({})", literal(text));
                let expected = execute(&insert, params! {}).ok().map(|_| stored());
                for (path, write) in PATHS {
                    let found = write(text);
                    let found = match found {
                        Ok(()) => Some(stored()),
                        Err(DbError::Query(_) | DbError::CheckViolation { .. }) => {
                            run("DELETE FROM t");
                            None
                        }
                        Err(error) => panic!("{path} of {text:?} into {name}: {error}"),
                    };
                    assert_eq!(found, expected, "{path} of {text:?} into {name}");
                }
                // Comparisons, with the values that were stored.
                for stored in texts.iter() {
                    let _ = execute(
                        &format!("INSERT INTO t VALUES ({})", literal(stored)),
                        params! {},
                    );
                }
                for operator in ["=", "<>", ">="] {
                    let with = |value: &str| {
                        format!("SELECT count(*) AS count FROM t WHERE c {operator} {value}")
                    };
                    let expected = count(&with(&literal(text)), params! {});
                    let found = count(&with(":c"), params! { "c" => *text });
                    assert_eq!(found, expected, "{name} {operator} {text:?}");
                }
                run("DELETE FROM t");
            }
            run("DROP VIEW v");
            run("DROP TABLE t");
        }
    });
}

#[test]
fn changes_by_other_processes_take_effect_at_once() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    // Another process.
    let mut other = PgConnection::establish(database.url()).unwrap();
    let scope = database.scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0));
    let types = [
        ("integer", "text", "00501"),
        ("integer", "bigint", "99999999999"),
        ("text", "integer", "00501"),
        ("numeric", "text", "1.50"),
        ("boolean", "text", "t"),
        ("date", "text", "28 November 2026"),
        ("timestamp", "timestamptz", "2026-11-28 12:00:00+05"),
        ("timestamptz", "timestamp", "2026-11-28 12:00:00+05"),
        ("date", "timestamp", "2026-11-28 12:00:00"),
        ("real", "double precision", "0.1"),
        ("integer", "numeric", "1.5"),
        ("char(1)", "varchar(10)", "abc"),
        ("bit(1)", "text", "1010"),
        ("jsonb", "json", "{\"b\":1,\"a\":2}"),
        ("integer[]", "text[]", "{007}"),
        ("uuid", "text", "6A8D1C6E-0f8e-4f1c-8f0a-0c1d2e3f4a5b"),
    ];
    let mut table = move |name: &str| {
        let sql = format!(
            "DROP TABLE IF EXISTS t CASCADE; CREATE TABLE t (c {name}); CREATE VIEW v AS SELECT * FROM t"
        );
        other.batch_execute(&sql).unwrap();
    };
    scope.run(|| {
        for (before, after, text) in types {
            for (path, write) in PATHS {
                table(before);
                let _ = write(text);
                table(after);
                run(&format!("INSERT INTO t VALUES ({})", literal(text)));
                let expected = stored();
                let found = write(text).map(|()| stored());
                assert_eq!(
                    found.unwrap(),
                    expected,
                    "{path} of {text:?}, from {before} to {after}"
                );
            }
        }
    });
}

#[test]
fn names_with_another_meaning_take_effect_at_once() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            run("CREATE SCHEMA a");
            run("CREATE SCHEMA b");
            run("CREATE TABLE a.zips (zip integer, code text)");
            run("CREATE TABLE b.zips (zip text, code char(5))");
            let mut connection = DatabaseService::connection().unwrap();
            let mut shown = |schema: &str| {
                connection.execute_query(
                    &format!("SET search_path = {schema}, pg_catalog"),
                    params! {},
                )?;
                connection.execute_query("DELETE FROM zips", params! {})?;
                let values = params! { "zip" => "00501", "code" => "ab" };
                connection.execute_query("INSERT INTO zips VALUES (:zip, :code)", values)?;
                // `char(5)` ignores spaces at the end, `text` does not.
                let sql =
                    "SELECT zip::text AS zip, code = :code AS same FROM zips WHERE zip = :zip";
                let rows = connection
                    .execute_query(sql, params! { "zip" => "00501", "code" => "ab  " })?;
                Ok::<_, DbError>((rows[0].get::<String>("zip")?, rows[0].get::<bool>("same")?))
            };
            for _ in 0..2 {
                assert_eq!(shown("a").unwrap(), ("501".to_owned(), false));
                assert_eq!(shown("b").unwrap(), ("00501".to_owned(), true));
            }
            drop(connection);

            // A temporary table hides another one, and a function gets another parameter.
            run("CREATE TABLE t (c integer)");
            run("CREATE FUNCTION f(integer) RETURNS text LANGUAGE sql AS 'SELECT $1::text'");
            let mut connection = DatabaseService::connection().unwrap();
            let mut called = || {
                let rows =
                    connection.execute_query("SELECT f(:x) AS f", params! { "x" => "007" })?;
                rows[0].get::<String>("f")
            };
            assert_eq!(called().unwrap(), "7");
            connection
                .execute_query("DROP FUNCTION f(integer)", params! {})
                .unwrap();
            let create = "CREATE FUNCTION f(text) RETURNS text LANGUAGE sql AS 'SELECT $1'";
            connection.execute_query(create, params! {}).unwrap();
            let mut called = || {
                let rows =
                    connection.execute_query("SELECT f(:x) AS f", params! { "x" => "007" })?;
                rows[0].get::<String>("f")
            };
            assert_eq!(called().unwrap(), "007");
            let insert = "INSERT INTO t VALUES (:c) RETURNING c::text AS c";
            let mut inserted = || {
                let rows = connection.execute_query(insert, params! { "c" => "007" })?;
                rows[0].get::<String>("c")
            };
            assert_eq!(inserted().unwrap(), "7");
            connection
                .execute_query("CREATE TEMPORARY TABLE t (c text)", params! {})
                .unwrap();
            let rows = connection
                .execute_query(insert, params! { "c" => "007" })
                .unwrap();
            assert_eq!(rows[0].get::<String>("c").unwrap(), "007");
        });
}

#[test]
fn text_is_accepted_wherever_a_literal_is() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (id integer PRIMARY KEY, day date, letters char(3))");
        run("INSERT INTO t VALUES (1, '2026-11-28', 'ab')");
        run("CREATE PROCEDURE add(integer, date) LANGUAGE sql AS 'INSERT INTO t VALUES ($1, $2)'");
        run("CREATE VIEW days AS SELECT day FROM t");
        for statement in [
            "SELECT :day UNION SELECT day FROM t",
            "SELECT day FROM t UNION ALL SELECT :day",
            "SELECT day FROM t INTERSECT SELECT :day",
            "WITH d AS (SELECT day FROM t EXCEPT SELECT :day) SELECT * FROM d",
            "SELECT date :day AS day",
            "SELECT day FROM t WHERE day IN (:day, :id::date)",
            "SELECT day + interval :day FROM t",
            "SELECT :day::date + :id::int AS later",
            "SELECT CASE WHEN true THEN day ELSE :day END AS day FROM t",
            "SELECT coalesce(:day, day) AS day FROM t",
            "SELECT * FROM (VALUES (:day), ('x')) AS v (a)",
            "SELECT :day IS NULL AS missing, concat(:id, '') AS id",
            "SELECT count(*) AS n FROM t GROUP BY date_trunc('day', :day::date) HAVING max(day) = :day",
            "EXPLAIN SELECT * FROM t WHERE day = :day AND id = :id",
            "EXPLAIN (ANALYZE) INSERT INTO t VALUES (3, :day)",
            "MERGE INTO t USING (SELECT 1 AS one) AS s ON t.id = :id WHEN MATCHED THEN UPDATE SET day = :day WHEN NOT MATCHED THEN INSERT VALUES (:id, :day)",
            "CREATE TABLE copied AS SELECT * FROM t WHERE day = :day",
            "CREATE TEMPORARY VIEW on_day AS SELECT * FROM t WHERE day = :day",
            "CREATE TABLE with_default (day date DEFAULT :day)",
            "CALL add(:id, :day)",
            "SET application_name = :day",
            "COMMENT ON TABLE t IS :day",
            "NOTIFY channel, :day",
            "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM t WHERE day = :day",
            "ALTER TABLE t ALTER day SET DEFAULT :day",
        ] {
            let mut params = params! { "day" => "2026-11-28" };
            if statement.contains("interval :day") {
                params = params! { "day" => "1 day" };
            }
            if statement.contains(":id::date") {
                params = params.with("id", "2026-11-27");
            } else if statement.contains(":id") {
                params = params.with("id", "7");
            }
            for _ in 0..2 {
                let found = execute(statement, params.clone());
                // What is created twice exists already, which the second answer says.
                let exists = |error: &DbError| error.to_string().contains("already exists");
                match found {
                    Ok(_) => {}
                    Err(error) if exists(&error) => {}
                    Err(DbError::UniqueViolation { .. }) => {}
                    Err(error) => panic!("{statement}: {error}"),
                }
            }
        }
        let rows = execute("SELECT :day UNION SELECT day FROM t WHERE id = 1", params! { "day" => "2026-11-28" });
        assert_eq!(rows.unwrap().len(), 1);
        let rows = execute("SELECT count(*) AS n FROM copied", params! {}).unwrap();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), 3);
        // A NULL among them.
        let none = params! { "day" => None::<&str> };
        assert_eq!(execute("SELECT :day UNION SELECT day FROM t WHERE id = 1", none).unwrap().len(), 2);
        // `char` pads and ignores spaces at the end, also as one column of a `UNION`.
        let letters = execute("SELECT letters FROM t WHERE id = 1 UNION SELECT :x", params! { "x" => "ab  " });
        assert_eq!(letters.unwrap().len(), 1);
    });
}

/// Characters that mean something in a literal, between dollar signs or to the driver.
const CHARACTERS: &[&str] = &[
    "$", "$q", "$q$", "q", "$$", "'", "''", "\\", "\\'", "\n", ":x", "?", "$1", "é", ";", "--",
    "/*", "😀",
];

#[test]
fn literals_cannot_be_left() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        for strings in ["on", "off"] {
            let set = format!("SET standard_conforming_strings = {strings}");
            connection.execute_query(&set, params! {}).unwrap();
            for _ in 0..300 {
                let pieces = random.usize(..6);
                let text: String = (0..pieces)
                    .map(|_| *random.choice(CHARACTERS).unwrap())
                    .collect();
                // A text for `bpchar` is a literal.
                let sql = "SELECT :a::bpchar || :b AS t";
                let params = params! { "a" => text.as_str(), "b" => "!" };
                let rows = connection.execute_query(sql, params).unwrap();
                assert_eq!(
                    rows[0].get::<String>("t").unwrap(),
                    format!("{text}!"),
                    "seed {seed}"
                );
            }
        }
        // With the setting off, the string before the literals ends elsewhere for the server.
        let like =
            "SELECT relname FROM pg_class WHERE relname LIKE :p ESCAPE '\\' AND relkind = :k";
        for attack in ["'::char(1) or true limit 1 --", "\\' or true --", "x"] {
            let params = params! { "p" => "none", "k" => attack };
            for setting in ["off", "on"] {
                let set = format!("SET standard_conforming_strings = {setting}");
                connection.execute_query(&set, params! {}).unwrap();
                let found = connection.execute_query(like, params.clone());
                assert!(
                    found.as_ref().is_ok_and(Vec::is_empty)
                        || matches!(found, Err(DbError::Syntax(_) | DbError::Query(_))),
                    "{found:?}"
                );
            }
        }
        let day = connection.execute_query(
            "SELECT '\\' AS b, :d::date = '2026-11-28' AS same",
            params! { "d" => "28 November 2026" },
        );
        assert!(day.unwrap()[0].get::<bool>("same").unwrap());
        let nul = connection.execute_query("SELECT :a UNION SELECT 'b'", params! { "a" => "a\0" });
        assert!(
            matches!(nul, Err(DbError::UnstorableValue { ref name, .. }) if name == "a"),
            "{nul:?}"
        );
    });
}

#[test]
fn text_columns_use_prepared_statements() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        connection.execute_query("CREATE TABLE t (a text, b varchar(9), n integer)", params! {}).unwrap();
        let sql = "SELECT n FROM t WHERE a = :a AND (b = :b OR a <> :a) AND n > :n";
        for number in 0..3 {
            let params = params! { "a" => format!("{number}"), "b" => "x", "n" => number };
            connection.execute_query(sql, params).unwrap();
        }
        let prepared = "SELECT generic_plans + custom_plans AS executions FROM pg_prepared_statements WHERE statement LIKE 'SELECT n FROM t%'";
        let rows = connection.execute_query(prepared, params! {}).unwrap();
        let executions: Vec<i64> = rows.iter().map(|row| row.get("executions").unwrap()).collect();
        assert_eq!(executions, [3]);
    });
}

#[test]
fn batches_of_mixed_kinds_store_what_single_statements_store() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    let columns: [(&str, Vec<Value>); 6] = [
        ("integer", values!["00501", 7, None::<i32>, 2_i64].into()),
        ("bigint", values![1_i64 << 40, "3", 4, None::<i32>].into()),
        (
            "numeric",
            values!["1.50", 2, "2.5".parse::<BigDecimal>().unwrap(), None::<i32>].into(),
        ),
        ("text", values!["a", None::<&str>, "it's", "00501"].into()),
        (
            "jsonb",
            values![
                serde_json::json!([1]),
                "{\"a\": 1}",
                None::<i32>,
                serde_json::json!(null)
            ]
            .into(),
        ),
        (
            "timestamptz",
            values![
                "2026-11-28 12:00+02",
                None::<&str>,
                "2026-11-28T10:00:00Z".parse::<DateTime<Utc>>().unwrap(),
                "infinity"
            ]
            .into(),
        ),
    ];
    database.scope().run(|| {
        for (name, values) in columns {
            run(&format!("CREATE TABLE t (id integer, c {name}, d text)"));
            let row =
                |id: usize| params! { "id" => id as i64, "c" => values[id].clone(), "d" => "x" };
            let rows: Vec<_> = (0..values.len()).map(row).collect();
            let insert = "INSERT INTO t VALUES (:id, :c, :d)";
            for row in &rows {
                execute(insert, row.clone()).unwrap();
            }
            let all =
                || execute("SELECT id, c::text AS c, d FROM t ORDER BY id", params! {}).unwrap();
            let expected = all();
            let not_a_row = "INSERT INTO t SELECT :id, :c, :d";
            let upsert = "INSERT INTO t VALUES (:id, :c, :d) ON CONFLICT DO NOTHING";
            for sql in [insert, not_a_row, upsert] {
                run("DELETE FROM t");
                assert_eq!(DatabaseService::execute_many(sql, &rows).unwrap(), 4);
                assert_eq!(all(), expected, "{sql} into {name}");
            }
            run("DELETE FROM t");
            let bulk = values
                .iter()
                .enumerate()
                .map(|(id, value)| values![id as i64, value.clone(), "x"]);
            DatabaseService::bulk_insert("t", &["id", "c", "d"], bulk).unwrap();
            assert_eq!(all(), expected, "bulk_insert into {name}");
            run("DROP TABLE t");
        }
    });
}
