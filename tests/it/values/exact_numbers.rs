//! Numbers with more digits than a float has: stored exactly, or refused.

use bigdecimal::BigDecimal;
use db_service::{DatabaseService, DbError, Row, Value, params, values};
use std::ops::ControlFlow;
use tests::TestDatabase;

on_both_backends!(
    long_numbers_are_exact_or_refused_on_every_path,
    random_numbers_are_exact_or_refused,
    json_numbers_are_exact_or_refused_by_the_dsl,
);

const THIRTY_DIGITS: &str = "12345678901234567890.1234567890";

fn execute(sql: &str) -> Vec<Row> {
    DatabaseService::execute_query(sql, params! {}).unwrap()
}

fn decimal(text: &str) -> BigDecimal {
    text.parse().unwrap()
}

fn is_postgres(database: &TestDatabase) -> bool {
    database.url().starts_with("postgres")
}

/// A way to write a value into the column `x` of the table `t`.
type Path = (&'static str, fn(Value) -> Result<(), DbError>);

const PATHS: [Path; 4] = [
    ("execute_query", |value| {
        let sql = "INSERT INTO t (x) VALUES (:x)";
        DatabaseService::execute_query(sql, params! { "x" => value }).map(drop)
    }),
    ("execute_many", |value| {
        let rows = [params! { "x" => value }];
        DatabaseService::execute_many("INSERT INTO t (x) VALUES (:x)", &rows).map(drop)
    }),
    ("bulk_insert", |value| {
        DatabaseService::bulk_insert("t", &["x"], [[value]]).map(drop)
    }),
    ("for_each_row", |value| {
        let sql = "INSERT INTO t (x) VALUES (:x) RETURNING x";
        DatabaseService::for_each_row(sql, params! { "x" => value }, |_| {
            Ok::<_, DbError>(ControlFlow::Continue(()))
        })
    }),
];

/// Writes a number on each path. Returns whether it is stored. Asserts that it is stored exactly, and that all paths
/// agree.
#[track_caller]
fn is_stored(value: &Value, expected: &BigDecimal, what: &str) -> bool {
    let outcomes = PATHS.map(|(path, write)| {
        execute("DELETE FROM t");
        match write(value.clone()) {
            Ok(()) => {
                let read: BigDecimal = execute("SELECT x FROM t")[0].get("x").unwrap();
                assert_eq!(&read, expected, "{path}: {what}");
                true
            }
            Err(DbError::UnstorableValue { name, problem, .. }) => {
                assert_eq!(name, "x");
                assert!(problem.contains("declare the column"), "{problem}");
                assert!(execute("SELECT x FROM t").is_empty(), "{path}: {what}");
                false
            }
            Err(error) => panic!("{path}: {what}: {error}"),
        }
    });
    assert!(
        outcomes.iter().all(|stored| *stored == outcomes[0]),
        "{what}: {outcomes:?}"
    );
    outcomes[0]
}

fn long_numbers_are_exact_or_refused_on_every_path(database: &TestDatabase) {
    let long = [
        THIRTY_DIGITS,
        "-0.000000000000000000000000000001234567890123456789",
        "18446744073709551615",
        "123456789012345000.0",
        "1234567890123456.5",
    ];
    let too_large = format!("1{}", "0".repeat(400));
    let too_small = format!("0.{}1", "0".repeat(400));
    let integers = ["9223372036854775807", "-9007199254740993"];
    let columns: &[(&str, [bool; 2])] = match is_postgres(database) {
        true => &[("NUMERIC", [true, true])],
        // Whether they store long decimals, and integers of 64 bits.
        false => &[
            ("TEXT", [true, true]),
            ("VARCHAR(10)", [true, true]),
            ("BLOB", [true, true]),
            ("", [true, true]),
            ("NUMERIC", [false, true]),
            ("DECIMAL(30, 10)", [false, true]),
            ("INTEGER", [false, true]),
            ("BIGINT", [false, true]),
            ("REAL", [false, false]),
            ("DOUBLE PRECISION", [false, false]),
        ],
    };
    database.scope().run(|| {
        for (column, [stores_decimals, stores_integers]) in columns {
            execute(&format!("CREATE TABLE t (x {column})"));
            let all = long.into_iter().chain([&*too_large, &*too_small]);
            for text in all {
                let value = Value::from(decimal(text));
                let stored = is_stored(&value, &decimal(text), &format!("{text} in {column:?}"));
                assert_eq!(stored, *stores_decimals, "{text} in {column:?}");
            }
            for text in integers {
                let value = Value::from(decimal(text));
                let stored = is_stored(&value, &decimal(text), &format!("{text} in {column:?}"));
                assert_eq!(stored, *stores_integers, "{text} in {column:?}");
            }
            let stored = is_stored(&u64::MAX.into(), &u64::MAX.into(), column);
            assert_eq!(stored, *stores_decimals, "u64::MAX in {column:?}");
            execute("DROP TABLE t");
        }
    });
}

fn random_numbers_are_exact_or_refused(database: &TestDatabase) {
    let mut random = fastrand::Rng::with_seed(14);
    let digits = |random: &mut fastrand::Rng, count: usize| -> String {
        (0..count).map(|_| random.digit(10)).collect()
    };
    let mut numbers: Vec<(BigDecimal, bool)> = Vec::new();
    for _ in 0..60 {
        let sign = ["", "-"][random.usize(..2)];
        let count = random.usize(1..=15);
        let exponent = match random.bool() {
            true => random.i64(-25..25),
            false => random.i64(-300..290),
        };
        // In plain notation, and so without zeros behind the point.
        let short = format!("{sign}{}e{exponent}", digits(&mut random, count));
        numbers.push((decimal(&short).normalized(), true));
        let integer = random.i64(..) >> random.u32(..63);
        numbers.push((integer.into(), integer.unsigned_abs() < 1 << 53));
        let count = random.usize(16..40);
        let long = format!("{sign}7{}3e{exponent}", digits(&mut random, count));
        numbers.push((decimal(&long), false));
    }
    let columns = match is_postgres(database) {
        true => &["NUMERIC"][..],
        false => &["TEXT", "", "NUMERIC", "INTEGER", "REAL"],
    };
    database.scope().run(|| {
        for column in columns {
            execute(&format!("CREATE TABLE t (x {column})"));
            for (number, is_short) in &numbers {
                let what = format!("{number} in {column:?}");
                let stored = is_stored(&number.clone().into(), number, &what);
                let is_exact_text = matches!(*column, "TEXT" | "") || is_postgres(database);
                assert!(stored || !is_short && !is_exact_text, "{what} is refused");
                if let Some(integer) = bigdecimal::ToPrimitive::to_i64(number)
                    && number.is_integer()
                    && *column != "REAL"
                {
                    assert!(is_stored(&integer.into(), number, &what) || *column == "TEXT");
                }
            }
            execute("DROP TABLE t");
        }
    });
}

/// Statements that convert a parameter in their own ways, and whether they take a decimal of 30 digits and the largest
/// integer.
#[test]
fn statements_that_would_round_a_number_are_refused() {
    let statements = [
        (
            "INSERT INTO t (price, qty) VALUES (:x, 1), ('2', 2)",
            [true, true],
        ),
        (
            "INSERT INTO t (qty, price) VALUES (1, 'a'), (:x, 'b')",
            [false, true],
        ),
        (
            "INSERT INTO t (price, amount) VALUES (:x, :x)",
            [false, true],
        ),
        (
            "INSERT INTO t (price, ratio) VALUES (:x, :x)",
            [false, false],
        ),
        ("INSERT INTO t (id, price) VALUES (:x, 'a')", [false, true]),
        ("INSERT INTO t (price) SELECT :x", [true, true]),
        ("INSERT INTO t (price) SELECT :x FROM t", [true, true]),
        ("INSERT INTO t (amount) SELECT :x", [false, true]),
        (
            "INSERT INTO t (amount) SELECT :x FROM t UNION ALL SELECT 1",
            [false, true],
        ),
        (
            "INSERT INTO t (amount) SELECT p FROM (SELECT DISTINCT :x AS p ORDER BY 1)",
            [false, true],
        ),
        (
            "INSERT INTO t (price) VALUES (:x) RETURNING price, id",
            [true, true],
        ),
        (
            "INSERT INTO t (id, price) VALUES (1, :x) ON CONFLICT (id) DO UPDATE SET price = excluded.price",
            [true, true],
        ),
        (
            "INSERT INTO t (id, price) VALUES (1, :x) ON CONFLICT (id) DO UPDATE SET amount = excluded.price",
            [false, true],
        ),
        (
            "INSERT INTO t (id, price) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET price = :x, qty = 7",
            [true, true],
        ),
        (
            "INSERT INTO t (id, price) VALUES (1, 'a') ON CONFLICT (id) DO UPDATE SET qty = :x",
            [false, true],
        ),
        ("REPLACE INTO t (id, price) VALUES (1, :x)", [true, true]),
        (
            "UPDATE t SET price = :x, qty = qty + 1 WHERE id = 1",
            [true, true],
        ),
        ("UPDATE t SET qty = :x WHERE price = 'a'", [false, true]),
        ("UPDATE t SET ratio = :x", [false, false]),
        (
            "UPDATE t SET price = o.p FROM (SELECT 1 AS i, :x AS p) AS o WHERE t.id = o.i",
            [true, true],
        ),
        ("DELETE FROM t WHERE price = :x", [true, true]),
        ("SELECT id FROM t WHERE price = :x", [true, true]),
        (
            "SELECT id FROM t WHERE +price >= :x ORDER BY ratio",
            [true, true],
        ),
        ("SELECT id FROM t WHERE price IN (:x, 'a')", [true, true]),
        (
            "SELECT id FROM t WHERE price BETWEEN 'a' AND :x",
            [true, true],
        ),
        ("SELECT id FROM t WHERE amount = :x", [false, true]),
        ("SELECT id FROM t WHERE qty = :x", [false, true]),
        ("SELECT id FROM t WHERE +qty < :x", [true, true]),
        ("SELECT id FROM t WHERE qty IN (:x, 2)", [false, true]),
        // An integer is compared with floats exactly.
        ("SELECT id FROM t WHERE ratio = :x", [false, true]),
        ("SELECT id FROM t WHERE id = :x", [false, true]),
        ("SELECT id FROM t WHERE id > :x", [false, true]),
        (
            "SELECT CASE amount WHEN :x THEN 1 END FROM t",
            [false, true],
        ),
        ("SELECT id FROM t LIMIT :x", [false, false]),
        ("SELECT :x + 1", [false, false]),
        ("SELECT sum(:x) FROM t", [false, false]),
        ("SELECT round(:x)", [false, false]),
        ("SELECT CAST(:x AS NUMERIC)", [false, true]),
        ("SELECT CAST(:x AS REAL)", [false, false]),
        ("SELECT CAST(:x AS TEXT)", [true, true]),
        ("EXPLAIN SELECT id FROM t WHERE amount = :x", [true, true]),
        ("SELECT :x", [true, true]),
        (
            "SELECT typeof(:x), length(:x) || :x, coalesce(NULL, :x)",
            [true, true],
        ),
        ("SELECT value FROM json_each(:x)", [false, false]),
        (
            "SELECT id FROM t AS a WHERE price = (SELECT max(price) FROM t WHERE price <= :x AND id <> a.id)",
            [true, true],
        ),
        (
            "WITH RECURSIVE r (p, n) AS (SELECT :x, 1 UNION ALL SELECT p, n + 1 FROM r WHERE n < 3) INSERT INTO t (price, qty) SELECT p, n FROM r",
            [true, true],
        ),
        (
            "WITH RECURSIVE r (p, n) AS (SELECT :x, 1 UNION ALL SELECT p, n + 1 FROM r WHERE n < 3) INSERT INTO t (qty) SELECT p FROM r",
            [false, true],
        ),
        ("CREATE TEMP TABLE copies AS SELECT :x AS p", [true, true]),
        (
            "INSERT INTO strict (id, price, qty) VALUES (7, :x, 1)",
            [true, true],
        ),
        (
            "INSERT INTO strict (id, anything) VALUES (7, :x)",
            [true, true],
        ),
        ("INSERT INTO strict (id, qty) VALUES (7, :x)", [false, true]),
        (
            "INSERT INTO strict (id, ratio) VALUES (7, :x)",
            [false, false],
        ),
        (
            "INSERT INTO keyed (price, qty) VALUES (:x, 1)",
            [true, true],
        ),
        (
            "INSERT INTO keyed (price, qty) VALUES ('a', :x)",
            [false, true],
        ),
        // A trigger copies the price into a column of its own.
        ("INSERT INTO logged (price) VALUES (:x)", [true, true]),
        ("INSERT INTO summed (price) VALUES (:x)", [false, true]),
        (
            "INSERT INTO read_back (price, qty) VALUES (:x, 1)",
            [false, true],
        ),
        ("INSERT INTO prices (price) VALUES (:x)", [true, true]),
        ("INSERT INTO children (price) VALUES (:x)", [false, true]),
        // A generated column and an expression of an index compute with the price.
        ("INSERT INTO doubled (price) VALUES (:x)", [false, false]),
        ("INSERT INTO ordered (price) VALUES (:x)", [false, false]),
        // Its condition compares texts, and no price is read.
        (
            "INSERT INTO checked (price, qty) VALUES (:x, 1)",
            [true, true],
        ),
    ];
    let schema = [
        "CREATE TABLE t (id INTEGER PRIMARY KEY, price TEXT, qty INTEGER, amount NUMERIC, ratio REAL)",
        "CREATE INDEX t_price ON t (price, qty)",
        "CREATE INDEX t_amount ON t (amount)",
        "CREATE INDEX t_ratio ON t (ratio)",
        "CREATE INDEX t_qty ON t (qty)",
        "INSERT INTO t (id, price, qty) VALUES (1, 'a', 1)",
        "CREATE TABLE strict (id INTEGER PRIMARY KEY, double_id INT AS (id * 2), price TEXT, qty INT, ratio REAL, anything ANY) STRICT",
        "CREATE TABLE keyed (price TEXT PRIMARY KEY, qty INTEGER) WITHOUT ROWID",
        "CREATE TABLE log (n NUMERIC, price TEXT)",
        "CREATE TABLE logged (price TEXT)",
        "CREATE TRIGGER log_price AFTER INSERT ON logged BEGIN INSERT INTO log VALUES (1, new.price); END",
        "CREATE TABLE summed (price TEXT)",
        "CREATE TRIGGER log_sum AFTER INSERT ON summed BEGIN INSERT INTO log VALUES (new.price, 'a'); END",
        "CREATE TABLE read_back (price TEXT, qty INTEGER)",
        "CREATE TRIGGER log_back AFTER INSERT ON read_back BEGIN INSERT INTO log SELECT price, qty FROM read_back; END",
        "CREATE VIEW prices AS SELECT price FROM t",
        "CREATE TRIGGER insert_price INSTEAD OF INSERT ON prices BEGIN INSERT INTO t (price) VALUES (new.price); END",
        "CREATE TABLE parents (price NUMERIC PRIMARY KEY)",
        "INSERT INTO parents VALUES (9223372036854775807)",
        "CREATE TABLE children (price TEXT REFERENCES parents)",
        "CREATE TABLE doubled (price TEXT, twice AS (price * 2))",
        "CREATE INDEX doubled_twice ON doubled (twice)",
        "CREATE TABLE ordered (price TEXT)",
        "CREATE INDEX ordered_price ON ordered (CAST(price AS REAL))",
        "CREATE TABLE checked (price TEXT NOT NULL CHECK (price <> ''), qty INTEGER CHECK (qty > 0))",
    ];
    TestDatabase::sqlite().scope().run(|| {
        for sql in schema {
            execute(sql);
        }
        for (sql, [takes_decimals, takes_integers]) in statements {
            for (text, is_taken) in [
                (THIRTY_DIGITS, takes_decimals),
                ("9223372036854775807", takes_integers),
                ("15", true),
            ] {
                let result = DatabaseService::transaction(|connection| {
                    connection.execute_query(sql, params! { "x" => decimal(text) })?;
                    Err::<(), _>(DbError::NoRow)
                });
                let was_taken = match result.unwrap_err() {
                    DbError::UnstorableValue { name, .. } => {
                        assert_eq!(name, "x");
                        false
                    }
                    DbError::NoRow => true,
                    // Without a rounded number, SQLite refuses what is not a number of its own.
                    _ if text == "15" => true,
                    error => panic!("{text}: {sql}: {error}"),
                };
                assert_eq!(was_taken, is_taken, "{text}: {sql}");
            }
        }
    });
}

/// The position of a parameter decides, and not its first occurrence in the text.
#[test]
fn each_parameter_is_checked_by_itself() {
    TestDatabase::sqlite().scope().run(|| {
        execute("CREATE TABLE t (id INTEGER PRIMARY KEY, price TEXT, amount NUMERIC)");
        let sql = "INSERT INTO t (amount, price, id) VALUES (:amount, :price, :id)";
        let long = || decimal(THIRTY_DIGITS);
        let row = |amount: BigDecimal, price: BigDecimal| params! { "price" => price, "id" => None::<i32>, "amount" => amount };
        DatabaseService::execute_query(sql, row(1.into(), long())).unwrap();
        let rows = [row(1.into(), long()), row(long(), 1.into())];
        let error = DatabaseService::execute_many(sql, &rows).unwrap_err();
        assert!(
            matches!(&error, DbError::UnstorableValue { name, row: Some(2), .. } if name == "amount"),
            "{error:?}"
        );
        let rows = [values![long(), 1], values![long(), 2], values![1, long()]];
        let error = DatabaseService::bulk_insert("t", &["price", "amount"], rows).unwrap_err();
        assert!(
            matches!(&error, DbError::UnstorableValue { name, row: Some(3), .. } if name == "amount"),
            "{error:?}"
        );
        assert!(!format!("{error} {error:?}").contains("890"), "{error:?}");
        assert_eq!(execute("SELECT * FROM t").len(), 1);

        let largest = params! { "id" => BigDecimal::from(i64::MAX) };
        let insert = "INSERT INTO t (id) VALUES (:id)";
        DatabaseService::execute_query(insert, largest.clone()).unwrap();
        for sql in ["SELECT id FROM t WHERE id = :id", "SELECT id FROM t WHERE id >= :id"] {
            let found = DatabaseService::execute_query(sql, largest.clone()).unwrap();
            assert_eq!(found[0].get::<i64>("id").unwrap(), i64::MAX);
        }
    });
}

/// The answer of SQLite is not kept for later statements.
#[test]
fn changed_column_is_noticed() {
    let database = TestDatabase::sqlite();
    database.scope().run(|| {
        execute("CREATE TABLE t (x TEXT)");
        let (_, write) = PATHS[0];
        write(decimal(THIRTY_DIGITS).into()).unwrap();
        execute("DROP TABLE t");
        execute("CREATE TABLE t (x NUMERIC)");
        write(decimal(THIRTY_DIGITS).into()).unwrap_err();
    });
}

/// SQLite writes a float into a text column with all of its digits.
#[test]
fn floats_in_text_columns_keep_all_digits() {
    let mut random = fastrand::Rng::with_seed(14);
    TestDatabase::sqlite().scope().run(|| {
        execute("CREATE TABLE t (x TEXT)");
        for _ in 0..500 {
            let float = f64::from_bits(random.u64(..));
            if float.is_finite() {
                execute("DELETE FROM t");
                PATHS[0].1(float.into()).unwrap();
                let text: String = execute("SELECT x FROM t")[0].get("x").unwrap();
                assert_eq!(text.parse(), Ok(float), "{text}");
            }
        }
    });
}

diesel::table! { docs (id) { id -> BigInt, a -> Json, b -> Jsonb, } }

fn json_numbers_are_exact_or_refused_by_the_dsl(database: &TestDatabase) {
    use diesel::prelude::*;
    let (json, jsonb) = match is_postgres(database) {
        true => ("json", "jsonb"),
        false => ("TEXT", "TEXT"),
    };
    database.scope().run(|| {
        execute(&format!(
            "CREATE TABLE docs (id BIGINT PRIMARY KEY, a {json}, b {jsonb})"
        ));
        for (id, number, is_exact) in [
            (1, "18446744073709551615", true),
            (2, "18446744073709551616", false),
            (3, "0.1000000000000000055", false),
            (4, "0.30000000000000004", true),
        ] {
            execute(&format!(
                "INSERT INTO docs VALUES ({id}, '[{number}]', '[{number}]')"
            ));
            let connection = &mut DatabaseService::connection().unwrap();
            let row = docs::table.find(id);
            let a = row.select(docs::a).first::<serde_json::Value>(connection);
            let b = row.select(docs::b).first::<serde_json::Value>(connection);
            for read in [a, b] {
                match read {
                    Ok(read) => assert!(
                        is_exact
                            && read
                                == serde_json::from_str::<serde_json::Value>(&format!(
                                    "[{number}]"
                                ))
                                .unwrap(),
                        "{read}"
                    ),
                    Err(error) => assert!(
                        !is_exact && format!("{error:?}").contains("serde_json::Value"),
                        "{error}"
                    ),
                }
            }
        }
    });
}
