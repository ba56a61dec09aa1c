//! `Value::Other`: a value of PostgreSQL that Rust has no type for is written back as it was read.

use db_service::{DatabaseService, DbError, Value, params};
use tests::TestDatabase;

fn run(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

/// Values of types that have no variant of their own, and special values of others.
const VALUES: [(&str, &str); 25] = [
    ("numeric", "NaN"),
    ("numeric", "-Infinity"),
    ("interval", "1 mon 2 days 03:04:05.000006"),
    ("inet", "192.168.0.1/24"),
    ("cidr", "2001:db8::/32"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("money", "1.23"),
    ("int4range", "[1,5)"),
    ("int4range", "empty"),
    ("nummultirange", "{[1.5,2.5],(3,)}"),
    ("tstzrange", "[\"2026-11-28 00:00:00+00\",)"),
    ("timetz", "12:30:00+02"),
    ("time", "24:00:00"),
    ("date", "infinity"),
    ("timestamp", "-infinity"),
    ("timestamptz", "294276-12-31 23:59:59.999999+00"),
    ("bit(5)", "10110"),
    ("bit varying", ""),
    ("point", "(1.5,-2)"),
    ("tsvector", "'a':1 'cat':2"),
    ("jsonpath", "$.\"a\"[*]"),
    ("pair", "(1,\"it's\")"),
    ("spans", "[a,b)"),
    ("pair[]", "{\"(1,a)\",NULL}"),
    ("xid", "7"),
];

#[test]
fn values_without_a_type_in_rust_are_written_back_unchanged() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TYPE pair AS (a integer, b text)");
        run("CREATE TYPE spans AS RANGE (subtype = text)");
        for (name, text) in VALUES {
            run(&format!("CREATE TABLE t (id integer, c {name})"));
            run("CREATE VIEW v AS SELECT * FROM t");
            run(&format!("INSERT INTO t VALUES (0, '{}')", text.replace('\'', "''")));
            let read = || {
                let rows = DatabaseService::execute_query("SELECT c FROM t WHERE id = 0", params! {});
                rows.unwrap()[0]["c"].clone()
            };
            let value = read();
            assert!(matches!(value, Value::Other { .. }), "{name}: {value:?}");
            let row = |id: i32| params! { "id" => id, "c" => value.clone() };
            let insert = "INSERT INTO t VALUES (:id, :c)";
            DatabaseService::execute_query(insert, row(1)).unwrap();
            let nulls = params! { "id" => 100, "c" => None::<i32> };
            DatabaseService::execute_many(insert, &[row(2), row(3), nulls]).unwrap();
            DatabaseService::execute_many("UPDATE t SET c = :c WHERE id = :id", &[row(100)]).unwrap();
            // Other rows before and after, with a text for the same column.
            let rows = [
                [Value::from(4), Value::from(text)],
                [Value::from(5), value.clone()],
                [Value::from(6), Value::from(text)],
                [Value::from(7), Value::Null],
            ];
            for table in ["t", "v"] {
                let inserted = DatabaseService::bulk_insert(table, &["id", "c"], rows.clone());
                assert_eq!(inserted.unwrap(), 4, "{name}");
            }
            let returning = "INSERT INTO t VALUES (:id, :c) RETURNING c";
            DatabaseService::for_each_row(returning, row(8), |row| {
                assert_eq!(row["c"], value, "{name}");
                Ok::<_, DbError>(std::ops::ControlFlow::Continue(()))
            })
            .unwrap();
            let sql = "SELECT count(*) AS n, count(DISTINCT c::text) AS texts FROM t WHERE c IS NOT NULL";
            let counted = &DatabaseService::execute_query(sql, params! {}).unwrap()[0];
            assert_eq!(counted.values(), [Value::from(12), Value::from(1)], "{name}");
            run("DROP VIEW v");
            run("DROP TABLE t");
        }
        let found = DatabaseService::execute_query(
            "SELECT 1 AS one WHERE interval '1 day' = :c",
            params! { "c" => DatabaseService::execute_query("SELECT interval '24 hours' AS c", params! {}).unwrap()[0]["c"].clone() },
        );
        assert_eq!(found.unwrap().len(), 1);
    });
}

#[test]
fn hstore_and_citext_are_written_back_unchanged() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for extension in ["hstore", "citext"] {
            run(&format!("CREATE EXTENSION {extension}"));
        }
        run("CREATE TABLE t (h hstore, c citext, d citext[])");
        run("INSERT INTO t VALUES ('a=>1, \"\"=>NULL, c=>\"\"', 'It''s', '{A,b}')");
        let row = DatabaseService::execute_query("SELECT * FROM t", params! {})
            .unwrap()
            .remove(0);
        assert!(matches!(row["h"], Value::Other { .. }), "{row:?}");
        assert_eq!(
            (&row["c"], &row["d"]),
            (&Value::from("It's"), &Value::from(["A", "b"]))
        );
        let values = || row.values().to_vec();
        DatabaseService::bulk_insert("t", &["h", "c", "d"], [values()]).unwrap();
        let insert = "INSERT INTO t VALUES (:h, :c, :d)";
        let params =
            params! { "h" => row["h"].clone(), "c" => row["c"].clone(), "d" => row["d"].clone() };
        DatabaseService::execute_query(insert, params.clone()).unwrap();
        DatabaseService::execute_many(insert, std::slice::from_ref(&params)).unwrap();
        let sql = "SELECT count(*) AS n FROM t WHERE h = :h AND c = :c AND d = :d";
        let found = DatabaseService::execute_query(sql, params).unwrap();
        assert_eq!(found[0].get::<i64>("n").unwrap(), 4);
        // `citext` ignores case, also with a list.
        for (sql, value) in [
            ("c = :c", Value::from("IT'S")),
            ("c IN (:c)", Value::from(["x", "iT's"])),
            (":c = ANY (d)", Value::from("B")),
        ] {
            let found = DatabaseService::execute_query(
                &format!("SELECT 1 AS one FROM t WHERE {sql}"),
                params! { "c" => value },
            );
            assert_eq!(found.unwrap().len(), 4, "{sql}");
        }
    });
}
