//! Rows as types of serde, and parameters from them.

use std::collections::{BTreeMap, HashMap};

use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use db_service::{Backend, DatabaseService, DbError, Params, Row, Value, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use singleton_core::testing::Scope;
use tests::TestDatabase;
use uuid::Uuid;

on_both_backends!(
    struct_of_every_type_round_trips,
    stored_timestamps_are_found_and_read_as_chrono_reads_them,
    numbers_are_read_without_loss,
    result_is_read_by_name_by_position_and_as_one_value,
    attributes_of_serde_work,
    json_is_read_from_json_and_from_text,
    enums_are_text,
    errors_name_row_column_and_type_and_no_value,
    queries_on_connections_deserialize_too,
);

/// A text that no error may show.
const SECRET: &str = "s3cr3t";

fn query(sql: &str, params: Params) -> Vec<Row> {
    DatabaseService::execute_query(sql, params).unwrap()
}

#[track_caller]
fn read<T: DeserializeOwned>(sql: &str) -> Vec<T> {
    DatabaseService::query_as(sql, params! {}).unwrap()
}

#[track_caller]
fn refused<T: DeserializeOwned>(sql: &str) -> String {
    match DatabaseService::query_as::<T>(sql, params! {}) {
        Ok(_) => panic!("{sql} was read"),
        Err(error) => shown(&error),
    }
}

/// Returns the error's text, which contains no secret.
#[track_caller]
fn shown(error: &DbError) -> String {
    assert!(
        matches!(
            error,
            DbError::Deserialize { .. } | DbError::Serialize { .. }
        ),
        "{error:?}"
    );
    let shown = error.to_string();
    let all = format!("{shown} {error:?} {:?}", error.cause());
    assert!(!all.contains(SECRET) && !all.contains("4711"), "{all}");
    shown
}

fn decimal(digits: &str) -> BigDecimal {
    digits.parse().unwrap()
}

fn is_sqlite() -> bool {
    DatabaseService::connection().unwrap().backend() == Backend::Sqlite
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Everything {
    truth: bool,
    small: i16,
    big: i64,
    unsigned: u32,
    ratio: f64,
    narrow: f32,
    letter: char,
    name: String,
    missing: Option<String>,
    bytes: Vec<u8>,
    day: NaiveDate,
    hour: NaiveTime,
    naive: NaiveDateTime,
    moment: DateTime<Utc>,
    shifted: DateTime<FixedOffset>,
    later: Option<DateTime<Utc>>,
    id: Uuid,
    amount: BigDecimal,
    color: Color,
    wrapped: Wrapped,
    address: Address,
    point: (i64, String),
    shape: Shape,
    scores: BTreeMap<i64, Vec<f64>>,
    lines: Vec<Address>,
    any: serde_json::Value,
    note: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Color {
    Red,
    DarkGreen,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wrapped(DateTime<Utc>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    city: String,
    zip: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle { radius: f64 },
}

fn everything() -> Everything {
    let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
    Everything {
        truth: true,
        small: -7,
        big: i64::MIN,
        unsigned: u32::MAX,
        ratio: 0.1,
        narrow: 0.1,
        letter: 'ß',
        name: "2026-11-28 10:00:00".to_owned(),
        missing: None,
        bytes: vec![0, 255, 39],
        day: NaiveDate::from_ymd_opt(2024, 2, 29).unwrap(),
        hour: NaiveTime::from_hms_micro_opt(23, 59, 59, 123_456).unwrap(),
        naive: moment.naive_utc(),
        moment,
        shifted: moment.fixed_offset(),
        later: Some(moment),
        id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        amount: decimal("12345678901234567890.1234"),
        color: Color::DarkGreen,
        wrapped: Wrapped(moment),
        address: Address {
            city: "Köln".to_owned(),
            zip: None,
        },
        point: (1, "x".to_owned()),
        shape: Shape::Circle { radius: 0.1 },
        scores: BTreeMap::from([(1, vec![0.5]), (2, Vec::new())]),
        lines: Vec::new(),
        any: json!("1"),
        note: Some(json!({ "a": [1, null, 0.1] })),
    }
}

fn struct_of_every_type_round_trips(database: &TestDatabase) {
    database.scope().run(|| {
        let (timestamp, zoned, json, decimal) = match is_sqlite() {
            true => ("TEXT", "TEXT", "TEXT", "TEXT"),
            false => ("TIMESTAMP", "TIMESTAMPTZ", "JSONB", "NUMERIC"),
        };
        query(
            &format!(
                "CREATE TABLE everything (truth BOOLEAN, small SMALLINT, big BIGINT, unsigned BIGINT, ratio DOUBLE PRECISION, \
                 narrow REAL, letter TEXT, name TEXT, missing TEXT, bytes BYTEA, day DATE, hour TIME, naive {timestamp}, \
                 moment {zoned}, shifted {zoned}, later {zoned}, id UUID, amount {decimal}, color TEXT, wrapped {zoned}, \
                 address {json}, point {json}, shape {json}, scores {json}, lines {json}, \"any\" {json}, note {json})"
            ),
            params! {},
        );
        let written = everything();
        let parameters = Params::from_serialize(&written).unwrap();
        let list = parameters.names().map(|name| format!(":{name}")).collect::<Vec<_>>().join(", ");
        query(&format!("INSERT INTO everything VALUES ({list})"), parameters);
        let found = read::<Everything>("SELECT * FROM everything");
        assert_eq!(found, std::slice::from_ref(&written));

        // Each value is stored as `params!` stores it, and so it is found.
        for (column, value) in [
            ("naive", Value::from(written.naive)),
            ("moment", written.moment.into()),
            ("shifted", written.shifted.into()),
            ("later", written.later.into()),
            ("wrapped", written.wrapped.0.into()),
            ("day", written.day.into()),
            ("hour", written.hour.into()),
            ("id", written.id.into()),
            ("amount", written.amount.clone().into()),
            ("bytes", written.bytes.clone().into()),
        ] {
            let sql = format!("SELECT COUNT(*) FROM everything WHERE {column} = :value");
            let count: Vec<i64> = DatabaseService::query_as(&sql, params! { "value" => value }).unwrap();
            assert_eq!(count, [1], "{column}");
            let by_serde = [(column, serde_json::to_value(&written).unwrap()[column].clone())];
            if column != "bytes" && !is_sqlite() {
                // JSON has only texts for these types, and PostgreSQL reads each like a literal.
                let parameters = Params::new().with("value", by_serde[0].1.as_str().unwrap());
                let count: Vec<i64> = DatabaseService::query_as(&sql, parameters).unwrap();
                assert_eq!(count, [1], "{column}");
            }
        }
    });
}

fn stored_timestamps_are_found_and_read_as_chrono_reads_them(database: &TestDatabase) {
    database.scope().run(|| {
        let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
        if !is_sqlite() {
            assert_eq!(
                read::<DateTime<Utc>>("SELECT '2026-11-28 12:00:00+02'::timestamptz"),
                [moment]
            );
            assert_eq!(
                read::<NaiveDateTime>("SELECT '2026-11-28 10:00:00'::timestamp"),
                [moment.naive_utc()]
            );
            assert_eq!(
                read::<(String,)>("SELECT '2026-11-28 12:00:00+02'::timestamptz")[0].0,
                "2026-11-28T10:00:00Z"
            );
            // As for `Row::get`, a zone is neither added nor dropped.
            refused::<DateTime<Utc>>("SELECT '2026-11-28 10:00:00'::timestamp");
            refused::<NaiveDateTime>("SELECT '2026-11-28 10:00:00'::timestamptz");
        }
        for text in [
            "2026-11-28 10:00:00",
            "2026-11-28T10:00:00",
            "2026-11-28 10:00:00.000000",
        ] {
            let sql = format!("SELECT '{text}'");
            assert_eq!(read::<DateTime<Utc>>(&sql), [moment]);
            assert_eq!(read::<DateTime<FixedOffset>>(&sql), [moment]);
            assert_eq!(
                read::<Option<NaiveDateTime>>(&sql),
                [Some(moment.naive_utc())]
            );
            assert_eq!(read::<Wrapped>(&sql), [Wrapped(moment)]);
            assert_eq!(read::<String>(&sql), [text], "a String is the text itself");
        }
        for text in [
            "2026-11-28 12:00:00+02",
            "2026-11-28 12:00:00.000000+02:00",
            "2026-11-28T10:00:00Z",
        ] {
            let sql = format!("SELECT '{text}'");
            assert_eq!(read::<DateTime<Utc>>(&sql), [moment], "{text}");
            let naive = refused::<NaiveDateTime>(&sql);
            assert!(
                naive.ends_with("text was refused by NaiveDateTime"),
                "{naive}"
            );
        }
        let shifted = read::<DateTime<FixedOffset>>("SELECT '2026-11-28 12:00:00+02:00'");
        assert_eq!(
            shifted[0].offset().local_minus_utc(),
            7200,
            "the zone is kept"
        );
        if is_sqlite() {
            let now: Vec<DateTime<Utc>> = read("SELECT CURRENT_TIMESTAMP");
            assert!((Utc::now() - now[0]).num_minutes() < 5, "{now:?}");
        }
    });
}

fn numbers_are_read_without_loss(database: &TestDatabase) {
    database.scope().run(|| {
        assert_eq!(read::<i32>("SELECT 2147483647"), [i32::MAX]);
        let error = refused::<i32>("SELECT 2147483648");
        assert_eq!(
            error,
            format!(
                "cannot deserialize row 1, column {}: an integer cannot be read as i32",
                column("2147483648")
            )
        );
        refused::<u8>("SELECT -1");
        refused::<u64>("SELECT -1");
        refused::<f64>("SELECT 9007199254740993");
        assert_eq!(read::<f64>("SELECT 9007199254740992"), [9007199254740992.0]);
        refused::<i64>("SELECT '4711' AS n");
        refused::<bool>("SELECT 4711 AS n");
        assert_eq!(
            read::<(bool, Option<bool>)>("SELECT 1 = 1, NULL"),
            [(true, None)]
        );
        assert_eq!(read::<BigDecimal>("SELECT 7"), [decimal("7")]);
        if is_sqlite() {
            refused::<i64>("SELECT 0.5");
            assert_eq!(read::<BigDecimal>("SELECT 0.1"), [decimal("0.1")]);
            let large = params! { "n" => u64::MAX };
            assert_eq!(
                DatabaseService::query_as::<u64>("SELECT :n", large).unwrap(),
                [u64::MAX]
            );
        } else {
            refused::<i64>("SELECT 12.5::numeric");
            refused::<i64>("SELECT 18446744073709551615::numeric");
            refused::<f64>("SELECT 0.1::numeric");
            refused::<f32>("SELECT 1e300::float8");
            refused::<i64>("SELECT 'NaN'::numeric");
            assert_eq!(read::<i64>("SELECT 12.00::numeric"), [12]);
            assert_eq!(
                read::<u64>("SELECT 18446744073709551615::numeric"),
                [u64::MAX]
            );
            assert_eq!(
                read::<i128>("SELECT -170141183460469231731687303715884105728"),
                [i128::MIN]
            );
            let digits = "0.1000000000000000055511151231257827021181583404541015626";
            assert_eq!(
                read::<(BigDecimal,)>(&format!("SELECT {digits}"))[0].0,
                decimal(digits)
            );
            assert_eq!(read::<BigDecimal>("SELECT 0.1::float8"), [decimal("0.1")]);
        }
        let huge = Row::new([("n", Value::from("340282366920938463463374607431768211455"))]);
        assert_eq!(huge.deserialize::<u128>().unwrap(), u128::MAX);
    });
}

/// Returns the name of an unnamed column.
fn column(expression: &str) -> String {
    let name = if is_sqlite() { expression } else { "?column?" };
    format!("{name:?}")
}

fn result_is_read_by_name_by_position_and_as_one_value(database: &TestDatabase) {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Pair {
        id: i64,
        name: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Position(i64, Option<String>);

    database.scope().run(|| {
        let sql = "SELECT 1 AS id, 'a' AS name, 2 AS other UNION ALL SELECT 2, 'b', 3 ORDER BY 1";
        let pair = |id, name: &str| Pair { id, name: name.to_owned() };
        assert_eq!(read::<Pair>(sql), [pair(1, "a"), pair(2, "b")], "other columns are ignored");
        assert_eq!(read::<Option<Pair>>(sql)[1], Some(pair(2, "b")));
        assert_eq!(read::<(i64, String, i64)>(sql)[1], (2, "b".to_owned(), 3));
        assert_eq!(read::<Position>("SELECT 1, NULL"), [Position(1, None)]);
        assert_eq!(read::<Vec<i64>>("SELECT 1, 2, 3"), [[1, 2, 3]]);
        assert_eq!(read::<[i64; 3]>("SELECT 1, 2, 3"), [[1, 2, 3]]);
        assert_eq!(read::<String>("SELECT 'a'"), ["a"]);
        assert_eq!(read::<Option<i64>>("SELECT 1 UNION ALL SELECT NULL ORDER BY 1").len(), 2);
        let rows = read::<HashMap<String, serde_json::Value>>(sql);
        assert_eq!(rows[0]["name"], json!("a"));
        assert_eq!(read::<serde_json::Value>(sql)[0], json!({ "id": 1, "name": "a", "other": 2 }));
        assert_eq!(read::<HashMap<String, String>>("SELECT '1' AS a")[0]["a"], "1");
        assert_eq!(read::<serde_json::Value>("SELECT '1' AS a")[0], json!({ "a": "1" }), "text stays text");

        let bytes = if is_sqlite() { "SELECT x'00ff' AS b" } else { "SELECT '\\x00ff'::bytea AS b" };
        assert_eq!(read::<Vec<u8>>(bytes), [[0, 255]]);
        assert_eq!(read::<([u8; 2],)>(bytes), [([0, 255],)]);
        refused::<([u8; 3],)>(bytes);
        refused::<String>(bytes);

        assert_eq!(
            refused::<i64>(sql),
            "cannot deserialize row 1: the row has 3 columns (id, name, other), which cannot be read as i64"
        );
        assert_eq!(
            refused::<(i64, String)>(sql),
            "cannot deserialize row 1: the row has 3 columns (id, name, other), which cannot be read as a tuple of size 2"
        );
        let twice = "SELECT 1 AS id, 'a' AS name, 2 AS id";
        let error = "cannot deserialize row 1, column \"id\": several columns have this name; rename all but one with AS";
        assert_eq!(refused::<Pair>(twice), error);
        assert_eq!(refused::<HashMap<String, serde_json::Value>>(twice), error);
        assert_eq!(read::<(i64, String, i64)>(twice), [(1, "a".to_owned(), 2)]);
        let row = &query(twice, params! {})[0];
        assert!(serde_json::to_value(row).is_err());
        assert_eq!(read::<Pair>(&format!("{sql} LIMIT 0")), []);
    });
}

fn attributes_of_serde_work(database: &TestDatabase) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Renamed {
        user_id: i64,
        #[serde(rename = "mail", alias = "email")]
        address: String,
        #[serde(default)]
        retries: u32,
        #[serde(default = "three")]
        limit: u32,
        #[serde(skip)]
        cached: Option<i64>,
        #[serde(with = "chrono::serde::ts_seconds")]
        seen: DateTime<Utc>,
        absent: Option<i64>,
    }

    fn three() -> u32 {
        3
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        id: i64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Outer {
        id: i64,
        active: bool,
        config: serde_json::Value,
        #[serde(flatten)]
        times: Times,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        created: DateTime<Utc>,
        color: Color,
        count: i64,
        gone: Option<i64>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Event {
        Click { x: i64 },
        Key { name: String },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }

    database.scope().run(|| {
        let renamed = read::<Renamed>("SELECT 1 AS \"userId\", 'a' AS email, 4 AS \"limit\", 60 AS seen");
        assert_eq!((renamed[0].user_id, renamed[0].address.as_str()), (1, "a"));
        assert_eq!((renamed[0].retries, renamed[0].limit, renamed[0].cached), (0, 4, None));
        assert_eq!((renamed[0].seen.timestamp(), renamed[0].absent), (60, None));
        let parameters = Params::from_serialize(&renamed[0]).unwrap();
        let names: Vec<&str> = parameters.names().collect();
        assert_eq!(names, ["userId", "mail", "retries", "limit", "seen", "absent"]);
        assert_eq!(parameters.get("seen"), Some(&Value::Int(60)));

        assert_eq!(read::<Strict>("SELECT 1 AS id"), [Strict { id: 1 }]);
        assert_eq!(
            refused::<Strict>("SELECT 1 AS id, 2 AS other"),
            "cannot deserialize row 1, column \"other\": no field has this name; the fields are id"
        );

        let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
        let times = Times { created: moment, color: Color::Red, count: 5, gone: None };
        let rest = BTreeMap::from([("extra".to_owned(), json!("1"))]);
        let outer = Outer { id: 1, active: true, config: json!({ "a": 1 }), times, rest };
        let (zoned, json) = if is_sqlite() { ("TEXT", "TEXT") } else { ("TIMESTAMPTZ", "JSON") };
        query(
            &format!(
                "CREATE TABLE flat (id BIGINT, active BOOLEAN, config {json}, created {zoned}, color TEXT, count BIGINT, \
                 gone BIGINT, extra TEXT)"
            ),
            params! {},
        );
        let insert = "INSERT INTO flat VALUES (:id, :active, :config, :created, :color, :count, :gone, :extra)";
        let parameters = Params::from_serialize(&outer).unwrap();
        assert_eq!(parameters.get("extra"), Some(&Value::from("1")));
        query(insert, parameters);
        if is_sqlite() {
            // serde buffers the flattened text, and chrono wants an offset.
            refused::<Outer>("SELECT * FROM flat");
            query("UPDATE flat SET created = created || '+00:00'", params! {});
        }
        assert_eq!(read::<Outer>("SELECT * FROM flat"), [outer]);

        assert_eq!(read::<Event>("SELECT 'click' AS kind, 7 AS x"), [Event::Click { x: 7 }]);
        assert_eq!(
            read::<HashMap<String, Either>>("SELECT 'x' AS a, 7 AS b")[0]["b"],
            Either::Number(7)
        );
        // What serde buffers is an error and never another value.
        let buffered = refused::<Event>(&format!("SELECT 'click' AS kind, '{SECRET}' AS x"));
        assert!(buffered.starts_with("cannot deserialize row 1: text cannot be read as i64, in a flattened"), "{buffered}");
        refused::<Event>(&format!("SELECT '{SECRET}' AS kind"));
        refused::<HashMap<String, Either>>("SELECT NULL AS a");
    });
}

fn json_is_read_from_json_and_from_text(database: &TestDatabase) {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Order {
        address: Address,
        tags: Vec<String>,
        any: serde_json::Value,
        text: String,
        shape: Shape,
        none: Option<Address>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Ratio {
        value: f64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Exact {
        value: BigDecimal,
    }

    database.scope().run(|| {
        let casts: &[&str] = if is_sqlite() { &[""] } else { &["", "::json", "::jsonb"] };
        for cast in casts {
            let json = |text: &str| format!("'{text}'{cast}");
            let order = read::<Order>(&format!(
                "SELECT {} AS address, {} AS tags, {} AS \"any\", {} AS text, {} AS shape, NULL AS none",
                json("{\"city\": \"Köln\", \"zip\": 1, \"other\": []}"),
                json("[\"a\", \"b\"]"),
                json("[1, null]"),
                json("[1]"),
                json("{\"Circle\": {\"radius\": 2}}"),
            ));
            let address = Address { city: "Köln".to_owned(), zip: Some(1) };
            let tags = vec!["a".to_owned(), "b".to_owned()];
            let shape = Shape::Circle { radius: 2.0 };
            let text = "[1]".to_owned();
            assert_eq!(order, [Order { address, tags, any: json!([1, null]), text, shape, none: None }], "{cast}");

            let one = |json: &str| format!("SELECT '{json}'{cast} AS v, 1 AS n");
            assert_eq!(read::<(Vec<Option<i64>>, i64)>(&one("[1, null]")), [(vec![Some(1), None], 1)]);
            assert_eq!(read::<(HashMap<Color, i64>, i64)>(&one("{\"red\": 1}"))[0].0[&Color::Red], 1);
            assert_eq!(read::<(Ratio, i64)>(&one("{\"value\": 2}"))[0].0.value, 2.0);
            let tenth: BigDecimal = decimal("0.1");
            assert_eq!(read::<(Exact, i64)>(&one("{\"value\": 0.1}"))[0].0.value, tenth);
            // Numbers that would be rounded, also where serde would round them silently.
            for lossy in ["18446744073709551616", "0.10000000000000000555", "9007199254740993"] {
                refused::<(Ratio, i64)>(&one(&format!("{{\"value\": {lossy}}}")));
            }
            refused::<(serde_json::Value, i64)>(&one("18446744073709551616"));

            let city = refused::<(Address, i64)>(&one(&format!("{{\"zip\": \"{SECRET}\", \"city\": 4711}}")));
            assert!(city.contains("column \"v\": in its JSON, "), "{city}");
            let missing = refused::<(Address, i64)>(&one("{}"));
            assert!(missing.ends_with("in its JSON, the field city is missing"), "{missing}");
            refused::<(Vec<i64>, i64)>(&one(&format!("[\"{SECRET}\"]")));
            refused::<(Shape, i64)>(&one(&format!("{{\"{SECRET}\": 4711}}")));
            refused::<(HashMap<i64, i64>, i64)>(&one(&format!("{{\"{SECRET}\": 4711}}")));
            refused::<((i64, i64), i64)>(&one("[1, 2, 4711]"));
        }
        let no_json = refused::<(Address, i64)>(&format!("SELECT '{SECRET}' AS v, 1"));
        assert!(no_json.contains("text cannot be read as struct Address: it is not valid JSON"), "{no_json}");
    });
}

fn enums_are_text(database: &TestDatabase) {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Painted {
        color: Color,
        shape: Shape,
    }

    database.scope().run(|| {
        let color = if is_sqlite() {
            "TEXT"
        } else {
            query("CREATE TYPE color AS ENUM ('red', 'dark_green')", params! {});
            "color"
        };
        query(&format!("CREATE TABLE painted (color {color}, shape TEXT)"), params! {});
        let painted = Painted { color: Color::DarkGreen, shape: Shape::Point };
        query("INSERT INTO painted VALUES (:color, :shape)", Params::from_serialize(&painted).unwrap());
        assert_eq!(read::<Painted>("SELECT * FROM painted"), [painted]);
        assert_eq!(read::<Color>("SELECT color FROM painted"), [Color::DarkGreen]);
        assert_eq!(
            read::<HashMap<Color, i64>>("SELECT 1 AS red, 2 AS dark_green")[0][&Color::DarkGreen],
            2
        );
        let unknown = refused::<Color>(&format!("SELECT '{SECRET}' AS color"));
        assert_eq!(
            unknown,
            "cannot deserialize row 1, column \"color\": text cannot be read: the text is none of red, dark_green"
        );
        refused::<Color>("SELECT 1");
    });
}

fn errors_name_row_column_and_type_and_no_value(database: &TestDatabase) {
    #[derive(Debug, Deserialize)]
    struct Person {
        #[allow(dead_code, reason = "only the reading is tested")]
        name: String,
        #[allow(dead_code, reason = "only the reading is tested")]
        age: i32,
    }

    #[derive(Debug)]
    struct Picky;

    impl<'de> Deserialize<'de> for Picky {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            Err(serde::de::Error::custom(format!("{text} is wrong")))
        }
    }

    fn picky<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        Picky::deserialize(deserializer).map(|_| 0)
    }

    #[derive(Debug, Deserialize)]
    struct ByFunction {
        #[allow(dead_code, reason = "only the reading is tested")]
        #[serde(deserialize_with = "picky")]
        value: i64,
    }

    database.scope().run(|| {
        query("CREATE TABLE people (name TEXT, age TEXT)", params! {});
        for (name, age) in [("a", "1"), (SECRET, SECRET)] {
            let person = params! { "name" => name, "age" => age };
            query("INSERT INTO people VALUES (:name, :age)", person);
        }
        let sql = "SELECT name, CASE WHEN name = 'a' THEN NULL ELSE age END AS age FROM people ORDER BY name DESC";
        let error = DatabaseService::query_as::<Person>(sql, params! {}).unwrap_err();
        assert_eq!(shown(&error), "cannot deserialize row 1, column \"age\": text cannot be read as i32");
        let DbError::Deserialize { row, column, problem, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*row, column.as_deref()), (Some(1), Some("age")));
        assert_eq!(problem, "text cannot be read as i32");
        let second = refused::<(String, Option<i32>)>(&sql.replace("DESC", "ASC"));
        assert_eq!(second, "cannot deserialize row 2, column \"age\": text cannot be read as i32");
        assert_eq!(
            refused::<Person>("SELECT name, NULL AS age FROM people"),
            "cannot deserialize row 1, column \"age\": NULL cannot be read as i32"
        );
        assert_eq!(
            refused::<Person>("SELECT name, 1 AS years FROM people"),
            "cannot deserialize row 1, column \"age\": there is no such column; the row has name, years"
        );

        let secret = format!("SELECT '{SECRET}' AS value, 1 AS n");
        for (error, end) in [
            (refused::<(Picky, i64)>(&secret), "text was refused by Picky"),
            (refused::<ByFunction>(&secret), "text was refused by the field's function"),
            (refused::<(Uuid, i64)>(&secret), "text was refused by Uuid"),
            (refused::<(NaiveDate, i64)>(&secret), "text was refused by NaiveDate"),
            (refused::<(Option<DateTime<Utc>>, i64)>(&secret), "text was refused by Option<DateTime<Utc>>"),
            (refused::<(BigDecimal, i64)>(&secret), "text was refused by BigDecimal"),
            (refused::<(char, i64)>(&secret), "text cannot be read as a character"),
            (refused::<(bool, i64)>(&secret), "text cannot be read as a boolean"),
            (refused::<(f64, i64)>(&secret), "text cannot be read as f64"),
            (refused::<(Vec<u8>, i64)>(&secret), "more digits than i64, u64 and f64 hold"),
            (refused::<((), i64)>(&secret), "text cannot be read as unit"),
        ] {
            assert!(error.starts_with("cannot deserialize row 1, column \"value\": "), "{error}");
            assert!(error.ends_with(end), "{error}");
        }
        // A name from outside stays on one line.
        let named = refused::<Person>("SELECT 1 AS \"a\nb\"");
        assert!(!named.contains('\n'), "{named}");
    });
}

fn queries_on_connections_deserialize_too(database: &TestDatabase) {
    database.scope().run(|| {
        let rows = DatabaseService::transaction(|connection| {
            connection.query_as::<(i64, String)>(
                "SELECT :n, :t",
                params! { "n" => 1_i64 << 40, "t" => "x" },
            )
        });
        assert_eq!(rows.unwrap(), [(1 << 40, "x".to_owned())]);
        let rows: Result<Vec<i64>, DbError> =
            DatabaseService::read(|connection| connection.query_as("SELECT 1", params! {}));
        assert_eq!(rows.unwrap(), [1]);
        let missing = DatabaseService::query_as::<i64>("SELECT :n", params! {}).unwrap_err();
        assert!(
            matches!(missing, DbError::MissingParameter { .. }),
            "{missing}"
        );
    });
}

#[test]
fn fake_rows_are_deserialized() {
    let fake = DatabaseService::fake(|_, params| {
        let id = params.get("id").cloned().unwrap_or_default();
        Ok(vec![Row::new([
            ("id", id),
            ("city", Value::from("Köln")),
            ("zip", Value::Null),
        ])])
    });
    let addresses = Scope::new()
        .provide(fake)
        .run(|| DatabaseService::query_as::<Address>("SELECT …", params! { "id" => 1 }));
    assert_eq!(
        addresses.unwrap(),
        [Address {
            city: "Köln".to_owned(),
            zip: None
        }]
    );
}

#[test]
fn arrays_are_read_as_lists() {
    let row = |value: Value| Row::new([("list", value), ("n", Value::from(1))]);
    let numbers = row(Value::from([Some(1), None]));
    assert_eq!(
        numbers.deserialize::<(Vec<Option<i64>>, i64)>().unwrap().0,
        [Some(1), None]
    );
    let error = numbers.deserialize::<(Vec<i64>, i64)>().unwrap_err();
    assert_eq!(
        shown(&error),
        "cannot deserialize column \"list\": in its array, NULL cannot be read as i64"
    );
    let matrix = row(Value::from(vec![vec![1_i64, 2], vec![3, 4]]));
    assert_eq!(
        matrix.deserialize::<(Vec<[i64; 2]>, i64)>().unwrap().0,
        [[1, 2], [3, 4]]
    );
    assert!(matrix.deserialize::<(Vec<[i64; 3]>, i64)>().is_err());
    assert!(matrix.deserialize::<(Vec<(i64,)>, i64)>().is_err());
    let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
    let moments = row(Value::from([moment]));
    assert_eq!(
        moments
            .deserialize::<(Vec<DateTime<Utc>>, i64)>()
            .unwrap()
            .0,
        [moment]
    );
    let secret = row(Value::from([SECRET])).deserialize::<(Vec<i64>, i64)>();
    assert_eq!(
        shown(&secret.unwrap_err()),
        "cannot deserialize column \"list\": in its array, text cannot be read as i64"
    );
}

#[test]
fn rows_are_serialized_as_maps() {
    let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
    let id = Uuid::from_u128(7);
    let row = Row::new([
        ("none", Value::Null),
        ("truth", Value::from(true)),
        ("big", Value::from(i64::MAX)),
        ("ratio", Value::from(0.1)),
        ("text", Value::from("[1]")),
        ("bytes", Value::from(vec![1_u8, 2])),
        ("moment", Value::from(moment)),
        ("naive", Value::from(moment.naive_utc())),
        ("id", Value::from(id)),
        ("amount", Value::from(decimal("1.10"))),
        ("json", Value::Json("{\"a\": [1]}".to_owned())),
        ("list", Value::from([Some(1), None])),
    ]);
    let expected = json!({
        "none": null, "truth": true, "big": i64::MAX, "ratio": 0.1, "text": "[1]", "bytes": [1, 2], "moment": moment,
        "naive": moment.naive_utc(), "id": id, "amount": "1.10", "json": { "a": [1] }, "list": [1, null],
    });
    assert_eq!(serde_json::to_value(&row).unwrap(), expected);
    let lossy = Row::new([("json", Value::Json("[18446744073709551616]".to_owned()))]);
    let error = serde_json::to_string(&lossy).unwrap_err().to_string();
    assert!(
        error.contains("column \"json\"") && !error.contains("1844"),
        "{error}"
    );
}

#[test]
fn parameters_are_made_of_fields() {
    #[derive(Serialize)]
    struct Fields<'a> {
        huge: u64,
        wide: i128,
        borrowed: &'a str,
        bytes: &'a [u8],
        fixed: [u8; 2],
        list: Vec<i64>,
        slice: &'a [Option<&'a str>],
        ids: Vec<Uuid>,
        moments: Vec<DateTime<Utc>>,
        none: Vec<String>,
        no_lines: Vec<Address>,
        lines: Vec<Address>,
        matrix: [[i64; 2]; 2],
        tuple: (i64, &'a str),
        unit: (),
        json_null: serde_json::Value,
        boxed: Box<DateTime<Utc>>,
        decimal: BigDecimal,
    }

    let moment = Utc.with_ymd_and_hms(2026, 11, 28, 10, 0, 0).unwrap();
    let id = Uuid::from_u128(7);
    let amount = decimal("1E+30");
    let address = || Address {
        city: "x".to_owned(),
        zip: None,
    };
    let parameters = Params::from_serialize(&Fields {
        huge: u64::MAX,
        wide: i128::MAX,
        borrowed: "x",
        bytes: &[1, 2],
        fixed: [3, 4],
        list: vec![1, 2],
        slice: &[Some("x"), None],
        ids: vec![id],
        moments: vec![moment],
        none: Vec::new(),
        no_lines: Vec::new(),
        lines: vec![address()],
        matrix: [[1, 2], [3, 4]],
        tuple: (1, "x"),
        unit: (),
        json_null: serde_json::Value::Null,
        boxed: Box::new(moment),
        decimal: amount.clone(),
    })
    .unwrap();
    let json = |text: &str| Value::Json(text.to_owned());
    let expected = params! {
        "huge" => u64::MAX, "wide" => Value::Decimal(i128::MAX.into()), "borrowed" => "x", "bytes" => vec![1_u8, 2],
        "fixed" => vec![3_u8, 4], "list" => [1_i64, 2], "slice" => [Some("x"), None], "ids" => [id],
        "moments" => [moment], "none" => Vec::<String>::new(), "no_lines" => json("[]"),
        "lines" => json("[{\"city\":\"x\",\"zip\":null}]"), "matrix" => vec![vec![1_i64, 2], vec![3, 4]],
        "tuple" => json("[1,\"x\"]"), "unit" => Value::Null, "json_null" => json("null"), "boxed" => moment,
        "decimal" => amount,
    };
    for name in expected.names() {
        assert_eq!(parameters.get(name), expected.get(name), "{name}");
    }
    assert_eq!(parameters, expected);

    let map = Params::from_serialize(&BTreeMap::from([("a", 1), ("b", 2)])).unwrap();
    assert_eq!(map, params! { "a" => 1, "b" => 2 });
    assert_eq!(Params::from_serialize(&()).unwrap(), params! {});
    let dynamic = json!({ "a": "x", "b": 1, "c": null, "d": [1], "e": 0.5 });
    let expected = params! {
        "a" => "x", "b" => 1, "c" => Value::Null, "d" => Value::Json("[1]".to_owned()), "e" => 0.5,
    };
    assert_eq!(Params::from_serialize(&dynamic).unwrap(), expected);
}

#[test]
fn values_that_are_no_parameters_are_refused_without_being_shown() {
    #[derive(Serialize)]
    struct Nested {
        name: String,
        ratios: (f64, f64),
    }

    #[derive(Serialize)]
    struct Twice {
        id: i64,
        #[serde(flatten)]
        more: BTreeMap<String, i64>,
    }

    struct Picky;

    impl Serialize for Picky {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom(SECRET))
        }
    }

    #[track_caller]
    fn refused<T: Serialize + ?Sized>(value: &T) -> String {
        shown(&Params::from_serialize(value).unwrap_err())
    }

    let nested = Nested {
        name: SECRET.to_owned(),
        ratios: (4711.0, f64::NAN),
    };
    assert_eq!(
        refused(&nested),
        "cannot make parameters of field \"ratios\": it becomes JSON, which has neither NaN nor infinity"
    );
    let twice = Twice {
        id: 4711,
        more: BTreeMap::from([("id".to_owned(), 4711)]),
    };
    assert_eq!(
        refused(&twice),
        "cannot make parameters of field \"id\": two fields have this name"
    );
    assert_eq!(
        refused(&BTreeMap::from([("key", Picky)])),
        "cannot make parameters of field \"key\": Picky refused to be serialized"
    );
    assert_eq!(
        refused(&Picky),
        "cannot make parameters: Picky refused to be serialized"
    );
    assert_eq!(
        refused(SECRET),
        "cannot make parameters: str is neither a struct nor a map"
    );
    assert_eq!(
        refused(&[4711]),
        "cannot make parameters: [i32; 1] is neither a struct nor a map"
    );
    refused(&BTreeMap::from([(4711, 1)]));
    refused(&BTreeMap::from([(
        "key",
        BTreeMap::from([(vec![4711], 1)]),
    )]));
    refused(&Shape::Circle { radius: 4711.0 });
}
