//! Values of each type, written and read by the DSL, and by SQL texts beside it.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use db_service::{DatabaseService, DbError, MultiBackend, Params, Row, Value, params};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Array, Date, Integer, Numeric, Text, Timestamptz};
use tests::TestDatabase;
use uuid::Uuid;

use super::tables::{execute, is_postgres};

on_both_backends!(
    values_of_the_dsl_are_read_by_the_dsl,
    values_of_the_dsl_are_read_by_execute_query,
    values_of_execute_query_are_read_by_the_dsl,
    values_of_bulk_insert_are_read_by_the_dsl,
    nulls_are_written_and_read,
    values_are_found_by_equality,
    zones_are_converted_to_utc,
    null_is_no_value,
);

/// Defines a table with one column for each type, and the struct of its rows.
macro_rules! samples {
    ($($column:ident: $sql_type:ident, $type:ty, $postgres:literal, $sqlite:literal;)*) => {
        diesel::table! {
            samples (id) {
                id -> BigInt,
                $($column -> $sql_type,)*
            }
        }

        diesel::table! {
            optional_samples (id) {
                id -> BigInt,
                $($column -> Nullable<$sql_type>,)*
            }
        }

        #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
        #[diesel(table_name = samples, check_for_backend(MultiBackend))]
        struct Sample {
            id: i64,
            $($column: $type,)*
        }

        #[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
        #[diesel(table_name = optional_samples, check_for_backend(MultiBackend))]
        struct OptionalSample {
            id: i64,
            $($column: Option<$type>,)*
        }

        const COLUMNS: &[&str] = &["id", $(stringify!($column)),*];

        impl Sample {
            fn column_values(&self) -> Vec<Value> {
                vec![Value::from(self.id), $(Value::from(self.$column.clone())),*]
            }

            fn of(row: &Row) -> Self {
                Sample {
                    id: row.get("id").unwrap(),
                    $($column: row.get(stringify!($column)).unwrap(),)*
                }
            }

            fn optional(&self) -> OptionalSample {
                OptionalSample {
                    id: self.id,
                    $($column: Some(self.$column.clone()),)*
                }
            }
        }

        impl OptionalSample {
            fn empty(id: i64) -> Self {
                OptionalSample {
                    id,
                    $($column: None,)*
                }
            }

            fn of(row: &Row) -> Self {
                OptionalSample {
                    id: row.get("id").unwrap(),
                    $($column: row.get(stringify!($column)).unwrap(),)*
                }
            }
        }

        fn create_tables(database: &TestDatabase) {
            for (table, null) in [("samples", "NOT NULL"), ("optional_samples", "")] {
                let mut columns = vec!["id bigint PRIMARY KEY".to_owned()];
                $(
                    let sql_type = if is_postgres(database) { $postgres } else { $sqlite };
                    columns.push(format!("{} {sql_type} {null}", stringify!($column)));
                )*
                execute(&[&format!("CREATE TABLE {table} ({})", columns.join(", "))]);
            }
        }

        /// Asserts that a filter by the value of each column finds the row.
        fn assert_found(sample: &Sample, connection: &mut db_service::Connection) {
            $(
                // PostgreSQL cannot compare values of `json`.
                if stringify!($column) != "doc" {
                    let found: Vec<i64> = samples::table
                        .filter(samples::$column.eq(&sample.$column))
                        .filter(samples::id.eq(sample.id))
                        .select(samples::id)
                        .load(connection)
                        .unwrap();
                    assert_eq!(found, [sample.id], "by {}", stringify!($column));
                }
            )*
        }
    };
}

samples! {
    small: SmallInt, i16, "smallint", "INTEGER";
    int: Integer, i32, "integer", "INTEGER";
    big: BigInt, i64, "bigint", "INTEGER";
    single: Float, f32, "real", "REAL";
    real: Double, f64, "double precision", "REAL";
    flag: Bool, bool, "boolean", "BOOLEAN";
    words: Text, String, "text", "TEXT";
    bytes: Binary, Vec<u8>, "bytea", "BLOB";
    day: Date, NaiveDate, "date", "TEXT";
    clock: Time, NaiveTime, "time", "TEXT";
    local: Timestamp, NaiveDateTime, "timestamp", "TEXT";
    moment: Timestamptz, DateTime<Utc>, "timestamptz", "TEXT";
    tag: Uuid, Uuid, "uuid", "TEXT";
    price: Numeric, BigDecimal, "numeric", "TEXT";
    doc: Json, serde_json::Value, "json", "TEXT";
    docb: Jsonb, serde_json::Value, "jsonb", "TEXT";
}

/// Returns rows with ordinary values, the smallest and the largest.
fn samples() -> [Sample; 3] {
    let ordinary = Sample {
        id: 1,
        small: 7,
        int: -70_000,
        big: 5_000_000_000,
        single: 0.1,
        real: 0.1,
        flag: true,
        words: "naïve \u{1f600}\n'\"\\".to_owned(),
        bytes: vec![0, 1, 127, 128, 255],
        day: "2024-02-29".parse().unwrap(),
        clock: "13:45:01.000001".parse().unwrap(),
        local: "2026-11-28T12:00:00.123456".parse().unwrap(),
        moment: "2026-11-28T12:00:00.123456Z".parse().unwrap(),
        tag: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef),
        price: "12345678901234567890.1234567890".parse().unwrap(),
        doc: serde_json::json!({ "a": [1, 2.5, null, "é"], "b": {} }),
        docb: serde_json::json!([true, { "deep": { "er": -1 } }]),
    };
    let smallest = Sample {
        id: i64::MIN,
        small: i16::MIN,
        int: i32::MIN,
        big: i64::MIN,
        single: f32::MIN,
        real: f64::MIN,
        flag: false,
        words: String::new(),
        bytes: Vec::new(),
        day: "0001-01-01".parse().unwrap(),
        clock: "00:00:00".parse().unwrap(),
        local: "0001-01-01T00:00:00".parse().unwrap(),
        moment: "0001-01-01T00:00:00Z".parse().unwrap(),
        tag: Uuid::nil(),
        price: "-0.000000000000000000000000000001".parse().unwrap(),
        doc: serde_json::json!(null),
        docb: serde_json::json!(0),
    };
    let largest = Sample {
        id: i64::MAX,
        small: i16::MAX,
        int: i32::MAX,
        big: i64::MAX,
        single: f32::MAX,
        real: f64::MIN_POSITIVE,
        flag: true,
        words: "x".repeat(100_000),
        bytes: vec![0; 100_000],
        day: "9999-12-31".parse().unwrap(),
        clock: "23:59:59.999999".parse().unwrap(),
        local: "9999-12-31T23:59:59.999999".parse().unwrap(),
        moment: "9999-12-31T23:59:59.999999Z".parse().unwrap(),
        tag: Uuid::max(),
        price: "999999999999999999999999999999".parse().unwrap(),
        doc: serde_json::json!(""),
        docb: serde_json::json!(i64::MAX),
    };
    [smallest, ordinary, largest]
}

fn insert_by_dsl(samples: &[Sample]) {
    let count = DatabaseService::with_connection(|connection| {
        diesel::insert_into(samples::table)
            .values(samples)
            .execute(connection)
    });
    assert_eq!(count.unwrap(), samples.len());
}

fn load_by_dsl() -> Vec<Sample> {
    samples::table
        .select(Sample::as_select())
        .order(samples::id)
        .load(&mut DatabaseService::connection().unwrap())
        .unwrap()
}

fn values_of_the_dsl_are_read_by_the_dsl(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        insert_by_dsl(&samples());
        assert_eq!(load_by_dsl(), samples());
    });
}

fn values_of_the_dsl_are_read_by_execute_query(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        insert_by_dsl(&samples());
        let sql = "SELECT * FROM samples ORDER BY id";
        let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
        let read: Vec<Sample> = rows.iter().map(Sample::of).collect();
        assert_eq!(read, samples());
    });
}

fn values_of_execute_query_are_read_by_the_dsl(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let names: Vec<String> = COLUMNS.iter().map(|name| format!(":{name}")).collect();
        let sql = format!(
            "INSERT INTO samples ({}) VALUES ({})",
            COLUMNS.join(", "),
            names.join(", ")
        );
        for sample in samples() {
            let values = COLUMNS.iter().copied().zip(sample.column_values());
            let params = values.fold(Params::new(), |params, (name, value)| {
                params.with(name, value)
            });
            DatabaseService::execute_query(&sql, params).unwrap();
        }
        assert_eq!(load_by_dsl(), samples());
    });
}

fn values_of_bulk_insert_are_read_by_the_dsl(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let rows = samples().map(|sample| sample.column_values());
        let count = DatabaseService::bulk_insert("samples", COLUMNS, rows);
        assert_eq!(count.unwrap(), 3);
        assert_eq!(load_by_dsl(), samples());
    });
}

fn nulls_are_written_and_read(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let [smallest, _, largest] = samples().map(|sample| sample.optional());
        let rows = vec![smallest, OptionalSample::empty(0), largest];
        let connection = &mut DatabaseService::connection().unwrap();
        for row in &rows {
            let inserted: OptionalSample = diesel::insert_into(optional_samples::table)
                .values(row)
                .returning(OptionalSample::as_returning())
                .get_result(connection)
                .unwrap();
            assert_eq!(inserted, *row);
        }
        let sql = "SELECT * FROM optional_samples ORDER BY id";
        let read = DatabaseService::execute_query(sql, params! {}).unwrap();
        let read: Vec<OptionalSample> = read.iter().map(OptionalSample::of).collect();
        assert_eq!(read, rows);
        // A parameter without a value has the type of its column too.
        let none = (
            optional_samples::moment.eq(None::<DateTime<Utc>>),
            optional_samples::price.eq(None::<BigDecimal>),
            optional_samples::docb.eq(None::<serde_json::Value>),
            optional_samples::tag.eq(None::<Uuid>),
            optional_samples::bytes.eq(None::<Vec<u8>>),
            optional_samples::small.eq(None::<i16>),
        );
        let updated = diesel::update(optional_samples::table)
            .set(none)
            .execute(connection);
        assert_eq!(updated, Ok(3));
        let nulls = optional_samples::table
            .filter(optional_samples::moment.is_null())
            .filter(optional_samples::small.is_null())
            .filter(optional_samples::docb.is_null())
            .count();
        assert_eq!(nulls.get_result(connection), Ok(3));
    });
}

fn values_are_found_by_equality(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        insert_by_dsl(&samples());
        let connection = &mut DatabaseService::connection().unwrap();
        for sample in samples() {
            assert_found(&sample, connection);
        }
        let tags = samples().map(|sample| sample.tag);
        let moments = samples().map(|sample| sample.moment);
        let prices = samples().map(|sample| sample.price);
        let count = samples::table
            .filter(samples::tag.eq_any(tags))
            .filter(samples::moment.eq_any(moments))
            .filter(samples::price.eq_any(prices))
            .count();
        assert_eq!(count.get_result(connection), Ok(3));
        // The texts of times sort like the times.
        let late = samples::table
            .filter(samples::moment.gt(samples()[1].moment))
            .filter(samples::local.gt(samples()[1].local))
            .filter(samples::day.gt(samples()[1].day))
            .select(samples::id);
        assert_eq!(late.load(connection), Ok(vec![i64::MAX]));
    });
}

fn zones_are_converted_to_utc(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        insert_by_dsl(&samples()[1..2]);
        let connection = &mut DatabaseService::connection().unwrap();
        let zoned = DateTime::parse_from_rfc3339("2026-11-28T12:00:00.5+05:30").unwrap();
        let stored: DateTime<Utc> = diesel::update(samples::table)
            .set(samples::moment.eq(zoned))
            .returning(samples::moment)
            .get_result(connection)
            .unwrap();
        assert_eq!(stored, zoned);
        let same = samples::table.filter(samples::moment.eq(zoned.with_timezone(&chrono::Local)));
        assert_eq!(same.count().get_result(connection), Ok(1));
    });
}

fn null_is_no_value(database: &TestDatabase) {
    database.scope().run(|| {
        let connection = &mut DatabaseService::connection().unwrap();
        let null = diesel::select(sql::<Integer>("CAST(NULL AS INTEGER)"));
        let error = null.get_result::<i32>(connection).unwrap_err();
        assert!(
            matches!(error, diesel::result::Error::DeserializationError(_)),
            "{error:?}"
        );
        let null = diesel::select(sql::<diesel::sql_types::Nullable<Integer>>("NULL"));
        assert_eq!(null.get_result::<Option<i32>>(connection), Ok(None));
    });
}

#[test]
fn sqlite_text_that_sqlite_writes_itself_is_read() {
    TestDatabase::sqlite().scope().run(|| {
        let connection = &mut DatabaseService::connection().unwrap();
        let now = diesel::select(sql::<Timestamptz>("CURRENT_TIMESTAMP"));
        let now: DateTime<Utc> = now.get_result(connection).unwrap();
        assert!((Utc::now() - now).abs() < chrono::Duration::minutes(1));
        let day = diesel::select(sql::<Date>("date('2026-02-28', '+1 day')"));
        let day: NaiveDate = day.get_result(connection).unwrap();
        assert_eq!(day.to_string(), "2026-03-01");
        let bytes = "x'0123456789abcdef0123456789abcdef'";
        let tag = diesel::select(sql::<diesel::sql_types::Uuid>(bytes));
        assert_eq!(tag.get_result(connection), Ok(samples()[1].tag));
    });
}

#[test]
fn sqlite_decimals_are_texts() {
    diesel::table! {
        prices (id) {
            id -> BigInt,
            price -> Numeric,
        }
    }
    TestDatabase::sqlite().scope().run(|| {
        execute(&["CREATE TABLE prices (id INTEGER PRIMARY KEY, price TEXT NOT NULL)"]);
        let connection = &mut DatabaseService::connection().unwrap();
        let [nine, ten, long]: [BigDecimal; 3] =
            ["9", "10", "12345678901234567890.5"].map(|text| text.parse().unwrap());
        let rows = [&nine, &ten, &long].map(|price| prices::price.eq(price.clone()));
        diesel::insert_into(prices::table)
            .values(&rows)
            .execute(connection)
            .unwrap();
        let sorted = prices::table.select(prices::price).order(prices::price);
        let sorted: Vec<BigDecimal> = sorted.load(connection).unwrap();
        assert_eq!(sorted, [ten.clone(), long.clone(), nine.clone()]);
        let below = prices::table.filter(prices::price.lt(&nine)).count();
        assert_eq!(below.get_result(connection), Ok(2));
        // The sum is a float, which holds 15 to 17 digits.
        let sum = prices::table.select(diesel::dsl::sum(prices::price));
        let sum: Option<BigDecimal> = sum.first(connection).unwrap();
        assert!(sum.is_some_and(|sum| sum != &nine + &ten + &long));
        // A column of the type NUMERIC converts the text to a float.
        execute(&["CREATE TABLE floats (id INTEGER PRIMARY KEY, price NUMERIC)"]);
        diesel::sql_query("INSERT INTO floats (price) VALUES ($1)")
            .bind::<Numeric, _>(&long)
            .execute(connection)
            .unwrap();
        let stored = sql::<Text>("SELECT typeof(price) FROM floats");
        assert_eq!(stored.get_result(connection), Ok("real".to_owned()));
    });
}

#[test]
fn nan_is_stored_by_postgres_and_refused_by_sqlite() {
    let nan = |database: &TestDatabase| {
        database.scope().run(|| {
            create_tables(database);
            insert_by_dsl(&samples()[1..2]);
            DatabaseService::with_connection(|connection| {
                diesel::update(samples::table)
                    .set((samples::real.eq(f64::NAN), samples::single.eq(f32::NAN)))
                    .returning((samples::real, samples::single))
                    .get_result::<(f64, f32)>(connection)
            })
        })
    };
    let error = nan(&TestDatabase::sqlite()).unwrap_err();
    assert!(
        matches!(error, DbError::UnstorableValue { .. }),
        "{error:?}"
    );
    if let Some(database) = TestDatabase::postgres() {
        let (real, single) = nan(&database).unwrap();
        assert!(real.is_nan() && single.is_nan());
    }
}

#[test]
fn postgres_arrays_are_written_and_read() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        let connection = &mut DatabaseService::connection().unwrap();
        let query = sql::<Array<Integer>>("SELECT ").bind::<Array<Integer>, _>(vec![3, 1, 2]);
        assert_eq!(query.get_result(connection), Ok(vec![3, 1, 2]));
    });
}
