//! JSON keeps its text, and one value that Rust cannot represent does not spoil the others.

use db_service::{DatabaseService, DbError, Value, params, values};
use serde_json::json;
use tests::TestDatabase;

on_both_backends!(
    numbers_beyond_64_bits_are_written_back_unchanged,
    json_that_rust_cannot_represent_spoils_no_other_column,
);

fn run(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn text_of(column: &str) -> Vec<String> {
    let sql = format!("SELECT CAST({column} AS TEXT) AS text FROM t ORDER BY id");
    let rows = DatabaseService::execute_query(&sql, params! {}).unwrap();
    rows.iter().map(|row| row.get("text").unwrap()).collect()
}

const NUMBERS: [&str; 5] = [
    "18446744073709551616",
    "[0.1000000000000000055511151231257827, -1]",
    "{\"a\": 123456789012345678901234567890}",
    "\"text \\u00e9 \\\\ '\"",
    "null",
];

fn numbers_beyond_64_bits_are_written_back_unchanged(database: &TestDatabase) {
    let types: &[&str] = if database.url().starts_with("postgres") {
        &["jsonb", "json"]
    } else {
        &["TEXT"]
    };
    database.scope().run(|| {
        for name in types {
            run(&format!("CREATE TABLE t (id INTEGER, j {name}, k {name}, l {name}, m {name})"));
            for (id, text) in NUMBERS.iter().enumerate() {
                let insert = format!("INSERT INTO t (id, j) VALUES ({id}, '{}')", text.replace('\'', "''"));
                run(&insert);
                let row = DatabaseService::execute_query(&format!("SELECT j FROM t WHERE id = {id}"), params! {}).unwrap().remove(0);
                let value = match &row["j"] {
                    Value::Text(text) => Value::Json(text.clone()),
                    value => value.clone(),
                };
                let id = id as i64;
                DatabaseService::execute_query("UPDATE t SET k = :k WHERE id = :id", params! { "k" => value.clone(), "id" => id }).unwrap();
                DatabaseService::execute_many("UPDATE t SET l = :l WHERE id = :id", &[params! { "l" => value.clone(), "id" => id }]).unwrap();
                DatabaseService::bulk_insert("t", &["id", "m"], [[Value::from(id + 100), value]]).unwrap();
            }
            let sql = "SELECT count(*) AS n FROM t AS a JOIN t AS b ON b.id = a.id + 100 \
                       WHERE CAST(a.j AS TEXT) = CAST(a.k AS TEXT) AND CAST(a.j AS TEXT) = CAST(a.l AS TEXT) AND CAST(a.j AS TEXT) = CAST(b.m AS TEXT)";
            let rows = DatabaseService::execute_query(sql, params! {}).unwrap();
            assert_eq!(rows[0].get::<i64>("n").unwrap(), NUMBERS.len() as i64, "{name}");
            run("DROP TABLE t");
        }
    });
}

fn json_that_rust_cannot_represent_spoils_no_other_column(database: &TestDatabase) {
    let is_postgres = database.url().starts_with("postgres");
    let name = if is_postgres { "jsonb" } else { "TEXT" };
    database.scope().run(|| {
        run(&format!("CREATE TABLE t (id INTEGER, j {name})"));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        let all = [
            "1e400",
            "18446744073709551616",
            deep.as_str(),
            "{\"a\": 1.50}",
        ];
        let rows = all.iter().zip(0..).map(|(text, id)| values![id, *text]);
        DatabaseService::bulk_insert("t", &["id", "j"], rows).unwrap();
        let rows =
            DatabaseService::execute_query("SELECT * FROM t ORDER BY id", params! {}).unwrap();
        assert_eq!(rows.len(), 4);
        for row in &rows[..3] {
            let error = row.get::<serde_json::Value>("j").unwrap_err();
            assert!(
                matches!(&error, DbError::WrongType { column, .. } if column == "j"),
                "{error}"
            );
            assert!(!row.get::<String>("j").unwrap().is_empty());
        }
        assert_eq!(
            rows[3].get::<serde_json::Value>("j").unwrap(),
            json!({ "a": 1.5 })
        );
        assert_eq!(text_of("j")[1], "18446744073709551616");
        let ids: Vec<i64> = rows.iter().map(|row| row.get("id").unwrap()).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        let mut streamed = 0;
        DatabaseService::for_each_row("SELECT * FROM t", params! {}, |row| {
            streamed += row.get::<i64>("id")?;
            Ok::<_, DbError>(std::ops::ControlFlow::Continue(()))
        })
        .unwrap();
        assert_eq!(streamed, 6);
    });
}

#[test]
fn json_takes_the_type_of_its_column() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        run("CREATE TABLE t (id serial, j json, b jsonb, t text)");
        let value = Value::Json("{\"b\": 1,  \"a\": 2, \"a\": 3}".to_owned());
        let row = params! { "j" => value.clone(), "b" => value.clone(), "t" => value.clone() };
        let insert = "INSERT INTO t (j, b, t) VALUES (:j, :b, :t)";
        DatabaseService::execute_query(insert, row.clone()).unwrap();
        let none = params! { "j" => None::<i32>, "b" => None::<i32>, "t" => None::<i32> };
        DatabaseService::execute_many(insert, &[row, none]).unwrap();
        DatabaseService::bulk_insert(
            "t",
            &["j", "b", "t"],
            [[value.clone(), value.clone(), value]],
        )
        .unwrap();
        let kept = "{\"b\": 1,  \"a\": 2, \"a\": 3}";
        for (column, expected) in [("j", kept), ("b", "{\"a\": 3, \"b\": 1}"), ("t", kept)] {
            let sql = format!("SELECT {column}::text AS text FROM t WHERE {column} IS NOT NULL");
            let rows = DatabaseService::execute_query(&sql, params! {}).unwrap();
            let texts: Vec<String> = rows.iter().map(|row| row.get("text").unwrap()).collect();
            assert_eq!(texts, [expected; 3], "{column}");
        }
        let contains = "SELECT count(*) AS n FROM t WHERE b @> :part AND b -> :key = :value";
        let params = params! { "part" => json!({ "a": 3 }), "key" => "b", "value" => json!(1) };
        let rows = DatabaseService::execute_query(contains, params).unwrap();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), 3);
    });
}
