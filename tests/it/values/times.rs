//! Times: their form on SQLite, leap seconds, fractions and far years.

use std::ops::ControlFlow;

use chrono::{DateTime, Days, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Timelike, Utc};
use db_service::{DatabaseService, DbError, FromValue, Row, Value, params, values};
use diesel::prelude::*;
use tests::TestDatabase;
use user_repo::{ListUsers, UserRepository};

on_both_backends!(
    default_timestamp_is_found_by_its_value,
    leap_seconds_are_exact_or_refused_on_every_path,
    fractions_are_cut_alike_on_every_path,
    far_years_are_read_back,
    empty_char_is_an_empty_text,
);

fn execute(sql: &str) -> Vec<Row> {
    DatabaseService::execute_query(sql, params! {}).unwrap()
}

fn is_postgres(database: &TestDatabase) -> bool {
    database.url().starts_with("postgres")
}

fn moment(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

diesel::table! {
    times (id) { id -> BigInt, clock -> Nullable<Time>, local -> Nullable<Timestamp>, moment -> Nullable<Timestamptz>, }
}

/// A value for each column of `times`.
type Times = (NaiveTime, NaiveDateTime, DateTime<Utc>);

fn create_times(database: &TestDatabase) {
    let [clock, local, moment] = match is_postgres(database) {
        true => ["time", "timestamp", "timestamptz"],
        false => ["TEXT"; 3],
    };
    execute(&format!(
        "CREATE TABLE times (id INTEGER DEFAULT 1, clock {clock}, local {local}, moment {moment})"
    ));
}

/// A way to write a value into a column of `times`.
type Path = (&'static str, fn(&'static str, Value) -> Result<(), DbError>);

const PATHS: [Path; 6] = [
    ("execute_query", |column, value| {
        let sql = format!("INSERT INTO times ({column}) VALUES (:x)");
        DatabaseService::execute_query(&sql, params! { "x" => value }).map(drop)
    }),
    ("execute_many", |column, value| {
        let sql = format!("INSERT INTO times ({column}) VALUES (:x)");
        DatabaseService::execute_many(&sql, &[params! { "x" => value }]).map(drop)
    }),
    ("execute_many of single rows", |column, value| {
        let sql = format!("INSERT INTO times ({column}) SELECT :x");
        DatabaseService::execute_many(&sql, &[params! { "x" => value }]).map(drop)
    }),
    ("bulk_insert", |column, value| {
        DatabaseService::bulk_insert("times", &[column], [[value]]).map(drop)
    }),
    // PostgreSQL gets INSERTs for a view.
    ("bulk_insert into a view", |column, value| {
        execute("DROP VIEW IF EXISTS all_times");
        execute("CREATE VIEW all_times AS SELECT * FROM times");
        match DatabaseService::bulk_insert("all_times", &[column], [[value.clone()]]) {
            // A view of SQLite takes no rows.
            Err(DbError::Query(_)) => {
                DatabaseService::bulk_insert("times", &[column], [[value]]).map(drop)
            }
            result => result.map(drop),
        }
    }),
    ("for_each_row", |column, value| {
        let sql = format!("INSERT INTO times ({column}) VALUES (:x) RETURNING {column}");
        DatabaseService::for_each_row(&sql, params! { "x" => value }, |_| {
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
    }),
];

fn write_by_dsl((clock, local, moment): Times) -> [Result<(), DbError>; 3] {
    let connection = &mut DatabaseService::connection().unwrap();
    let insert = diesel::insert_into(times::table);
    [
        insert
            .values(times::clock.eq(clock))
            .execute(connection)
            .map(drop),
        insert
            .values(times::local.eq(local))
            .execute(connection)
            .map(drop),
        insert
            .values(times::moment.eq(moment))
            .execute(connection)
            .map(drop),
    ]
    .map(|result| result.map_err(DbError::from))
}

/// Writes each time on each path, and asserts that it is read as `expected`, or refused.
#[track_caller]
fn assert_times(times: Times, expected: Option<Times>) {
    #[track_caller]
    fn assert_read<T: FromValue + PartialEq + std::fmt::Debug>(
        path: &str,
        column: &str,
        written: Result<(), DbError>,
        expected: Option<T>,
    ) {
        let rows = execute(&format!(
            "SELECT {column} AS x FROM times WHERE {column} IS NOT NULL"
        ));
        match (written, expected) {
            (Ok(()), Some(expected)) => {
                assert_eq!(rows[0].get::<T>("x").unwrap(), expected, "{path}");
            }
            (Err(DbError::UnstorableValue { problem, .. }), None) => {
                assert!(problem.contains("leap second"), "{path}: {problem}");
                assert!(rows.is_empty(), "{path}: {column}");
            }
            (written, expected) => panic!("{path}: {column}: {written:?} and not {expected:?}"),
        }
        execute("DELETE FROM times");
    }

    let (clock, local, moment) = times;
    let [expected_clock, expected_local, expected_moment] = [expected; 3];
    for (path, write) in PATHS {
        let clock = write("clock", clock.into());
        assert_read(path, "clock", clock, expected_clock.map(|times| times.0));
        let local = write("local", local.into());
        assert_read(path, "local", local, expected_local.map(|times| times.1));
        let moment = write("moment", moment.into());
        assert_read(path, "moment", moment, expected_moment.map(|times| times.2));
    }
    let [clock, local, moment] = write_by_dsl(times);
    for (column, result) in [("clock", &clock), ("local", &local), ("moment", &moment)] {
        assert_eq!(
            result.is_ok(),
            expected.is_some(),
            "the DSL: {column}: {result:?}"
        );
    }
    let row = &execute(
        "SELECT max(clock) AS clock, max(local) AS local, max(moment) AS moment FROM times",
    )[0];
    let read = (row.get("clock"), row.get("local"), row.get("moment"));
    match expected {
        Some(expected) => {
            assert_eq!(
                (read.0.unwrap(), read.1.unwrap(), read.2.unwrap()),
                expected,
                "the DSL"
            );
        }
        None => assert!(execute("SELECT id FROM times").is_empty()),
    }
    execute("DELETE FROM times");
}

fn times_of(moment: DateTime<Utc>) -> Times {
    (moment.time(), moment.naive_utc(), moment)
}

fn default_timestamp_is_found_by_its_value(database: &TestDatabase) {
    let is_postgres = is_postgres(database);
    database.scope().run(|| {
        let defaults: &[&str] = match is_postgres {
            true => &["timestamp DEFAULT now()", "timestamptz DEFAULT now()"],
            false => &[
                "TEXT DEFAULT CURRENT_TIMESTAMP",
                "TIMESTAMP DEFAULT CURRENT_TIMESTAMP",
                "TEXT DEFAULT (replace(strftime('%Y-%m-%d %H:%M:%f'), '.000', ''))",
            ],
        };
        for column in defaults {
            execute(&format!("CREATE TABLE t (id INTEGER, at {column})"));
            execute("INSERT INTO t (id) VALUES (1)");
            let row = &execute("SELECT at FROM t")[0];
            let read: Vec<Value> = match *column {
                "timestamp DEFAULT now()" => vec![row.get::<NaiveDateTime>("at").unwrap().into()],
                "timestamptz DEFAULT now()" => vec![row.get::<DateTime<Utc>>("at").unwrap().into()],
                _ => vec![
                    row.get::<NaiveDateTime>("at").unwrap().into(),
                    row.get::<DateTime<Utc>>("at").unwrap().into(),
                ],
            };
            for read in read {
                let sql = "SELECT id FROM t WHERE at = :at";
                let found = DatabaseService::execute_query(sql, params! { "at" => read }).unwrap();
                assert_eq!(found.len(), 1, "{column}");
            }
            execute("DROP TABLE t");
        }
    });
}

/// Each fraction is written with 0, 3, 6 or 9 digits, and the texts sort like the times, together with those of an
/// earlier form that had 6 digits and an offset.
#[test]
fn texts_of_times_sort_like_times_on_sqlite() {
    let mut random = fastrand::Rng::with_seed(14);
    let second = moment("2026-11-28T10:00:00Z");
    TestDatabase::sqlite().scope().run(|| {
        execute("CREATE TABLE t (id INTEGER, at TEXT)");
        let mut moments = vec![second];
        for unit in [1, 1_000, 1_000_000, 1_000_000_000] {
            for _ in 0..25 {
                let nanoseconds = random.i64(0..3_000_000_000) / unit * unit;
                moments.push(second + chrono::Duration::nanoseconds(nanoseconds));
            }
        }
        moments.sort();
        moments.dedup();
        for (at, id) in moments.iter().zip(0..) {
            let is_old = at.nanosecond() % 1_000 == 0 && random.bool();
            let at: Value = match is_old {
                true => at.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string().into(),
                false => (*at).into(),
            };
            let insert = "INSERT INTO t VALUES (:id, :at)";
            DatabaseService::execute_query(insert, params! { "id" => id, "at" => at }).unwrap();
        }
        let rows = execute("SELECT id, at FROM t ORDER BY at");
        let read: Vec<DateTime<Utc>> = rows.iter().map(|row| row.get("at").unwrap()).collect();
        assert_eq!(read, moments);
        let text = |at: &str| -> String {
            let params = params! { "at" => moment(at) };
            DatabaseService::execute_query("SELECT :at AS at", params).unwrap()[0]
                .get("at")
                .unwrap()
        };
        assert_eq!(text("2026-11-28T10:00:00Z"), "2026-11-28 10:00:00");
        assert_eq!(text("2026-11-28T10:00:00.5Z"), "2026-11-28 10:00:00.500");
        assert_eq!(
            text("2026-11-28T10:00:00.000000001Z"),
            "2026-11-28 10:00:00.000000001"
        );
        for old in [
            "2026-11-28 10:00:00.000000+00:00",
            "2026-11-28T10:00:00",
            "2026-11-28T12:00:00.000+02:00",
        ] {
            let row = &execute(&format!("SELECT '{old}' AS at"))[0];
            assert_eq!(row.get::<DateTime<Utc>>("at").unwrap(), second, "{old}");
        }
    });
}

/// Users that an earlier version of the service wrote are read, and sorted among newer ones.
#[test]
fn users_with_earlier_timestamps_are_read_and_sorted() {
    TestDatabase::sqlite().scope().run(|| {
        let mut expected = Vec::new();
        for number in 0..6 {
            let name = format!("user{number}");
            let user = UserRepository::create_user(&name, &format!("{name}@x"), "secret").unwrap();
            let at = user.created_at + chrono::Duration::milliseconds(500 * (number - 6));
            let stored: Value = match number % 2 {
                0 => at.format("%Y-%m-%d %H:%M:%S%.6f+00:00").to_string().into(),
                _ => at.into(),
            };
            let sql = "UPDATE users SET created_at = :at, updated_at = :at WHERE id = :id";
            let params = params! { "at" => stored, "id" => user.id };
            DatabaseService::execute_query(sql, params).unwrap();
            expected.insert(0, (user.id, at));
        }
        expected.sort_by_key(|(id, at)| std::cmp::Reverse((*at, *id)));
        let users = UserRepository::list_users(ListUsers::default()).unwrap();
        let listed: Vec<_> = users
            .iter()
            .map(|user| (user.id, user.created_at))
            .collect();
        assert_eq!(listed, expected);
        let stats = UserRepository::get_user_stats().unwrap();
        assert_eq!(stats.first_user_created, expected.last().map(|(_, at)| *at));
        assert_eq!(stats.last_user_created, expected.first().map(|(_, at)| *at));
    });
}

fn leap_seconds_are_exact_or_refused_on_every_path(database: &TestDatabase) {
    let is_postgres = is_postgres(database);
    database.scope().run(|| {
        create_times(database);
        for leap in [
            "2016-12-31T23:59:60.500Z",
            "1998-12-31T23:59:60Z",
            "2015-06-30T10:20:60.000000001Z",
        ] {
            let times = times_of(moment(leap));
            assert!(times.0.nanosecond() >= 1_000_000_000);
            assert_times(times, (!is_postgres).then_some(times));
        }
        // A text denotes a leap second only after the second 59.
        let odd = moment("2016-12-31T23:59:30Z")
            .with_nanosecond(1_500_000_000)
            .unwrap();
        assert_times(times_of(odd), None);
        let list = |value: Value| params! { "x" => Value::Array(vec![Value::Null, value]) };
        let leap: Value = moment("2016-12-31T23:59:60.500Z").into();
        let result = DatabaseService::execute_query("SELECT 1 WHERE now() = ANY(:x)", list(leap));
        assert!(
            !is_postgres || matches!(result, Err(DbError::UnstorableValue { .. })),
            "{result:?}"
        );
    });
}

fn fractions_are_cut_alike_on_every_path(database: &TestDatabase) {
    let is_postgres = is_postgres(database);
    database.scope().run(|| {
        create_times(database);
        for moment in [
            moment("2026-11-28T10:00:00.123456999Z"),
            // PostgreSQL counts from 2000, so the numbers of these are negative.
            moment("1999-12-31T23:59:59.999999999Z"),
            moment("1969-12-31T23:59:59.000000001Z"),
            moment("0001-01-01T00:00:00.000000999Z"),
            NaiveDate::from_ymd_opt(-43, 3, 15)
                .unwrap()
                .and_hms_nano_opt(12, 0, 0, 123_456_789)
                .unwrap()
                .and_utc(),
        ] {
            let kept = if is_postgres {
                moment.trunc_subsecs(6)
            } else {
                moment
            };
            assert_times(times_of(moment), Some(times_of(kept)));
        }
    });
}

fn far_years_are_read_back(database: &TestDatabase) {
    let mut years = vec![-4712, -1, 0, 1, 999, 9999, 10_000, 262_141];
    if !is_postgres(database) {
        years.extend([-262_142, -10_000]);
    }
    database.scope().run(|| {
        create_times(database);
        execute(&format!(
            "CREATE TABLE days (day {})",
            if is_postgres(database) {
                "date"
            } else {
                "TEXT"
            }
        ));
        for year in years {
            let day = NaiveDate::from_ymd_opt(year, 2, 28).unwrap() + Days::new(1);
            let sql = "INSERT INTO days VALUES (:day) RETURNING day";
            let rows = DatabaseService::execute_query(sql, params! { "day" => day }).unwrap();
            assert_eq!(rows[0].get::<NaiveDate>("day").unwrap(), day);
            let moment = day.and_hms_micro_opt(23, 59, 59, 7).unwrap().and_utc();
            assert_times(times_of(moment), Some(times_of(moment)));
        }
        if !is_postgres(database) {
            for moment in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC] {
                assert_times(times_of(moment), Some(times_of(moment)));
            }
        }
    });
}

fn empty_char_is_an_empty_text(database: &TestDatabase) {
    if !is_postgres(database) {
        return;
    }
    database.scope().run(|| {
        let row =
            &execute(r#"SELECT ''::"char" AS none, 'x'::"char" AS x, '\351'::"char" AS high"#)[0];
        assert_eq!(row.get::<String>("none").unwrap(), "");
        assert_eq!(row.get::<String>("x").unwrap(), "x");
        let high: Value = row.get("high").unwrap();
        assert!(
            matches!(&high, Value::Other { bytes, .. } if bytes == &[0o351]),
            "{high:?}"
        );
        execute(r#"CREATE TABLE t (x "char")"#);
        DatabaseService::bulk_insert("t", &["x"], [values![""], values!["x"]]).unwrap();
        let rows = execute("SELECT x FROM t ORDER BY x::text");
        let read: Vec<String> = rows.iter().map(|row| row.get("x").unwrap()).collect();
        assert_eq!(read, ["", "x"]);
    });
}
