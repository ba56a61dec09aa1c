//! `execute`: the number of rows that a statement has changed.

use db_service::{Backend, Connection, DatabaseService, DbError, Params, Row, Value, params};
use singleton_core::testing::Scope;
use tests::TestDatabase;

on_both_backends!(
    changed_rows_are_counted,
    statements_that_change_no_rows_return_zero,
    rows_that_triggers_and_foreign_keys_change_do_not_count,
    connection_and_service_return_the_same_count,
    failure_after_the_last_returned_row_is_an_error,
    execute_is_measured_and_counted_like_a_query,
    execute_in_a_transaction_is_rolled_back_with_it,
);

#[track_caller]
fn execute(sql: &str) -> u64 {
    DatabaseService::execute(sql, params! {}).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

fn rows(sql: &str) -> Vec<Row> {
    DatabaseService::execute_query(sql, params! {}).unwrap()
}

fn backend() -> Backend {
    DatabaseService::connection().unwrap().backend()
}

fn create_pets() {
    execute("CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT, legs INTEGER)");
    let three = "INSERT INTO pets VALUES (1, 'Rex', 4), (2, 'Tom', 4), (3, 'Tweety', 2)";
    assert_eq!(execute(three), 3);
}

fn changed_rows_are_counted(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        let with_legs = |sql: &str, legs: i32| {
            DatabaseService::execute(sql, params! { "legs" => legs }).unwrap()
        };
        for (sql, legs, expected) in [
            ("UPDATE pets SET name = name WHERE legs = :legs", 4, 2),
            ("UPDATE pets SET name = 'x' WHERE legs = :legs", 5, 0),
            ("DELETE FROM pets WHERE legs = :legs RETURNING id, name", 4, 2),
            ("DELETE FROM pets WHERE legs = :legs RETURNING id", 4, 0),
            ("INSERT INTO pets SELECT 10, 'x', :legs RETURNING id", 4, 1),
        ] {
            assert_eq!(with_legs(sql, legs), expected, "{sql}");
        }
        for (sql, expected) in [
            ("INSERT INTO pets (id) VALUES (20), (21) RETURNING id", 2),
            ("INSERT INTO pets (id) VALUES (20), (22) ON CONFLICT DO NOTHING", 1),
            ("INSERT INTO pets (id) VALUES (20), (23) ON CONFLICT (id) DO UPDATE SET legs = 3", 2),
            ("WITH old AS (SELECT id FROM pets WHERE id > 20) DELETE FROM pets WHERE id IN (SELECT id FROM old)", 3),
            ("WITH RECURSIVE n (i) AS (SELECT 30 UNION ALL SELECT i + 1 FROM n WHERE i < 34) \
              INSERT INTO pets (id) SELECT i FROM n", 5),
            ("/* delete */ DELETE FROM pets", 8),
        ] {
            assert_eq!(execute(sql), expected, "{sql}");
        }
        if backend() == Backend::Sqlite {
            assert_eq!(execute("REPLACE INTO pets (id) VALUES (1), (2)"), 2);
            assert_eq!(execute("REPLACE INTO pets (id) VALUES (1), (2)"), 2);
            assert_eq!(execute("WITH replace AS (SELECT 1) SELECT * FROM replace"), 0);
        } else {
            let merge = "MERGE INTO pets USING (VALUES (1), (2)) AS new (id) ON pets.id = new.id \
                         WHEN MATCHED THEN UPDATE SET legs = 0 WHEN NOT MATCHED THEN INSERT (id) VALUES (new.id)";
            assert_eq!((execute(merge), execute(merge)), (2, 2));
            let merge = "WITH new AS (SELECT 2 AS id) MERGE INTO pets USING new ON pets.id = new.id \
                         WHEN MATCHED THEN DELETE";
            assert_eq!((execute(merge), execute(merge)), (1, 0));
            let named = "WITH values AS (SELECT 7 AS id) INSERT INTO pets (id) SELECT id FROM values";
            assert_eq!(execute(named), 1);
            let rows = [params! { "id" => 1 }, params! { "id" => 8 }];
            let each = "MERGE INTO pets USING (SELECT :id AS id) AS new ON pets.id = new.id \
                        WHEN NOT MATCHED THEN INSERT (id) VALUES (new.id)";
            assert_eq!(DatabaseService::execute_many(each, &rows).unwrap(), 1);
        }
    });
}

fn statements_that_change_no_rows_return_zero(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        let mut statements = vec![
            "SELECT * FROM pets",
            "SELECT 1 WHERE 1 = 0",
            "VALUES (1), (2)",
            "WITH a AS (SELECT 1) SELECT * FROM pets",
            "CREATE TABLE copies AS SELECT * FROM pets",
            "ALTER TABLE copies ADD COLUMN age INTEGER",
            "DROP TABLE copies",
        ];
        if backend() == Backend::Sqlite {
            statements.extend(["PRAGMA table_info(pets)", "EXPLAIN DELETE FROM pets"]);
        } else {
            statements.extend([
                "SELECT * INTO others FROM pets",
                "WITH gone AS (DELETE FROM others RETURNING id) SELECT id FROM gone",
                "EXPLAIN ANALYZE UPDATE pets SET legs = 4",
                "PREPARE p AS UPDATE pets SET legs = 4",
                "EXECUTE p",
                "DEALLOCATE p",
                "TRUNCATE pets",
            ]);
        }
        // One connection, on which SQLite keeps the count of the insert.
        DatabaseService::transaction(|connection| {
            let insert = "INSERT INTO pets (id) VALUES (7), (8)";
            assert_eq!(connection.execute(insert, params! {})?, 2);
            for sql in statements {
                assert_eq!(connection.execute(sql, params! {})?, 0, "{sql}");
            }
            Ok::<_, DbError>(())
        })
        .unwrap();
    });
}

fn rows_that_triggers_and_foreign_keys_change_do_not_count(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        execute("CREATE TABLE toys (pet INTEGER REFERENCES pets (id) ON DELETE CASCADE)");
        execute("CREATE TABLE log (pet INTEGER)");
        execute("CREATE VIEW dogs AS SELECT id, name FROM pets WHERE legs = 4");
        if backend() == Backend::Sqlite {
            execute(
                "CREATE TRIGGER logged AFTER DELETE ON pets \
                 BEGIN INSERT INTO log VALUES (old.id), (old.id); END",
            );
            execute(
                "CREATE TRIGGER renamed INSTEAD OF UPDATE ON dogs \
                 BEGIN UPDATE pets SET name = new.name WHERE id = new.id; END",
            );
        } else {
            execute(
                "CREATE FUNCTION logged() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN INSERT INTO log VALUES (old.id), (old.id); RETURN old; END $$",
            );
            execute("CREATE TRIGGER logged AFTER DELETE ON pets FOR EACH ROW EXECUTE FUNCTION logged()");
            execute(
                "CREATE FUNCTION renamed() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN UPDATE pets SET name = new.name WHERE id = new.id; RETURN new; END $$",
            );
            execute(
                "CREATE TRIGGER renamed INSTEAD OF UPDATE ON dogs FOR EACH ROW EXECUTE FUNCTION renamed()",
            );
        }
        let of_view = if backend() == Backend::Sqlite { 0 } else { 2 };
        assert_eq!(execute("UPDATE dogs SET name = 'Max'"), of_view);
        assert_eq!(rows("SELECT 1 FROM pets WHERE name = 'Max'").len(), 2);
        assert_eq!(execute("INSERT INTO toys VALUES (1), (1), (2)"), 3);
        assert_eq!(execute("DELETE FROM pets WHERE legs = 4"), 2);
        assert_eq!(rows("SELECT pet FROM toys").len(), 0);
        assert_eq!(rows("SELECT pet FROM log").len(), 4);
    });
}

fn connection_and_service_return_the_same_count(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        let update = "UPDATE pets SET name = :name WHERE legs = :legs";
        let params = || params! { "name" => "it's", "legs" => 4 };
        let mut connection = DatabaseService::connection().unwrap();
        assert_eq!(connection.execute(update, params()).unwrap(), 2);
        drop(connection);
        assert_eq!(DatabaseService::execute(update, params()).unwrap(), 2);
        let unused = DatabaseService::execute(update, params().with("x", 1));
        assert!(matches!(unused, Err(DbError::UnusedParameter { .. })));
        // A plan that a change of the table has made stale is made again.
        let text = "INSERT INTO pets (id, legs) VALUES (:id, :legs)";
        let pet = |id: i32| params! { "id" => id, "legs" => "4" };
        let mut connection = DatabaseService::connection().unwrap();
        assert_eq!(connection.execute(text, pet(10)).unwrap(), 1);
        if connection.backend() == Backend::Postgres {
            execute("ALTER TABLE pets ALTER legs TYPE text");
        }
        assert_eq!(connection.execute(text, pet(11)).unwrap(), 1);
    });
}

/// SQLite commits a statement with rows only after the last row.
fn failure_after_the_last_returned_row_is_an_error(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        execute(
            "CREATE TABLE toys (id INTEGER PRIMARY KEY, \
             pet INTEGER REFERENCES pets (id) DEFERRABLE INITIALLY DEFERRED)",
        );
        let orphan = "INSERT INTO toys VALUES (1, 99) RETURNING id";
        let failed = DatabaseService::execute(orphan, params! {});
        assert!(
            matches!(failed, Err(DbError::ForeignKeyViolation { .. })),
            "{failed:?}"
        );
        assert_eq!(rows("SELECT id FROM toys").len(), 0);
        let late = if backend() == Backend::Sqlite {
            "SELECT abs(n) FROM (SELECT 1 AS n UNION ALL SELECT -9223372036854775808)"
        } else {
            "SELECT 1 / n FROM (VALUES (1), (0)) AS v (n)"
        };
        let failed = DatabaseService::execute(late, params! {});
        assert!(matches!(failed, Err(DbError::Query(_))), "{failed:?}");
    });
}

fn execute_is_measured_and_counted_like_a_query(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        let before = DatabaseService::get_pool_status().unwrap();
        let update = "UPDATE pets SET legs = 4";
        assert_eq!((execute(update), execute(update)), (3, 3));
        DatabaseService::execute("UPDATE nothing SET legs = 4", params! {}).unwrap_err();
        let after = DatabaseService::get_pool_status().unwrap();
        assert_eq!(after.successful_queries - before.successful_queries, 2);
        assert_eq!(after.failed_queries - before.failed_queries, 1);
        let statistics = DatabaseService::statistics().unwrap();
        let of_update = statistics
            .statements
            .iter()
            .find(|statement| statement.statement == update)
            .unwrap();
        assert_eq!((of_update.calls, of_update.rows), (2, 6));
    });
}

fn execute_in_a_transaction_is_rolled_back_with_it(database: &TestDatabase) {
    database.scope().run(|| {
        create_pets();
        let work = |connection: &mut Connection| {
            assert_eq!(connection.execute("DELETE FROM pets", params! {})?, 3);
            connection.execute("COMMIT", params! {})
        };
        let ended = DatabaseService::transaction(work);
        assert!(matches!(ended, Err(DbError::EndsTransaction)), "{ended:?}");
        assert_eq!(rows("SELECT id FROM pets").len(), 3);
    });
}

#[test]
fn rows_of_a_fake_answer_stand_for_the_affected_rows() {
    let fake = DatabaseService::fake(|sql, params: &Params| {
        assert!(sql.starts_with("UPDATE"));
        let matches = params.get("name") == Some(&Value::from("Rex"));
        Ok(vec![
            Row::new([("id", Value::from(1))]);
            usize::from(matches)
        ])
    });
    Scope::new().provide(fake).run(|| {
        let update = |name: &str| {
            let sql = "UPDATE pets SET legs = 4 WHERE name = :name";
            DatabaseService::execute(sql, params! { "name" => name }).unwrap()
        };
        assert_eq!((update("Rex"), update("Tom")), (1, 0));
    });
}
