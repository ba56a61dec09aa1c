//! Bulk inserts: many rows in one call, inserted as a whole.

use std::panic::{self, AssertUnwindSafe};

use db_service::{DatabaseService, DbError, Row, Value, params, values};
use tests::TestDatabase;

on_both_backends!(
    rows_beyond_the_size_of_one_statement_are_inserted,
    constraint_violations_are_distinguished_and_insert_nothing,
    row_with_wrong_length_is_reported_by_number,
    row_iterator_may_query_the_database,
    panic_in_the_row_iterator_inserts_nothing,
    failed_bulk_insert_in_a_transaction_rolls_back_only_its_rows,
    bulk_insert_counts_as_one_call_in_statistics,
    table_and_column_names_are_quoted,
);

fn execute(sql: &str) -> Vec<Row> {
    DatabaseService::execute_query(sql, params! {}).unwrap()
}

fn count(table: &str) -> i64 {
    DatabaseService::get_table_info(table).unwrap().row_count
}

fn rows_beyond_the_size_of_one_statement_are_inserted(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE numbers (n BIGINT PRIMARY KEY, note TEXT DEFAULT 'none')");
        for (from, to) in [(0, 0), (0, 1), (1, 129), (129, 385), (385, 10_000)] {
            let rows = (from..to).map(|n| values![n]);
            assert_eq!(
                DatabaseService::bulk_insert("numbers", &["n"], rows).unwrap(),
                (to - from) as u64
            );
        }
        let sum = "SELECT count(*) AS count, sum(n) AS sum, min(note) AS note FROM numbers";
        let row = &execute(sum)[0];
        let found = (
            row.get::<i64>("count").unwrap(),
            row.get::<i64>("sum").unwrap(),
            row.get::<String>("note").unwrap(),
        );
        assert_eq!(found, (10_000, 9_999 * 5_000, "none".to_owned()));
        // A few wide rows hold more values than a statement can have parameters.
        let columns: Vec<_> = (0..1_500).map(|number| format!("c{number}")).collect();
        let names: Vec<_> = columns.iter().map(String::as_str).collect();
        execute(&format!(
            "CREATE TABLE wide ({} INTEGER)",
            columns.join(" INTEGER, ")
        ));
        let rows = (0..50).map(|n| (0..1_500).map(move |column| Value::from(n * column % 7)));
        assert_eq!(
            DatabaseService::bulk_insert("wide", &names, rows).unwrap(),
            50
        );
        assert_eq!(
            execute("SELECT sum(c1499) AS sum FROM wide")[0]
                .get::<i64>("sum")
                .unwrap(),
            (0..50).map(|n| n * 1_499 % 7).sum::<i64>()
        );
    });
}

fn constraint_violations_are_distinguished_and_insert_nothing(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE owners (id INTEGER PRIMARY KEY)");
        execute("CREATE TABLE pets (id INTEGER CONSTRAINT one_each UNIQUE, name TEXT NOT NULL, legs INTEGER CHECK (legs < 9), owner INTEGER REFERENCES owners)");
        let columns = ["id", "name", "legs", "owner"];
        let good = values![1, "Rex", 4, None::<i32>];
        let bad = [values![1, "Tom", 4, None::<i32>], values![2, None::<&str>, 4, None::<i32>], values![2, "Tom", 9, None::<i32>], values![2, "Tom", 4, 7]];
        for (row, kind) in bad.into_iter().zip(0..) {
            // The invalid row is the last of many.
            let rows = || (100..1_000).map(|id| values![id, "x", 0, None::<i32>]).chain([good.clone(), row.clone()]);
            let error = DatabaseService::bulk_insert("pets", &columns, rows()).unwrap_err();
            let single = DatabaseService::execute_many(
                "INSERT INTO pets VALUES (:id, :name, :legs, :owner)",
                &[good.clone(), row.clone()].map(|[id, name, legs, owner]| params! { "id" => id, "name" => name, "legs" => legs, "owner" => owner }),
            )
            .unwrap_err();
            let is_expected = match (&error, kind) {
                (DbError::UniqueViolation { columns, .. }, 0) => columns == &["id"],
                (DbError::NotNullViolation { column, .. }, 1) => column.as_deref() == Some("name"),
                (DbError::CheckViolation { .. }, 2) | (DbError::ForeignKeyViolation { .. }, 3) => true,
                _ => false,
            };
            assert!(is_expected, "{error:?}");
            assert_eq!(format!("{error:?}"), format!("{single:?}"));
            assert_eq!(count("pets"), 0);
        }
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.checked_out, status.invalid, status.failed_queries), (0, 0, 8));
    });
}

fn row_with_wrong_length_is_reported_by_number(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER, name TEXT)");
        for found in [0, 1, 3] {
            let rows = (1..=500).map(|n| vec![Value::from(n); if n == 300 { found } else { 2 }]);
            let error = DatabaseService::bulk_insert("pets", &["id", "name"], rows).unwrap_err();
            assert!(
                matches!(
                    error,
                    DbError::RowLength {
                        row: 300,
                        expected: 2,
                        ..
                    }
                ),
                "{error}"
            );
            assert_eq!(
                error.to_string(),
                format!("row 300 has {found} values for 2 columns")
            );
            assert_eq!(count("pets"), 0);
        }
        let none = DatabaseService::bulk_insert("pets", &[], [values![]]).unwrap_err();
        assert!(matches!(none, DbError::InvalidColumns { .. }), "{none}");
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

fn row_iterator_may_query_the_database(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        execute("CREATE TABLE copies (id INTEGER)");
        DatabaseService::bulk_insert("pets", &["id"], (0..600).map(|id| values![id])).unwrap();
        let before = DatabaseService::get_pool_status()
            .unwrap()
            .successful_queries;
        let sql = "SELECT id FROM pets WHERE id = :id";
        let mut other = DatabaseService::connection().unwrap();
        let rows = (0..600).map(|id| {
            let found = other.execute_query(sql, params! { "id" => id }).unwrap();
            values![found[0].get::<i64>("id").unwrap()]
        });
        assert_eq!(
            DatabaseService::bulk_insert("copies", &["id"], rows).unwrap(),
            600
        );
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!(
            status.successful_queries,
            before + 601,
            "each query and the insert are counted separately"
        );
        let statements = DatabaseService::statistics().unwrap().statements;
        let entry = statements
            .iter()
            .find(|entry| entry.statement == sql)
            .unwrap();
        assert_eq!((entry.calls, entry.rows), (600, 600));
    });
}

fn panic_in_the_row_iterator_inserts_nothing(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        let rows = || {
            (0..1_000).map(|id| {
                if id == 700 {
                    panic!("no more")
                } else {
                    values![id]
                }
            })
        };
        let outcome = panic::catch_unwind(|| DatabaseService::bulk_insert("pets", &["id"], rows()));
        assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"no more"));
        assert_eq!(count("pets"), 0);
        let committed: Result<u64, DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query("INSERT INTO pets VALUES (1)", params! {})?;
            let caught = panic::catch_unwind(AssertUnwindSafe(|| {
                connection.bulk_insert("pets", &["id"], rows())
            }));
            assert!(caught.is_err());
            connection.bulk_insert("pets", &["id"], [values![2]])
        });
        assert_eq!(
            (committed.unwrap(), count("pets")),
            (1, 2),
            "a caller that catches the panic can continue"
        );
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.checked_out, status.active_connections), (0, 0));
    });
}

fn failed_bulk_insert_in_a_transaction_rolls_back_only_its_rows(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER UNIQUE)");
        let committed: Result<_, DbError> = DatabaseService::transaction(|connection| {
            connection.bulk_insert("pets", &["id"], (0..300).map(|id| values![id]))?;
            let again =
                connection.bulk_insert("pets", &["id"], (299..600).rev().map(|id| values![id]));
            assert!(
                matches!(again, Err(DbError::UniqueViolation { .. })),
                "{again:?}"
            );
            let short = connection.bulk_insert(
                "pets",
                &["id"],
                (300..600).map(|id| vec![Value::from(id); if id == 599 { 2 } else { 1 }]),
            );
            assert!(
                matches!(short, Err(DbError::RowLength { row: 300, .. })),
                "{short:?}"
            );
            connection.bulk_insert("pets", &["id"], [values![1_000]])
        });
        assert_eq!((committed.unwrap(), count("pets")), (1, 301));
        let rolled_back: Result<(), DbError> = DatabaseService::transaction(|connection| {
            connection.bulk_insert("pets", &["id"], [values![2_000]])?;
            Err(DbError::NoRow)
        });
        assert!(rolled_back.is_err());
        assert_eq!(count("pets"), 301);
    });
}

fn bulk_insert_counts_as_one_call_in_statistics(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER UNIQUE)");
        for _ in 0..2 {
            DatabaseService::bulk_insert("pets", &["id"], (0..1_000).map(|id| values![id])).ok();
        }
        let statistics = DatabaseService::statistics().unwrap();
        assert_eq!(
            (
                statistics.pool.successful_queries,
                statistics.pool.failed_queries
            ),
            (2, 1)
        );
        let entry = statistics
            .statements
            .iter()
            .find(|entry| entry.statement.contains("(\"id\")"))
            .unwrap();
        assert_eq!(
            (entry.calls, entry.errors, entry.rows),
            (2, 1, 1_000),
            "{statistics}"
        );
        assert_eq!(statistics.statements.len(), 2, "{statistics}");
    });
}

fn table_and_column_names_are_quoted(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE \"My \"\"Pets\" (\"a \"\"b\" INTEGER, \"select\" INTEGER)");
        let insert = |table: &str, columns: &[&str]| {
            DatabaseService::bulk_insert(table, columns, [values![1, 2]])
        };
        assert_eq!(insert("\"My \"\"Pets\"", &["a \"b", "select"]).unwrap(), 1);
        assert!(matches!(
            insert("pets; --", &["a", "b"]),
            Err(DbError::InvalidTableName { .. })
        ));
        assert!(matches!(
            insert("pets", &["a", "b"]),
            Err(DbError::UnknownTable { .. })
        ));
        for columns in [
            ["a \"b", "nowhere"],
            ["a \"b", "a\0"],
            ["a \"b", "\"select\") VALUES (1); --"],
        ] {
            let error = insert("\"My \"\"Pets\"", &columns).unwrap_err();
            assert!(matches!(error, DbError::Query(_)), "{columns:?}: {error}");
        }
        for columns in [["select", "select"], ["SELECT", "select"]] {
            let error = insert("\"My \"\"Pets\"", &columns).unwrap_err();
            let is_invalid = matches!(error, DbError::InvalidColumns { .. });
            assert!(
                is_invalid || database.url().starts_with("postgres") && columns[0] == "SELECT",
                "{error}"
            );
        }
        assert_eq!(count("\"My \"\"Pets\""), 1);
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 0);
    });
}

#[test]
fn connection_lost_during_a_bulk_insert_is_reported() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        let lost: Result<u64, DbError> = DatabaseService::transaction(|connection| {
            let pid: i32 = connection
                .execute_query("SELECT pg_backend_pid() AS pid", params! {})?[0]
                .get("pid")?;
            // More rows than the socket buffers hold after the server process has ended.
            let rows = (0..2_000_000).map(|id| {
                if id == 100_000 {
                    let end = "SELECT pg_terminate_backend(:pid, 10000)";
                    DatabaseService::execute_query(end, params! { "pid" => pid }).unwrap();
                }
                values![id]
            });
            connection.bulk_insert("pets", &["id"], rows)
        });
        let error = lost.unwrap_err();
        assert!(matches!(error, DbError::ConnectionLost(_)), "{error:?}");
        assert_eq!(count("pets"), 0);
        assert_eq!(DatabaseService::get_pool_status().unwrap().invalid, 1);
    });
}

#[test]
fn fake_database_gets_one_statement_per_row() {
    let fake = DatabaseService::fake(|sql, params| {
        assert_eq!(sql, "INSERT INTO pets (id, name) VALUES (:id, :name)");
        assert!(params.get("id").is_some() && params.get("name") == Some(&Value::from("Rex")));
        Ok(Vec::new())
    });
    let rows = (0..3).map(|id| values![id, "Rex"]);
    let scope = singleton_core::testing::Scope::new().provide(fake);
    let inserted = scope.run(|| DatabaseService::bulk_insert("pets", &["id", "name"], rows));
    assert_eq!(inserted.unwrap(), 3);
}
