//! Random values of every type: each path stores what a literal stores, and each path reads the same value back.

use std::fmt::Write;
use std::ops::ControlFlow;

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::BigInt;
use chrono::{DateTime, Duration, NaiveDate, NaiveDateTime, NaiveTime};
use db_service::{DatabaseService, DbError, Params, Value, params};
use tests::TestDatabase;
use uuid::Uuid;

on_both_backends!(each_path_stores_and_reads_what_a_literal_is);

/// The number of random values of each type.
const COUNT: usize = 40;

/// A type: its column on PostgreSQL and on SQLite, a random value, and the value as a literal.
struct Kind {
    postgres: &'static str,
    sqlite: &'static str,
    random: fn(&mut fastrand::Rng) -> Value,
}

fn kinds() -> Vec<Kind> {
    let kind = |postgres, sqlite, random| Kind {
        postgres,
        sqlite,
        random,
    };
    vec![
        kind("boolean", "BOOLEAN", |random| random.bool().into()),
        kind("smallint", "SMALLINT", |random| random.i16(..).into()),
        kind("integer", "INTEGER", |random| random.i32(..).into()),
        kind("bigint", "BIGINT", |random| {
            (random.i64(..) >> random.u8(..63)).into()
        }),
        kind("double precision", "DOUBLE PRECISION", random_float),
        kind("text", "TEXT", |random| random_text(random).into()),
        kind("varchar", "VARCHAR(3)", |random| random_text(random).into()),
        kind("bytea", "BLOB", |random| {
            let length = random.usize(..20);
            Value::Bytes((0..length).map(|_| random.u8(..)).collect())
        }),
        kind("date", "DATE", |random| random_moment(random).date().into()),
        kind("time", "TIME", |random| random_moment(random).time().into()),
        kind("timestamp", "TIMESTAMP", |random| {
            random_moment(random).into()
        }),
        kind("timestamptz", "TIMESTAMP", |random| {
            random_moment(random).and_utc().into()
        }),
        kind("uuid", "TEXT", |random| {
            Uuid::from_u128(random.u128(..)).into()
        }),
        kind("numeric", "TEXT", |random| {
            random_decimal(random, 40, 200).into()
        }),
        kind("numeric", "NUMERIC", |random| {
            random_decimal(random, 15, 20).into()
        }),
        kind("jsonb", "TEXT", |random| {
            serde_json::json!([random.i64(..), random_text(random)]).into()
        }),
        kind("json", "TEXT", |random| {
            serde_json::json!({ random_text(random): random.u64(..) }).into()
        }),
    ]
}

/// Arrays, which only PostgreSQL has.
fn arrays() -> Vec<Kind> {
    let kind = |postgres, random| Kind {
        postgres,
        sqlite: "",
        random,
    };
    vec![
        kind("bigint[]", |random| {
            array(random, |random| random.i64(..).into())
        }),
        kind("text[]", |random| {
            array(random, |random| random_text(random).into())
        }),
        kind("double precision[]", |random| array(random, random_float)),
        kind("numeric[]", |random| {
            array(random, |random| random_decimal(random, 40, 40).into())
        }),
        kind("timestamptz[]", |random| {
            array(random, |random| random_moment(random).and_utc().into())
        }),
        kind("bytea[]", |random| {
            array(random, |random| Value::Bytes(vec![random.u8(..); 3]))
        }),
        kind("uuid[]", |random| {
            array(random, |random| Uuid::from_u128(random.u128(..)).into())
        }),
    ]
}

fn array(random: &mut fastrand::Rng, element: fn(&mut fastrand::Rng) -> Value) -> Value {
    let mut row = |length: usize| -> Value {
        let elements = (0..length).map(|_| {
            if random.u8(..5) == 0 {
                Value::Null
            } else {
                element(random)
            }
        });
        Value::Array(elements.collect())
    };
    match fastrand::usize(..3) {
        0 => row(0),
        1 => row(3),
        _ => Value::Array(vec![row(2), row(2)]),
    }
}

fn random_float(random: &mut fastrand::Rng) -> Value {
    let float = match random.u8(..3) {
        0 => f64::from_bits(random.u64(..)),
        1 => random.f64(),
        _ => f64::from(random.i32(..)),
    };
    if float.is_nan() {
        Value::Float(0.5)
    } else {
        Value::Float(float)
    }
}

fn random_text(random: &mut fastrand::Rng) -> String {
    const PIECES: &[&str] = &[
        "a", "'", "\"", "\\", "\n", "\t", "é", "😀", ":x", "$q$", "1", " ", "NULL", "{", "}", ",",
    ];
    let length = random.usize(..6);
    (0..length)
        .map(|_| *random.choice(PIECES).unwrap())
        .collect()
}

/// Returns a time between the years 1 and 9999, often a whole second.
fn random_moment(random: &mut fastrand::Rng) -> NaiveDateTime {
    let day = NaiveDate::from_ymd_opt(1, 1, 1).unwrap() + Duration::days(random.i64(0..3_650_000));
    let unit = random.choice([1_000_000, 1_000, 1]).unwrap();
    let time =
        NaiveTime::from_hms_opt(random.u32(..24), random.u32(..60), random.u32(..60)).unwrap();
    day.and_time(time) + Duration::microseconds(random.i64(0..1_000_000) / unit * unit)
}

fn random_decimal(random: &mut fastrand::Rng, digits: usize, scale: i64) -> BigDecimal {
    let length = random.usize(1..=digits);
    let mut number: String = (0..length).map(|_| random.digit(10)).collect();
    if random.u8(..8) == 0 {
        "0".clone_into(&mut number);
    }
    if random.bool() {
        number.insert(0, '-');
    }
    BigDecimal::new(
        number.parse::<BigInt>().unwrap(),
        random.i64(-scale / 2..scale),
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns the value as a literal of the backend.
fn literal(value: &Value, is_postgres: bool, name: &str) -> String {
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    };
    let time = |moment: &NaiveDateTime| moment.format("%Y-%m-%d %H:%M:%S%.f").to_string();
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(value) if is_postgres => value.to_string(),
        Value::Bool(value) => i32::from(*value).to_string(),
        Value::Int(value) if *value == i64::MIN => format!("'{value}'"),
        Value::Int(value) => value.to_string(),
        Value::Float(value) if is_postgres => format!("'{value:e}'").replace("inf", "infinity"),
        Value::Float(value) => format!("{value:?}").replace("inf", "9e999"),
        Value::Text(value) | Value::Json(value) => quoted(value),
        Value::Bytes(value) if is_postgres => format!("'\\x{}'", hex(value)),
        Value::Bytes(value) => format!("x'{}'", hex(value)),
        Value::Date(value) => format!("'{value}'"),
        Value::Time(value) => format!("'{value}'"),
        Value::Timestamp(value) => format!("'{}'", time(value)),
        Value::TimestampTz(value) if is_postgres => format!("'{}+00'", time(&value.naive_utc())),
        Value::TimestampTz(value) => format!("'{}'", time(&value.naive_utc())),
        Value::Uuid(value) => format!("'{value}'"),
        Value::Decimal(value) => format!("'{}'", value.to_plain_string()),
        Value::Array(values) => {
            let elements: Vec<_> = values
                .iter()
                .map(|value| literal(value, is_postgres, name))
                .collect();
            format!("ARRAY[{}]::{name}", elements.join(", "))
        }
        value => panic!("{value:?} has no literal"),
    }
}

/// Returns whether a value that was read is the one that was written.
fn is_same(written: &Value, read: &Value) -> bool {
    let row = db_service::Row::new([("c", read.clone())]);
    match written {
        Value::Bool(value) => row.get("c").is_ok_and(|found: bool| found == *value),
        Value::Float(value) => row.get("c").is_ok_and(|found: f64| found == *value),
        Value::Date(value) => row.get("c").is_ok_and(|found: NaiveDate| found == *value),
        Value::Time(value) => row.get("c").is_ok_and(|found: NaiveTime| found == *value),
        Value::Timestamp(value) => row
            .get("c")
            .is_ok_and(|found: NaiveDateTime| found == *value),
        Value::TimestampTz(value) => row
            .get("c")
            .is_ok_and(|found: DateTime<chrono::Utc>| found == *value),
        Value::Uuid(value) => row.get("c").is_ok_and(|found: Uuid| found == *value),
        Value::Decimal(value) => row.get("c").is_ok_and(|found: BigDecimal| found == *value),
        Value::Json(value) => {
            let expected: serde_json::Value = serde_json::from_str(value).unwrap();
            row.get("c")
                .is_ok_and(|found: serde_json::Value| found == expected)
        }
        Value::Array(values) => match read {
            Value::Array(found) => {
                values.len() == found.len()
                    && values
                        .iter()
                        .zip(found)
                        .all(|(value, found)| is_same(value, found))
            }
            _ => false,
        },
        value => value == read,
    }
}

fn each_path_stores_and_reads_what_a_literal_is(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    let seed =
        std::env::var("FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    fastrand::seed(seed);
    let all = if is_postgres {
        kinds().into_iter().chain(arrays()).collect()
    } else {
        kinds()
    };
    database.scope().run(|| {
        for kind in all {
            let name = if is_postgres { kind.postgres } else { kind.sqlite };
            let values: Vec<Value> = (0..COUNT).map(|_| (kind.random)(&mut random)).collect();
            DatabaseService::execute_query(&format!("CREATE TABLE t (id INTEGER, path TEXT, c {name})"), params! {}).unwrap();
            write_by_each_path(&values, is_postgres, name);
            // The same text and the same type on each path.
            let shown = if is_postgres { "c::text" } else { "typeof(c) || quote(c)" };
            let sql = format!("SELECT id, count(*) AS n, count(DISTINCT {shown}) AS texts, min(path || ' ' || {shown}) AS a, max(path || ' ' || {shown}) AS b FROM t GROUP BY id");
            let rows = DatabaseService::execute_query(&sql, params! {}).unwrap();
            assert_eq!(rows.len(), COUNT);
            for row in &rows {
                let value = &values[row.get::<u32>("id").unwrap() as usize];
                assert_eq!((&row["n"], &row["texts"]), (&Value::Int(5), &Value::Int(1)), "{value:?} as {name}: {row:?}, seed {seed}");
            }
            let check = |row: &db_service::Row| {
                let value = &values[row.get::<u32>("id").unwrap() as usize];
                assert!(is_same(value, &row["c"]), "{value:?} as {name}: {row:?}, seed {seed}");
            };
            DatabaseService::execute_query("SELECT * FROM t", params! {}).unwrap().iter().for_each(check);
            let each = DatabaseService::for_each_row("SELECT * FROM t", params! {}, |row| {
                check(&row);
                Ok::<_, DbError>(ControlFlow::Continue(()))
            });
            each.unwrap();
            // The value that was written finds its rows, and so does the one that was read. `json` has no `=`.
            if name != "json" {
                for (value, id) in values.iter().zip(0_i64..) {
                    let sql = "SELECT c FROM t WHERE c = :c AND id = :id";
                    let rows = DatabaseService::execute_query(sql, params! { "c" => value.clone(), "id" => id }).unwrap();
                    assert_eq!(rows.len(), 5, "{value:?} as {name}, seed {seed}");
                    let read = params! { "c" => rows[0]["c"].clone(), "id" => id };
                    assert_eq!(DatabaseService::execute_query(sql, read).unwrap().len(), 5, "{value:?} as {name}, seed {seed}");
                }
            }
            DatabaseService::execute_query("DROP TABLE t", params! {}).unwrap();
        }
    });
}

fn write_by_each_path(values: &[Value], is_postgres: bool, name: &str) {
    const INSERT: &str = "INSERT INTO t VALUES (:id, :path, :c)";
    let rows = |path: &'static str| -> Vec<Params> {
        let rows = values.iter().zip(0..);
        rows.map(|(value, id)| params! { "id" => id, "path" => path, "c" => value.clone() })
            .collect()
    };
    for (value, id) in values.iter().zip(0..) {
        let sql = format!(
            "INSERT INTO t VALUES ({id}, 'literal', {})",
            literal(value, is_postgres, name)
        );
        DatabaseService::execute_query(&sql, params! {})
            .unwrap_or_else(|error| panic!("{error} in {sql}"));
    }
    for row in rows("execute_query") {
        DatabaseService::execute_query(INSERT, row).unwrap();
    }
    DatabaseService::execute_many(INSERT, &rows("execute_many")).unwrap();
    let bulk = values
        .iter()
        .zip(0..)
        .map(|(value, id)| [Value::from(id), Value::from("bulk"), value.clone()]);
    DatabaseService::bulk_insert("t", &["id", "path", "c"], bulk).unwrap();
    for row in rows("for_each_row") {
        let insert = "INSERT INTO t VALUES (:id, :path, :c) RETURNING id";
        DatabaseService::for_each_row(insert, row, |_| Ok::<_, DbError>(ControlFlow::Continue(())))
            .unwrap();
    }
}
