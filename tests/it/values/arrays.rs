//! Arrays of PostgreSQL: with NULLs, several dimensions and elements of each type, on every path.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use db_service::{DatabaseService, DbError, Params, Row, Value, params, values};
use serde_json::json;
use tests::TestDatabase;
use uuid::Uuid;

fn execute(sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params)
}

fn run(sql: &str) {
    execute(sql, params! {}).unwrap();
}

/// Types of arrays, an array of each, and its text in PostgreSQL.
fn cases() -> Vec<(&'static str, Value, &'static str)> {
    let day = NaiveDate::from_ymd_opt(2026, 11, 28).unwrap();
    let time = NaiveTime::from_hms_micro_opt(12, 30, 0, 5).unwrap();
    let moment: DateTime<Utc> = "2026-11-28T12:00:00Z".parse().unwrap();
    let decimal: BigDecimal = "123456789012345678901.50".parse().unwrap();
    vec![
        ("int[]", Value::from([1, -2]), "{1,-2}"),
        ("int[]", Value::from(Vec::<i32>::new()), "{}"),
        ("int[]", Value::from([None::<i32>, None]), "{NULL,NULL}"),
        ("int[]", Value::from([Some(1), None]), "{1,NULL}"),
        (
            "int[]",
            Value::from(vec![vec![1, 2], vec![3, 4]]),
            "{{1,2},{3,4}}",
        ),
        (
            "int[]",
            Value::from(vec![vec![vec![Some(1)], vec![None]]]),
            "{{{1},{NULL}}}",
        ),
        (
            "bigint[]",
            Value::from([i64::MIN, 0, i64::MAX]),
            "{-9223372036854775808,0,9223372036854775807}",
        ),
        ("smallint[]", Value::from([7_i16]), "{7}"),
        ("boolean[]", Value::from([true, false]), "{t,f}"),
        (
            "double precision[]",
            Value::from([0.1, f64::NEG_INFINITY, 1e300]),
            "{0.1,-Infinity,1e+300}",
        ),
        (
            "text[]",
            Value::from(["", "NULL", "null", "a,b", "{\"}", "\\", " é "]),
            r#"{"","NULL","null","a,b","{\"}","\\"," é "}"#,
        ),
        ("varchar(5)[]", Value::from(["ab", "c"]), "{ab,c}"),
        (
            "bytea[]",
            Value::from([vec![0_u8, 255], vec![]]),
            r#"{"\\x00ff","\\x"}"#,
        ),
        ("date[]", Value::from([day]), "{2026-11-28}"),
        ("time[]", Value::from([time]), "{12:30:00.000005}"),
        (
            "timestamp[]",
            Value::from([day.and_time(time)]),
            r#"{"2026-11-28 12:30:00.000005"}"#,
        ),
        (
            "timestamptz[]",
            Value::from([moment]),
            r#"{"2026-11-28 12:00:00+00"}"#,
        ),
        (
            "uuid[]",
            Value::from([Uuid::nil()]),
            "{00000000-0000-0000-0000-000000000000}",
        ),
        (
            "numeric[]",
            Value::from([decimal]),
            "{123456789012345678901.50}",
        ),
        (
            "jsonb[]",
            Value::from([json!({"a": [1]})]),
            r#"{"{\"a\": [1]}"}"#,
        ),
        (
            "mood[]",
            Value::from([Some("so so"), None, Some("glad")]),
            "{\"so so\",NULL,glad}",
        ),
    ]
}

/// Returns the value and the text of the column, and clears the table.
fn stored() -> (Value, String) {
    let rows = execute("SELECT c, c::text AS text FROM t", params! {}).unwrap();
    run("DELETE FROM t");
    (rows[0]["c"].clone(), rows[0].get("text").unwrap())
}

#[test]
fn arrays_are_written_and_read_on_each_path() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            run("SET TimeZone = 'UTC'");
            run("CREATE TYPE mood AS ENUM ('so so', 'glad')");
            for (name, value, text) in cases() {
                run(&format!("CREATE TABLE t (c {name})"));
                run("CREATE VIEW v AS SELECT * FROM t");
                let expected = match (&value, name) {
                    // The driver's form of JSON has spaces.
                    (_, "jsonb[]") => Value::Array(vec![Value::Json("{\"a\": [1]}".to_owned())]),
                    _ => value.clone(),
                };
                let insert = "INSERT INTO t VALUES (:c)";
                for path in 0..6 {
                    let params = params! { "c" => value.clone() };
                    match path {
                        0 => drop(execute(insert, params).unwrap()),
                        1 => drop(DatabaseService::execute_many(insert, &[params])),
                        2 => drop(
                            DatabaseService::bulk_insert("t", &["c"], [[value.clone()]]).unwrap(),
                        ),
                        3 => drop(
                            DatabaseService::bulk_insert("v", &["c"], [[value.clone()]]).unwrap(),
                        ),
                        4 => drop(
                            execute(&format!("INSERT INTO t VALUES (:c::{name})"), params).unwrap(),
                        ),
                        _ => drop(execute("INSERT INTO t SELECT :c", params).unwrap()),
                    }
                    let (found, found_text) = stored();
                    assert_eq!(found_text, text, "{name} by path {path}");
                    assert_eq!(found, expected, "{name} by path {path}");
                }
                // What was read is found again.
                run(&format!(
                    "INSERT INTO t VALUES ('{}')",
                    text.replace('\'', "''")
                ));
                let found = execute(
                    "SELECT 1 AS one FROM t WHERE c = :c",
                    params! { "c" => expected },
                );
                assert_eq!(found.unwrap().len(), 1, "{name}");
                run("DROP VIEW v");
                run("DROP TABLE t");
            }
        });
}

#[test]
fn arrays_are_read_as_vectors() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let sql = "SELECT '{1,2}'::int[] AS numbers, '{a,NULL}'::text[] AS texts, '{{1,2},{3,4}}'::int2[] AS matrix, \
                   '{}'::date[] AS none, NULL::int[] AS missing, '[0:1]={1,2}'::int[] AS from_zero, \
                   ARRAY['NaN', '1.5']::numeric[] AS numerics, '{1 day}'::interval[] AS intervals";
        let row = &execute(sql, params! {}).unwrap()[0];
        assert_eq!(row.get::<Vec<i64>>("numbers").unwrap(), [1, 2]);
        assert_eq!(row.get::<Vec<Option<String>>>("texts").unwrap(), [Some("a".to_owned()), None]);
        assert_eq!(row.get::<Vec<Vec<i16>>>("matrix").unwrap(), [[1, 2], [3, 4]]);
        assert_eq!(row.get::<Vec<NaiveDate>>("none").unwrap(), []);
        assert_eq!(row.get::<Option<Vec<i32>>>("missing").unwrap(), None);
        for unreadable in ["texts", "missing", "from_zero"] {
            let error = row.get::<Vec<String>>(unreadable).unwrap_err();
            assert!(matches!(&error, DbError::WrongType { column, .. } if column == unreadable), "{error}");
        }
        // Arrays that have no form in Rust are written back as they were.
        for column in ["from_zero", "numerics", "intervals"] {
            let value = row[column].clone();
            let sql = format!("SELECT :v = ({sql_column}) AS same", sql_column = match column {
                "from_zero" => "'[0:1]={1,2}'::int[]",
                "numerics" => "ARRAY['NaN', '1.5']::numeric[]",
                _ => "'{1 day}'::interval[]",
            });
            let rows = execute(&sql, params! { "v" => value });
            assert!(rows.unwrap()[0].get::<bool>("same").unwrap(), "{column}");
        }
    });
}

#[test]
fn arrays_that_postgres_cannot_store_are_refused() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (c int[])");
        let nested = |depth| (0..depth).fold(Value::from(1), |value, _| Value::Array(vec![value]));
        for value in [
            Value::from(vec![vec![1], vec![1, 2]]),
            Value::Array(vec![Value::from([1]), Value::from(1)]),
            Value::Array(vec![Value::from([1]), Value::Null]),
            Value::from(vec![Vec::<i32>::new()]),
            nested(7),
        ] {
            let found = execute(
                "INSERT INTO t VALUES (:c)",
                params! { "c" => value.clone() },
            );
            assert!(
                matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "c"),
                "{found:?}"
            );
            let found = DatabaseService::execute_many(
                "INSERT INTO t VALUES (:c)",
                &[params! { "c" => value.clone() }],
            );
            assert!(
                matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "c"),
                "{found:?}"
            );
            let found = DatabaseService::bulk_insert("t", &["c"], [values![None::<i32>], [value]]);
            assert!(
                matches!(&found, Err(DbError::UnstorableValue { row: Some(2), .. })),
                "{found:?}"
            );
        }
        execute("INSERT INTO t VALUES (:c)", params! { "c" => nested(6) }).unwrap();
        assert_eq!(stored().0, nested(6));
        let wrong = execute("INSERT INTO t VALUES (:c)", params! { "c" => ["x"] });
        assert!(matches!(wrong, Err(DbError::Query(_))), "{wrong:?}");
    });
}

#[test]
fn arrays_are_no_json() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (c jsonb)");
        for value in [
            Value::from(Vec::<i32>::new()),
            Value::from([1]),
            Value::from(["a"]),
        ] {
            let insert = "INSERT INTO t VALUES (:c)";
            let found = execute(insert, params! { "c" => value.clone() });
            assert!(
                matches!(
                    found,
                    Err(DbError::Query(_) | DbError::UnstorableValue { .. })
                ),
                "{found:?}"
            );
            let found = DatabaseService::execute_many(insert, &[params! { "c" => value.clone() }]);
            assert!(
                matches!(
                    found,
                    Err(DbError::Query(_) | DbError::UnstorableValue { .. })
                ),
                "{found:?}"
            );
            let call = execute(
                "SELECT :c UNION SELECT c FROM t",
                params! { "c" => value.clone() },
            );
            assert!(
                matches!(
                    call,
                    Err(DbError::Query(_) | DbError::UnstorableValue { .. })
                ),
                "{call:?}"
            );
            let found = DatabaseService::bulk_insert("t", &["c"], [[value]]);
            assert!(
                matches!(
                    found,
                    Err(DbError::Query(_) | DbError::UnstorableValue { .. })
                ),
                "{found:?}"
            );
        }
        assert!(execute("SELECT * FROM t", params! {}).unwrap().is_empty());
    });
}

#[test]
fn arrays_and_lists_work_with_structs() {
    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Tagged {
        ids: Vec<i64>,
        tags: Vec<Option<String>>,
        matrix: Vec<Vec<i32>>,
        none: Vec<bool>,
    }
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (ids bigint[], tags text[], matrix int[], none boolean[])");
        let tagged = Tagged {
            ids: vec![1, i64::MAX],
            tags: vec![Some("a".to_owned()), None],
            matrix: vec![vec![1, 2], vec![3, 4]],
            none: Vec::new(),
        };
        let params = Params::from_serialize(&tagged).unwrap();
        execute("INSERT INTO t VALUES (:ids, :tags, :matrix, :none)", params).unwrap();
        let sql = "SELECT * FROM t WHERE 1 IN (:ids)";
        let params =
            Params::from_serialize(&std::collections::HashMap::from([("ids", [1])])).unwrap();
        assert_eq!(
            DatabaseService::query_as::<Tagged>(sql, params).unwrap(),
            [tagged]
        );
    });
}

#[test]
fn sqlite_has_no_arrays() {
    TestDatabase::sqlite().scope().run(|| {
        run("CREATE TABLE t (c)");
        let insert = "INSERT INTO t VALUES (:c)";
        let found = execute(insert, params! { "c" => [1] });
        assert!(
            matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "c"),
            "{found:?}"
        );
        let found = DatabaseService::execute_many(insert, &[params! { "c" => [1] }]);
        assert!(
            matches!(&found, Err(DbError::UnstorableValue { .. })),
            "{found:?}"
        );
        let found = DatabaseService::bulk_insert("t", &["c"], [values![1], [Value::from([1])]]);
        assert!(
            matches!(&found, Err(DbError::UnstorableValue { row: Some(2), .. })),
            "{found:?}"
        );
        assert!(execute("SELECT * FROM t", params! {}).unwrap().is_empty());
    });
}
