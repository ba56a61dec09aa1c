//! Values in bulk inserts: types, escaping, and values that cannot be stored.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use db_service::{DatabaseService, DbError, Row, Value, params, values};
use tests::TestDatabase;

on_both_backends!(
    bulk_values_match_single_statement_values,
    special_characters_in_text_are_escaped,
    unstorable_value_is_reported_by_column,
);

fn execute(sql: &str) -> Vec<Row> {
    DatabaseService::execute_query(sql, params! {}).unwrap()
}

fn count(table: &str) -> i64 {
    DatabaseService::get_table_info(table).unwrap().row_count
}

fn bulk_values_match_single_statement_values(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    let day = |year| NaiveDate::from_ymd_opt(year, 2, 28).unwrap();
    let time = NaiveTime::from_hms_nano_opt(23, 59, 59, 123_456_999).unwrap();
    let moment: DateTime<Utc> = "2026-11-23T12:00:00.25Z".parse().unwrap();
    let mut cases: Vec<(&str, Vec<Value>)> = vec![
        ("BIGINT", values![0, i64::MIN, i64::MAX, 2.0].into()),
        ("SMALLINT", values![-7].into()),
        (
            "DOUBLE PRECISION",
            values![
                0.1,
                -0.0,
                1e300,
                5e-324,
                f64::MAX,
                f64::INFINITY,
                f64::NEG_INFINITY,
                3
            ]
            .into(),
        ),
        ("TEXT", values!["", "\\N", "é😀", "1", 'x'].into()),
        ("DATE", values![day(2024), day(9999)].into()),
        ("TIME", values![time].into()),
        ("TIMESTAMP", values![day(2024).and_time(time)].into()),
        (
            "NUMERIC",
            values![
                "1.50".parse::<BigDecimal>().unwrap(),
                i64::MAX,
                "-1e-20".parse::<BigDecimal>().unwrap(),
                7
            ]
            .into(),
        ),
    ];
    if is_postgres {
        cases.extend([
            ("BOOLEAN", values![true, false].to_vec()),
            (
                "TEXT",
                values![
                    true,
                    12,
                    f64::INFINITY,
                    vec![1u8, 92],
                    day(2024),
                    serde_json::json!([1])
                ]
                .into(),
            ),
            (
                "BYTEA",
                values![vec![0u8, 9, 10, 92, 255], Vec::<u8>::new()].into(),
            ),
            ("DOUBLE PRECISION", values![f64::NAN].into()),
            (
                "TIMESTAMPTZ",
                values![
                    moment,
                    day(-43).and_hms_micro_opt(23, 59, 59, 7).unwrap().and_utc(),
                    "2026-11-23 14:00+02"
                ]
                .into(),
            ),
            (
                "TIMESTAMP",
                values![
                    day(0).and_hms_micro_opt(0, 0, 0, 1).unwrap(),
                    moment,
                    "2026-11-23"
                ]
                .into(),
            ),
            (
                "DATE",
                values![day(-43), day(20_000), moment, "2026-11-23"].into(),
            ),
            (
                "UUID",
                values![
                    uuid::Uuid::from_u128(7),
                    "6a8d1c6e-0f8e-4f1c-8f0a-0c1d2e3f4a5b"
                ]
                .into(),
            ),
            (
                "JSONB",
                values![serde_json::json!({"a\n\\": "\"\t"}), "[1]"].into(),
            ),
            ("JSON", values!["{\"a\":  \"b\\n\"}"].into()),
            ("NUMERIC", values![u64::MAX].into()),
            ("NUMERIC(10, 2)", values!["12.3", 7, 0.5].into()),
            ("INTEGER[]", values!["{1,NULL}"].into()),
            ("TEXT[]", values!["{a,\"b\\\\ c\",\"\"}"].into()),
            ("INTERVAL", values!["1 day"].into()),
            ("VARCHAR(3)", values!["abc"].into()),
        ]);
    } else {
        cases.push((
            "",
            values![
                true,
                vec![0u8, 255],
                moment,
                uuid::Uuid::from_u128(7),
                serde_json::json!({"a": [1]}),
                day(-43),
                "a\0b"
            ]
            .into(),
        ));
    }
    database.scope().run(|| {
        for (data_type, values) in cases {
            execute(&format!("CREATE TABLE one (n INTEGER, x {data_type})"));
            execute(&format!("CREATE TABLE many (n INTEGER, x {data_type})"));
            let rows: Vec<_> = values
                .into_iter()
                .chain([Value::Null])
                .zip(0..)
                .map(|(value, n)| (n, value))
                .collect();
            for (n, value) in &rows {
                DatabaseService::execute_query(
                    "INSERT INTO one VALUES (:n, :x)",
                    params! { "n" => *n, "x" => value.clone() },
                )
                .unwrap();
            }
            let inserted = DatabaseService::bulk_insert(
                "many",
                &["x", "n"],
                rows.iter().map(|(n, value)| [value.clone(), (*n).into()]),
            );
            assert_eq!(
                inserted.unwrap_or_else(|error| panic!("{data_type}: {error}")),
                rows.len() as u64
            );
            let [one, many] = ["one", "many"].map(|table| {
                format!(
                    "{:?}",
                    execute(&format!("SELECT * FROM {table} ORDER BY n"))
                )
            });
            assert_eq!(one, many, "{data_type}");
            execute("DROP TABLE one");
            execute("DROP TABLE many");
        }
    });
}

fn special_characters_in_text_are_escaped(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE texts (n INTEGER, a TEXT, b TEXT)");
        let texts = [
            "\t",
            "\n",
            "\r",
            "\r\n",
            "\\",
            "\\.",
            "\\.\n",
            "\n\\.\n",
            "\\N",
            "\\\\N",
            "\\x41",
            "\\101",
            "\\t",
            "'",
            "\"",
            "''; DROP TABLE texts; --",
            "NULL",
            "null",
            "",
            " ",
            "a\tb\\\nc\rd",
            "\u{7f}\u{1}\u{b}",
            "\u{2028}",
            "é\t",
            "\\é",
        ];
        let rows = texts
            .iter()
            .zip(0..)
            .map(|(text, n)| values![n, *text, text.repeat(3)]);
        assert_eq!(
            DatabaseService::bulk_insert("texts", &["n", "a", "b"], rows).unwrap(),
            texts.len() as u64
        );
        let found = execute("SELECT a, b FROM texts ORDER BY n");
        for (row, text) in found.iter().zip(texts) {
            assert_eq!(
                (
                    row.get::<String>("a").unwrap().as_str(),
                    row.get::<String>("b").unwrap()
                ),
                (text, text.repeat(3))
            );
        }
        assert_eq!(found.len(), texts.len());
    });
}

fn unstorable_value_is_reported_by_column(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER, name TEXT, weight DOUBLE PRECISION)");
        let bad = if is_postgres {
            values![2, "hush\0", 1.0]
        } else {
            values![2, "hush", f64::NAN]
        };
        let column = if is_postgres { "name" } else { "weight" };
        let rows = [values![1, "Rex", 1.0], bad];
        let error =
            DatabaseService::bulk_insert("pets", &["id", "name", "weight"], rows).unwrap_err();
        assert!(
            matches!(&error, DbError::UnstorableValue { name, row: Some(2), .. } if name == column),
            "{error}"
        );
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        assert_eq!(count("pets"), 0);
        if !is_postgres {
            let error = DatabaseService::execute_query(
                "SELECT :x IS NULL AS x",
                params! { "x" => f64::NAN },
            )
            .unwrap_err();
            assert!(
                matches!(&error, DbError::UnstorableValue { name, row: None, .. } if name == "x"),
                "{error}"
            );
            let many = [params! { "x" => 1.0 }, params! { "x" => f64::NAN }];
            DatabaseService::execute_many("INSERT INTO pets (weight) VALUES (:x)", &many)
                .unwrap_err();
            assert_eq!(count("pets"), 0);
        }
        // If the server cannot parse a value, the error does not show it.
        if is_postgres {
            let error =
                DatabaseService::bulk_insert("pets", &["id"], [values!["hush"]]).unwrap_err();
            assert!(
                matches!(error, DbError::Query(_))
                    && !format!("{error} {error:?}").contains("hush"),
                "{error:?}"
            );
        }
    });
}
