//! Queries: parameters, prepared statements, values and rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bigdecimal::BigDecimal;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use db_service::{Backend, Connection, DatabaseService, DbError, Params, Value, params};
use diesel::connection::{Connection as _, InstrumentationEvent};
use diesel::prelude::*;
use serde_json::json;
use tests::TestDatabase;
use uuid::Uuid;

on_both_backends!(
    values_of_every_type_round_trip,
    placeholders_are_replaced_only_outside_literals_and_comments,
    repeated_statement_is_prepared_once,
    diesel_dsl_works_on_every_connection,
    execute_many_inserts_all_rows_or_none,
    rows_have_column_names,
);

fn query(sql: &str, params: Params) -> Vec<db_service::Row> {
    DatabaseService::execute_query(sql, params).unwrap()
}

fn backend() -> Backend {
    DatabaseService::connection().unwrap().backend()
}

fn values_of_every_type_round_trip(database: &TestDatabase) {
    database.scope().run(|| {
        query(
            "CREATE TABLE kinds (b BOOLEAN, i BIGINT, s INTEGER, f DOUBLE PRECISION, t TEXT, y BYTEA, d DATE, m TIME, \
             ts TIMESTAMP, tz TEXT, u UUID, n NUMERIC(30, 4), j JSON, e TEXT)",
            params! {},
        );
        if backend() == Backend::Postgres {
            query("ALTER TABLE kinds ALTER tz TYPE TIMESTAMPTZ USING NULL, ALTER j TYPE JSONB", params! {});
        }
        let date = NaiveDate::from_ymd_opt(2024, 2, 29).unwrap();
        let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 123_456).unwrap();
        let moment = Utc.with_ymd_and_hms(1969, 12, 31, 23, 59, 59).unwrap();
        let uuid = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        let decimal: BigDecimal = "12345678901234567890.1234".parse().unwrap();
        let all = params! {
            "b" => true, "i" => i64::MIN, "s" => -7_i16, "f" => 0.1, "t" => "naïve '☃' :x $1 ?", "y" => vec![0_u8, 255, 39],
            "d" => date, "m" => time, "ts" => date.and_time(time), "tz" => moment, "u" => uuid, "n" => decimal.clone(),
            "j" => json!({ "a": [1, null, "ß"] }), "e" => "",
        };
        let none = all.names().fold(Params::new(), |params, name| params.with(name.to_owned(), Value::Null));
        let insert = "INSERT INTO kinds VALUES (:b, :i, :s, :f, :t, :y, :d, :m, :ts, :tz, :u, :n, :j, :e)";
        if backend() == Backend::Sqlite {
            // SQLite would convert the decimal to a float in a NUMERIC column.
            query("ALTER TABLE kinds DROP COLUMN n", params! {});
            query("ALTER TABLE kinds ADD COLUMN n TEXT", params! {});
            query("ALTER TABLE kinds DROP COLUMN e", params! {});
            query("ALTER TABLE kinds ADD COLUMN e TEXT", params! {});
            let insert = "INSERT INTO kinds (b, i, s, f, t, y, d, m, ts, tz, u, n, j, e) \
                          VALUES (:b, :i, :s, :f, :t, :y, :d, :m, :ts, :tz, :u, :n, :j, :e)";
            query(insert, all);
            query(insert, none);
        } else {
            query(insert, all);
            query(insert, none);
        }
        let rows = query("SELECT * FROM kinds ORDER BY b", params! {});
        let row = rows.iter().find(|row| !row["b"].is_null()).unwrap();
        assert!(row.get::<bool>("b").unwrap());
        assert_eq!(row.get::<i64>("i").unwrap(), i64::MIN);
        assert_eq!(row.get::<i32>("s").unwrap(), -7);
        assert_eq!(row.get::<f64>("f").unwrap(), 0.1);
        assert_eq!(row["t"], Value::from("naïve '☃' :x $1 ?"));
        assert_eq!(row.get::<Vec<u8>>("y").unwrap(), [0, 255, 39]);
        assert_eq!(row.get::<NaiveDate>("d").unwrap(), date);
        assert_eq!(row.get::<NaiveTime>("m").unwrap(), time);
        assert_eq!(row.get::<NaiveDateTime>("ts").unwrap(), date.and_time(time));
        assert_eq!(row.get::<DateTime<Utc>>("tz").unwrap(), moment);
        assert_eq!(row.get::<Uuid>("u").unwrap(), uuid);
        assert_eq!(row.get::<BigDecimal>("n").unwrap(), decimal);
        assert_eq!(row.get::<serde_json::Value>("j").unwrap(), json!({ "a": [1, null, "ß"] }));
        assert_eq!(row.get::<String>("e").unwrap(), "");
        let nulls = rows.iter().find(|row| row["b"].is_null()).unwrap();
        assert!(nulls.values().iter().all(Value::is_null), "{nulls:?}");
        assert_eq!(nulls.get::<Option<Uuid>>("u").unwrap(), None);
    });
}

fn placeholders_are_replaced_only_outside_literals_and_comments(database: &TestDatabase) {
    database.scope().run(|| {
        let rows = query(
            "SELECT ':x' AS a, :x AS b, /* :y */ :y || ':y' || :x AS \":c\" -- :z",
            params! { "x" => "1", "y" => "2" },
        );
        assert_eq!(rows[0].get::<String>("a").unwrap(), ":x");
        assert_eq!(rows[0].get::<String>("b").unwrap(), "1");
        assert_eq!(rows[0].get::<String>(":c").unwrap(), "2:y1");
        if backend() == Backend::Postgres {
            let sql = "SELECT $$ :x $$ AS a, :x::int + 1 AS b, ('{1,2,3}'::int[])[1:2]::text AS c, E'\\':x' AS d, :n::text AS e";
            let rows = query(sql, params! { "x" => "41", "n" => None::<i32> });
            let values: Vec<_> = rows[0].values().to_vec();
            assert_eq!(values, [Value::from(" :x "), Value::from(42), Value::from("{1,2}"), Value::from("':x"), Value::Null]);
        }
    });
}

fn repeated_statement_is_prepared_once(database: &TestDatabase) {
    database.scope().run(|| {
        let mut connection = DatabaseService::connection().unwrap();
        let (prepared, executed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&prepared), Arc::clone(&executed));
        connection.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
            InstrumentationEvent::CacheQuery { .. } => _ = counts.0.fetch_add(1, Ordering::Relaxed),
            InstrumentationEvent::StartQuery { .. } => _ = counts.1.fetch_add(1, Ordering::Relaxed),
            _ => {}
        });
        for number in 0..5 {
            let rows = connection.execute_query("SELECT :number + 1 AS next", params! { "number" => number }).unwrap();
            assert_eq!(rows[0].get::<i64>("next").unwrap(), i64::from(number) + 1);
        }
        assert_eq!((prepared.load(Ordering::Relaxed), executed.load(Ordering::Relaxed)), (1, 5));
        if connection.backend() == Backend::Postgres {
            // The server counts the same.
            let sql = "SELECT count(*) AS statements, sum(generic_plans + custom_plans) AS executions \
                       FROM pg_prepared_statements WHERE statement = 'SELECT $1 + 1 AS next'";
            let rows = connection.execute_query(sql, params! {}).unwrap();
            assert_eq!((rows[0].get::<i64>("statements").unwrap(), rows[0].get::<i64>("executions").unwrap()), (1, 5));
        }
    });
}

diesel::table! {
    pets (id) {
        id -> Integer,
        name -> Text,
    }
}

fn pet_names(connection: &mut Connection) -> Vec<String> {
    pets::table
        .select(pets::name)
        .order(pets::id)
        .load(connection)
        .unwrap()
}

fn diesel_dsl_works_on_every_connection(database: &TestDatabase) {
    database.scope().run(|| {
        query(
            "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL)",
            params! {},
        );
        let names: Vec<String> = DatabaseService::transaction(|connection| {
            diesel::insert_into(pets::table)
                .values((pets::id.eq(1), pets::name.eq("Rex")))
                .execute(connection)?;
            connection.execute_query(
                "INSERT INTO pets VALUES (:id, :name)",
                params! { "id" => 2, "name" => "Tom" },
            )?;
            Ok::<_, DbError>(pet_names(connection))
        })
        .unwrap();
        assert_eq!(names, ["Rex", "Tom"]);
        let mut connection = DatabaseService::connection().unwrap();
        connection
            .transaction(|connection| {
                diesel::delete(pets::table.find(1)).execute(connection)?;
                diesel::QueryResult::Ok(())
            })
            .unwrap();
        assert_eq!(pet_names(&mut connection), ["Tom"]);
    });
}

fn execute_many_inserts_all_rows_or_none(database: &TestDatabase) {
    database.scope().run(|| {
        query("CREATE TABLE numbers (id BIGINT PRIMARY KEY, label TEXT, score DOUBLE PRECISION)", params! {});
        let insert = "INSERT INTO numbers (id, label, score) VALUES (:id, lower(:label), :score)";
        let row = |id: i64| {
            // As in real rows, columns mix narrow and wide integers, and text and NULL.
            let id_or_wide = if id % 7 == 0 { id + (1 << 40) } else { id };
            params! { "id" => id_or_wide, "label" => (id % 3 != 0).then(|| format!("ROW {id}")), "score" => id as f64 / 2.0 }
        };
        let rows: Vec<_> = (0..1_300).map(row).collect();
        assert_eq!(DatabaseService::execute_many(insert, &rows).unwrap(), 1_300);
        let check = "SELECT count(*) AS rows, count(label) AS labels, min(label) AS first, count(DISTINCT id) AS ids FROM numbers";
        let counted = &query(check, params! {})[0];
        assert_eq!(counted.values(), [Value::from(1_300), Value::from(866), Value::from("row 1"), Value::from(1_300)]);

        // The last row repeats the second row of the table.
        let mut repeated: Vec<_> = (2_000..2_600).map(row).collect();
        repeated.push(row(1));
        assert!(DatabaseService::execute_many(insert, &repeated).is_err());
        let update = "UPDATE numbers SET score = :score WHERE id = :id";
        let updates: Vec<_> = [1, 2, 999_999].iter().map(|id| params! { "id" => *id, "score" => 1 }).collect();
        assert_eq!(DatabaseService::execute_many(update, &updates).unwrap(), 2);
        assert_eq!(DatabaseService::execute_many(update, &[]).unwrap(), 0);
        assert!(DatabaseService::execute_many(update, &[params! { "id" => 1 }]).is_err());
        assert_eq!(query("SELECT count(*) AS n FROM numbers", params! {})[0]["n"], Value::from(1_300));
    });
}

fn rows_have_column_names(database: &TestDatabase) {
    database.scope().run(|| {
        let rows = query("SELECT 1 AS \"Mixed Case\", 2 AS twice, 3 AS twice UNION ALL SELECT 4, 5, 6 ORDER BY 1", params! {});
        assert_eq!(rows[1].columns(), ["Mixed Case", "twice", "twice"]);
        assert_eq!(rows[1].get::<i64>("twice").unwrap(), 5);
        assert_eq!(rows[1]["none"], Value::Null);
        let missing = rows[0].get::<i64>("mixed case").unwrap_err();
        assert_eq!(missing.to_string(), r#"there is no column "mixed case" in the row; it has Mixed Case, twice, twice"#);
        let wrong = rows[0].get::<bool>("twice").unwrap_err();
        assert_eq!(wrong.to_string(), r#"column "twice" holds an integer, which cannot be read as bool"#);
        assert!(query("SELECT 1 AS one WHERE 1 = 0", params! {}).is_empty());
    });
}

#[test]
fn prepared_statement_works_after_a_table_change() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            query("CREATE TABLE t (n INTEGER)", params! {});
            query("INSERT INTO t VALUES (1)", params! {});
            assert_eq!(query("SELECT * FROM t", params! {})[0].columns(), ["n"]);
            query("ALTER TABLE t ADD COLUMN m TEXT", params! {});
            assert_eq!(
                query("SELECT * FROM t", params! {})[0].columns(),
                ["n", "m"]
            );
        });
}

#[test]
fn batches_are_prepared_once_and_match_single_row_inserts() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            query("CREATE TABLE t (n INTEGER, s TEXT)", params! {});
            for round in 0..20 {
                let rows: Vec<_> = (0..64)
                    .map(|row| params! { "n" => (row % 7 != round % 7).then_some(row), "s" => "x" })
                    .collect();
                assert_eq!(
                    DatabaseService::execute_many("INSERT INTO t (n, s) VALUES (:n, :s)", &rows)
                        .unwrap(),
                    64
                );
            }
            let sql =
                "SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'";
            assert_eq!(query(sql, params! {})[0].get::<i64>("n").unwrap(), 1);

            query("DELETE FROM t", params! {});
            let next = "INSERT INTO t (n, s) VALUES ((SELECT coalesce(max(n), 0) + 1 FROM t), :s)";
            DatabaseService::execute_many(
                next,
                &[
                    params! { "s" => "a" },
                    params! { "s" => "b" },
                    params! { "s" => "c" },
                ],
            )
            .unwrap();
            let numbers: Vec<i64> = query("SELECT n FROM t ORDER BY n", params! {})
                .iter()
                .map(|row| row.get("n").unwrap())
                .collect();
            assert_eq!(numbers, [1, 2, 3]);

            for copy in ["COPY t FROM STDIN", "COPY t TO STDOUT"] {
                assert!(matches!(
                    DatabaseService::execute_query(copy, params! {}),
                    Err(DbError::CopyUnsupported)
                ));
                assert!(DatabaseService::execute_many(copy, &[params! {}]).is_err());
            }
        });
}

#[test]
fn sqlite_counts_only_rows_changed_by_the_statement() {
    TestDatabase::sqlite().scope().run(|| {
        query("CREATE TABLE t (n INTEGER)", params! {});
        query("INSERT INTO t VALUES (1), (2), (3)", params! {});
        query("DELETE FROM t", params! {});
        assert_eq!(
            DatabaseService::execute_many("SELECT :n", &[params! { "n" => 1 }]).unwrap(),
            0
        );
        assert_eq!(
            DatabaseService::execute_many("CREATE TABLE IF NOT EXISTS t (n)", &[params! {}])
                .unwrap(),
            0
        );
    });
}

#[test]
fn unsupported_postgres_types_suggest_a_cast() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        query("CREATE TYPE mood AS ENUM ('sad', 'glad')", params! {});
        let sql = "SELECT 'glad'::mood AS mood, '{1,2}'::int[] AS list, '{1,2}'::int[]::text AS text, pg_sleep(0) AS nothing, \
                   'infinity'::timestamptz::text AS infinite, 7::int2 AS short, 1.5::float4 AS real, 'x'::\"char\" AS letter";
        let row = query(sql, params! {}).remove(0);
        assert_eq!(row["mood"], Value::from("glad"));
        assert_eq!(row["list"], Value::from([1, 2]));
        assert_eq!(row["text"], Value::from("{1,2}"));
        assert_eq!((&row["nothing"], &row["infinite"]), (&Value::Null, &Value::from("infinity")));
        assert_eq!((row.get::<i16>("short").unwrap(), row.get::<f32>("real").unwrap()), (7, 1.5));
        let range = query("SELECT int4range(1, 5) AS range", params! {}).remove(0);
        let error = range.get::<String>("range").unwrap_err();
        assert!(error.to_string().contains("cast in the statement, as in column::text"), "{error}");
        let infinite = query("SELECT 'infinity'::timestamptz AS infinite", params! {}).remove(0);
        assert!(matches!(infinite["infinite"], Value::Other { oid: 1184, .. }), "{infinite:?}");
        let repeated = DatabaseService::execute_query("SELECT :id::bigint AS id WHERE :id IS NULL", params! { "id" => None::<i64> });
        assert_eq!(repeated.unwrap().len(), 1, "a repeated parameter counts as one parameter");
    });
}

#[test]
fn values_outside_the_range_of_rust_types_are_returned_as_other() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for value in [
            "time '24:00'",
            "date 'infinity'",
            "date '-infinity'",
            "date '5874897-12-31'",
            "timestamp 'infinity'",
            "timestamp '-infinity'",
            "timestamp '294276-12-31 23:59:59.999999'",
            "timestamptz 'infinity'",
            "timestamptz '-infinity'",
            "timestamptz '294276-12-31 23:59:59.999999+00'",
            "numeric 'NaN'",
            "numeric 'Infinity'",
        ] {
            let sql = format!("SELECT {value} AS extreme, ({value})::text AS text, 7 AS ordinary");
            let rows = DatabaseService::execute_query(&sql, params! {}).unwrap();
            let extreme = &rows[0]["extreme"];
            assert!(matches!(extreme, Value::Other { .. }), "{value}: {extreme:?}");
            let error = rows[0].get::<NaiveDate>("extreme").unwrap_err();
            assert!(matches!(&error, DbError::WrongType { column, .. } if column == "extreme"), "{error}");
            assert!(error.to_string().contains("column::text"), "{error}");
            assert_eq!(rows[0].get::<i64>("ordinary").unwrap(), 7);
            rows[0].get::<String>("text").unwrap();
        }
        let sql = "SELECT date '4713-01-01 BC' AS oldest, date '0044-03-15 BC' AS ides, timestamp '4713-01-01 00:00:00 BC' AS moment, time '23:59:59.999999' AS late";
        let row = &DatabaseService::execute_query(sql, params! {}).unwrap()[0];
        assert_eq!(row.get::<NaiveDate>("oldest").unwrap().year(), -4712);
        assert_eq!(row.get::<NaiveDate>("ides").unwrap(), NaiveDate::from_ymd_opt(-43, 3, 15).unwrap());
        assert_eq!(row.get::<NaiveDateTime>("moment").unwrap().year(), -4712);
        assert_eq!(row.get::<NaiveTime>("late").unwrap().to_string(), "23:59:59.999999");
    });
}
