//! Lists as parameters of `IN (:ids)`, `NOT IN (:ids)` and `= ANY (:ids)`.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, Utc};
use db_service::{Backend, DatabaseService, DbError, Params, Row, Value, params};
use tests::TestDatabase;
use uuid::Uuid;

on_both_backends!(
    lists_find_their_elements,
    empty_lists_and_nulls_have_the_meaning_of_sql,
    scalars_keep_their_meaning,
    lists_of_each_type_match_what_was_stored,
    operators_around_a_list_keep_their_precedence,
    lists_work_on_each_path,
    one_statement_is_prepared_for_all_lengths,
    rows_are_no_elements,
);

fn execute(sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params)
}

fn run(sql: &str) {
    execute(sql, params! {}).unwrap();
}

fn ids(sql: &str, params: Params) -> Vec<i64> {
    let rows = execute(sql, params).unwrap_or_else(|error| panic!("{sql}: {error}"));
    rows.iter().map(|row| row.get("id").unwrap()).collect()
}

fn numbers(count: i64) {
    run("CREATE TABLE t (id BIGINT PRIMARY KEY, name TEXT)");
    let rows = (1..=count).map(|id| db_service::values![id, format!("name {id}")]);
    DatabaseService::bulk_insert("t", &["id", "name"], rows).unwrap();
}

const IN: &str = "SELECT id FROM t WHERE id IN (:ids) ORDER BY id";
const NOT_IN: &str = "SELECT id FROM t WHERE id NOT IN (:ids) ORDER BY id";
const ANY: &str = "SELECT id FROM t WHERE id = ANY(:ids) ORDER BY id";

fn lists_find_their_elements(database: &TestDatabase) {
    database.scope().run(|| {
        numbers(5);
        for list in [
            Value::from(vec![2, 4, 9]),
            Value::from([2_i64, 4]),
            Value::from(&[2_i16, 4][..]),
            Value::from([Some(4), Some(2)]),
        ] {
            assert_eq!(ids(IN, params! { "ids" => list.clone() }), [2, 4]);
            assert_eq!(ids(ANY, params! { "ids" => list.clone() }), [2, 4]);
            assert_eq!(ids(NOT_IN, params! { "ids" => list }), [1, 3, 5]);
        }
        let all: Vec<i64> = (1..=100_000).collect();
        assert_eq!(ids(IN, params! { "ids" => all }), [1, 2, 3, 4, 5]);
        let names = params! { "names" => ["name 1", "name 5", "it's", "\"", "\\", ""] };
        assert_eq!(
            ids("SELECT id FROM t WHERE name IN (:names) ORDER BY id", names),
            [1, 5]
        );
        let comment = "SELECT id FROM t WHERE id not /* x */ in -- y\n( :ids ) AND id IN (:ids2)";
        assert_eq!(
            ids(comment, params! { "ids" => [1, 2], "ids2" => [2, 3] }),
            [3]
        );
        let twice = "SELECT id FROM t WHERE id IN (:ids) OR id + 1 IN (:ids) ORDER BY id";
        assert_eq!(ids(twice, params! { "ids" => [3] }), [2, 3]);
        execute(
            "UPDATE t SET name = 'x' WHERE id IN (:ids)",
            params! { "ids" => [1, 2] },
        )
        .unwrap();
        execute(
            "DELETE FROM t WHERE name IN (:names) AND id IN (:ids)",
            params! { "ids" => [1], "names" => ["x"] },
        )
        .unwrap();
        assert_eq!(
            ids("SELECT id FROM t ORDER BY id", params! {}),
            [2, 3, 4, 5]
        );
    });
}

fn empty_lists_and_nulls_have_the_meaning_of_sql(database: &TestDatabase) {
    database.scope().run(|| {
        numbers(3);
        let empty = || Value::from(Vec::<i64>::new());
        let nulls = || Value::from([None::<i64>, None]);
        let some = || Value::from([Some(1), None]);
        assert_eq!(ids(IN, params! { "ids" => empty() }), [0; 0]);
        assert_eq!(ids(ANY, params! { "ids" => empty() }), [0; 0]);
        assert_eq!(ids(NOT_IN, params! { "ids" => empty() }), [1, 2, 3]);
        assert_eq!(ids(IN, params! { "ids" => nulls() }), [0; 0]);
        assert_eq!(ids(NOT_IN, params! { "ids" => nulls() }), [0; 0]);
        assert_eq!(ids(IN, params! { "ids" => some() }), [1]);
        assert_eq!(ids(NOT_IN, params! { "ids" => some() }), [0; 0]);
        let names = "SELECT id FROM t WHERE name IN (:names)";
        assert_eq!(
            ids(names, params! { "names" => Vec::<String>::new() }),
            [0; 0]
        );
        assert_eq!(
            ids(names, params! { "names" => [None, Some("name 2")] }),
            [2]
        );
    });
}

fn scalars_keep_their_meaning(database: &TestDatabase) {
    database.scope().run(|| {
        numbers(3);
        assert_eq!(ids(IN, params! { "ids" => 2 }), [2]);
        assert_eq!(ids(IN, params! { "ids" => [2, 3] }), [2, 3]);
        assert_eq!(ids(NOT_IN, params! { "ids" => 2 }), [1, 3]);
        assert_eq!(
            ids(
                "SELECT id FROM t WHERE id IN (:a, :b) ORDER BY id",
                params! { "a" => 1, "b" => 3 }
            ),
            [1, 3]
        );
        let name = "SELECT id FROM t WHERE name IN (:name)";
        assert_eq!(ids(name, params! { "name" => "name 2" }), [2]);
        assert_eq!(ids(name, params! { "name" => ["name 2"] }), [2]);
        assert_eq!(ids(name, params! { "name" => "name 3" }), [3]);
        assert_eq!(ids(name, params! { "name" => None::<&str> }), [0; 0]);
        // A list among other elements is none.
        let mixed = execute(
            "SELECT id FROM t WHERE id IN (:ids, 5)",
            params! { "ids" => [1] },
        );
        let elsewhere = execute("SELECT id FROM t WHERE id = :ids", params! { "ids" => [1] });
        for found in [mixed, elsewhere] {
            match DatabaseService::connection().unwrap().backend() {
                Backend::Sqlite => assert!(
                    matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "ids"),
                    "{found:?}"
                ),
                _ => assert!(matches!(found, Err(DbError::Query(_))), "{found:?}"),
            }
        }
    });
}

fn lists_of_each_type_match_what_was_stored(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    let of =
        |postgres: &'static str, sqlite: &'static str| if is_postgres { postgres } else { sqlite };
    let day = |day| NaiveDate::from_ymd_opt(2026, 11, day).unwrap();
    let moment: DateTime<Utc> = "2026-11-28T12:00:00Z".parse().unwrap();
    let later: DateTime<Utc> = "2026-11-28T12:00:00.123456Z".parse().unwrap();
    let decimal = |text: &str| text.parse::<BigDecimal>().unwrap();
    // The type of the column, and its values. The first two are searched for.
    let cases: Vec<(&str, Vec<Value>)> = vec![
        (
            "BIGINT",
            db_service::values![i64::MIN, i64::MAX, 0, i64::MAX - 1].into(),
        ),
        (
            of("BOOLEAN", "BOOLEAN"),
            db_service::values![true, None::<bool>, false].into(),
        ),
        (
            of("DOUBLE PRECISION", "REAL"),
            db_service::values![0.1, 1e300, 0.2, f64::INFINITY].into(),
        ),
        (
            of("DOUBLE PRECISION", "REAL"),
            db_service::values![
                f64::NEG_INFINITY,
                f64::INFINITY,
                5e-324,
                0.30000000000000004
            ]
            .into(),
        ),
        (
            "TEXT",
            db_service::values!["it's", "\"\\\n", "", "😀"].into(),
        ),
        (
            of("UUID", "TEXT"),
            db_service::values![Uuid::nil(), Uuid::max(), Uuid::from_u128(7)].into(),
        ),
        (
            of("UUID", "TEXT"),
            db_service::values![
                Uuid::nil().to_string(),
                Uuid::max().to_string(),
                Uuid::from_u128(7)
            ]
            .into(),
        ),
        ("DATE", db_service::values![day(1), day(2), day(3)].into()),
        (
            "DATE",
            db_service::values!["2026-11-01", "2026-11-02", day(3)].into(),
        ),
        (
            of("TIMESTAMPTZ", "TEXT"),
            db_service::values![moment, later, moment - chrono::Duration::days(1)].into(),
        ),
        (
            "TIMESTAMP",
            db_service::values![
                moment.naive_utc(),
                later.naive_utc(),
                day(1).and_hms_opt(1, 2, 3).unwrap()
            ]
            .into(),
        ),
        (
            "NUMERIC",
            db_service::values![decimal("1.50"), decimal("-7"), decimal("0.1"), 3].into(),
        ),
        (
            "NUMERIC",
            db_service::values![decimal("1.50"), 3, 2.5].into(),
        ),
        (
            of("BYTEA", "BLOB"),
            db_service::values![&[0_u8, 255][..], &[7_u8][..], &[][..] as &[u8]].into(),
        ),
        (
            of("MOOD", "TEXT"),
            db_service::values!["sad", "glad", "so so"].into(),
        ),
        (
            of("CHAR(5)", "TEXT"),
            db_service::values!["ab", "abc", "b"].into(),
        ),
    ];
    database.scope().run(|| {
        if is_postgres {
            run("CREATE TYPE mood AS ENUM ('sad', 'glad', 'so so')");
        }
        for (name, values) in cases {
            run(&format!("CREATE TABLE t (id INTEGER, c {name})"));
            for (value, id) in values.iter().zip(0..) {
                let params = params! { "id" => id, "c" => value.clone() };
                execute("INSERT INTO t VALUES (:id, :c)", params).unwrap();
            }
            let expected: Vec<i64> = values[..2]
                .iter()
                .zip(0..)
                .filter(|(value, _)| !value.is_null())
                .map(|(_, id)| id)
                .collect();
            for sql in [
                "SELECT id FROM t WHERE c IN (:c) ORDER BY id",
                "SELECT id FROM t WHERE c = ANY (:c) ORDER BY id",
            ] {
                for _ in 0..2 {
                    let found = ids(sql, params! { "c" => Value::Array(values[..2].to_vec()) });
                    assert_eq!(found, expected, "{name}: {:?}", &values[..2]);
                }
            }
            run("DROP TABLE t");
        }
    });
}

fn operators_around_a_list_keep_their_precedence(database: &TestDatabase) {
    database.scope().run(|| {
        let truth = |expression: &str| {
            let sql = format!("SELECT CASE WHEN {expression} THEN 1 ELSE 0 END AS id");
            ids(&sql, params! { "ids" => [2, 3] })
        };
        let is_postgres = database.url().starts_with("postgres");
        for (expression, expected) in [
            ("1 + 1 IN (:ids)", 1),
            ("1 IN (:ids) OR 2 IN (:ids)", 1),
            ("NOT 2 IN (:ids)", 0),
            ("NOT 1 IN (:ids) AND 4 NOT IN (:ids)", 1),
            ("2 IN (:ids) IS NOT NULL", 1),
            ("2 * 2 NOT IN (:ids)", 1),
        ] {
            assert_eq!(truth(expression), [expected], "{expression}");
        }
        if is_postgres {
            assert_eq!(truth("true = 2 IN (:ids)"), [1]);
            assert_eq!(truth("2 IN (:ids) = true"), [1]);
            assert_eq!(truth("false <> 2 IN (:ids)"), [1]);
        }
    });
}

fn lists_work_on_each_path(database: &TestDatabase) {
    database.scope().run(|| {
        numbers(5);
        let update = "UPDATE t SET name = 'x' WHERE id IN (:ids)";
        let rows = [
            params! { "ids" => [1, 2] },
            params! { "ids" => Vec::<i64>::new() },
            params! { "ids" => 5 },
        ];
        assert_eq!(DatabaseService::execute_many(update, &rows).unwrap(), 3);
        let mut found = Vec::new();
        DatabaseService::for_each_row(IN, params! { "ids" => [1, 5] }, |row| {
            found.push(row.get::<i64>("id")?);
            Ok::<_, DbError>(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(found, [1, 5]);
        let read: Result<_, DbError> = DatabaseService::read(|connection| {
            connection.execute_query(IN, params! { "ids" => [4] })
        });
        assert_eq!(read.unwrap().len(), 1);
        let in_transaction: Result<_, DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query(
                "DELETE FROM t WHERE name NOT IN (:names)",
                params! { "names" => ["x"] },
            )?;
            connection.execute_query(IN, params! { "ids" => [1, 2, 3, 4, 5] })
        });
        assert_eq!(in_transaction.unwrap().len(), 3);
    });
}

fn one_statement_is_prepared_for_all_lengths(database: &TestDatabase) {
    use diesel::connection::InstrumentationEvent;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    database.scope().run(|| {
        numbers(3);
        let mut connection = DatabaseService::connection().unwrap();
        // The types of the parameters are asked for once.
        let first = params! { "ids" => [1], "names" => ["a"] };
        let sql = "SELECT id FROM t WHERE id IN (:ids) AND name NOT IN (:names)";
        connection.execute_query(sql, first).unwrap();
        let prepared = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&prepared);
        diesel::Connection::set_instrumentation(
            &mut *connection,
            move |event: InstrumentationEvent<'_>| {
                if matches!(event, InstrumentationEvent::CacheQuery { .. }) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            },
        );
        for length in [0, 1, 2, 10, 1000] {
            let ids: Vec<i64> = (0..length).map(|id| id << 31).collect();
            let names: Vec<_> = (0..length).map(|id| id.to_string()).collect();
            connection
                .execute_query(sql, params! { "ids" => ids, "names" => names })
                .unwrap();
        }
        assert_eq!(
            prepared.load(Ordering::Relaxed),
            0,
            "the first call has prepared it"
        );
    });
}

fn rows_are_no_elements(database: &TestDatabase) {
    database.scope().run(|| {
        numbers(3);
        for sql in [
            "SELECT id FROM t WHERE (id, name) IN (:ids)",
            "SELECT id FROM t WHERE (id, name) NOT IN (:ids)",
        ] {
            let found = execute(sql, params! { "ids" => [1] });
            assert!(
                matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "ids"),
                "{found:?}"
            );
        }
    });
}

#[test]
fn lists_of_typed_elements_are_compared_as_single_parameters() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (id INTEGER, d DATE, s SMALLINT, w TIMESTAMP)");
        run("INSERT INTO t VALUES (1, '2026-01-01', 7, '2026-01-01 00:00')");
        let day = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap();
        let morning = day.and_hms_opt(10, 0, 0).unwrap();
        for (column, list, expected) in [
            ("d", Value::from([morning]), false),
            ("d", Value::from([day]), true),
            ("d", Value::from([day.and_hms_opt(0, 0, 0).unwrap()]), true),
            ("w", Value::from([day]), true),
            ("id", Value::from([1, 3_000_000_000_i64]), true),
            ("s", Value::from([7, 70_000]), true),
            ("s", Value::from([i64::MAX]), false),
        ] {
            let sql = format!("SELECT id FROM t WHERE {column} IN (:list)");
            let found = ids(&sql, params! { "list" => list.clone() });
            assert_eq!(!found.is_empty(), expected, "{column} IN {list:?}");
        }
    });
}

#[test]
fn lists_of_sqlite_find_what_the_same_parameters_find() {
    TestDatabase::sqlite().scope().run(|| {
        run("CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT, n NUMERIC, k TEXT COLLATE NOCASE, r REAL, b, i INTEGER)");
        run("INSERT INTO t VALUES (1, '5', '5', 'Ab', 0.1, x'01', 5), (2, '05', 5.5, 'ab', 5, '5', 6), \
             (3, 'x', 'x', 'B', -0.0, 5, 7), (4, '5.0', 9007199254740993, 'q', 1e300, '5.0', 9223372036854775807)");
        let lists: Vec<Vec<Value>> = vec![
            db_service::values![5].into(),
            db_service::values!["5"].into(),
            db_service::values![5.0].into(),
            db_service::values!["5.0", "5.5", "x"].into(),
            db_service::values!["AB", "b"].into(),
            db_service::values![0.1, -0.0, 1e300].into(),
            db_service::values!["0.1", "1e300"].into(),
            db_service::values![9_007_199_254_740_992_i64, i64::MAX].into(),
            db_service::values!["9007199254740993", None::<i32>].into(),
        ];
        for column in ["id", "x", "n", "k", "r", "b", "i"] {
            for list in &lists {
                for operator in ["IN", "NOT IN"] {
                    let names: Vec<String> = (0..list.len()).map(|number| format!("p{number}")).collect();
                    let single = format!("SELECT id FROM t WHERE {column} {operator} (:{}) ORDER BY id", names.join(", :"));
                    let singles = names.into_iter().zip(list).fold(Params::new(), |params, (name, value)| params.with(name, value.clone()));
                    let sql = format!("SELECT id FROM t WHERE {column} {operator} (:list) ORDER BY id");
                    let found = ids(&sql, params! { "list" => Value::Array(list.clone()) });
                    assert_eq!(found, ids(&single, singles), "{column} {operator} {list:?}");
                }
            }
        }
    });
}

#[test]
fn lists_that_sqlite_cannot_compare_exactly_are_refused() {
    TestDatabase::sqlite().scope().run(|| {
        numbers(3);
        let bytes_and_text = Value::Array(db_service::values![&[1_u8][..], "x"].into());
        for list in [
            Value::from([f64::NAN]),
            Value::from(["a\0b"]),
            Value::from(vec![vec![1]]),
            bytes_and_text,
        ] {
            let found = execute(IN, params! { "ids" => list.clone() });
            assert!(
                matches!(&found, Err(DbError::UnstorableValue { name, .. }) if name == "ids"),
                "{list:?}: {found:?}"
            );
        }
    });
}
