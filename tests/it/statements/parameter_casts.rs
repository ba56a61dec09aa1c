//! Text parameters for PostgreSQL columns of any type. The server reads the text as it reads a literal.

use db_service::{DatabaseService, DbError, Params, Row, params};
use tests::TestDatabase;

const TABLE: &str = "CREATE TABLE t (id uuid, moment timestamptz, day date, document jsonb, price numeric(10, 2), \
    tags text[], numbers int[], mood mood, name varchar(20), n bigint, note text)";
const INSERT: &str = "INSERT INTO t VALUES (:id, :moment, :day, :document, :price, :tags, :numbers, :mood, :name, :n, :note)";
const ID: &str = "6a8d1c6e-0f8e-4f1c-8f0a-0c1d2e3f4a5b";

fn execute(sql: &str, params: Params) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params)
}

fn row(note: Option<&str>) -> Params {
    params! {
        "id" => ID, "moment" => "2026-11-23 12:00:00+02", "day" => "2026-11-23",
        "document" => "{\"a\": [1, null]}", "price" => "12.30", "tags" => "{a,\"b c\"}",
        "numbers" => "{1,2}", "mood" => "it's fine", "name" => "Rex", "n" => "42", "note" => note
    }
}

/// Returns each row of the table as one text.
fn shown() -> Vec<String> {
    let sql = "SELECT concat_ws('|', id, moment AT TIME ZONE 'UTC', day, document, price, tags, numbers, mood, name, n, note) AS shown FROM t";
    let rows = execute(sql, params! {}).unwrap();
    rows.iter().map(|row| row.get("shown").unwrap()).collect()
}

const SHOWN: &str = "6a8d1c6e-0f8e-4f1c-8f0a-0c1d2e3f4a5b|2026-11-23 10:00:00|2026-11-23|{\"a\": [1, null]}|12.30|{a,\"b c\"}|{1,2}|it's fine|Rex|42";

#[test]
fn text_is_accepted_for_columns_of_any_type() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TYPE mood AS ENUM ('it''s fine', 'bad')", params! {}).unwrap();
        execute(TABLE, params! {}).unwrap();
        execute(INSERT, row(None)).unwrap();
        // A column of a batch has both text and NULL. In comparisons, a parameter can appear twice.
        DatabaseService::execute_many(INSERT, &[row(Some("x")), row(None)]).unwrap();
        let mut rows = shown();
        rows.sort();
        assert_eq!(rows, [SHOWN.to_owned(), SHOWN.to_owned(), format!("{SHOWN}|x")]);
        let sql = "SELECT count(*) AS count FROM t WHERE id = :id AND (moment = :moment OR moment > :moment) AND 2 = any(numbers) AND name = :name";
        let found = params! { "id" => ID, "moment" => "2026-11-23 10:00:00+00", "name" => "Rex" };
        assert_eq!(execute(sql, found).unwrap()[0].get::<i64>("count").unwrap(), 3);
        // The next call passes a value of another type.
        execute("INSERT INTO t (n, note) VALUES (:n, :note)", params! { "n" => "1", "note" => "text" }).unwrap();
        execute("INSERT INTO t (n, note) VALUES (:n, :note)", params! { "n" => 2, "note" => None::<&str> }).unwrap();
        let some = [params! { "id" => ID, "day" => None::<&str> }, params! { "id" => None::<&str>, "day" => "2026-11-23" }];
        DatabaseService::execute_many("INSERT INTO t (id, day) VALUES (:id, :day)", &some).unwrap();
        // Text that is not valid for the type is an error, which does not show the text.
        let error = execute("SELECT 1 FROM t WHERE id = :id", params! { "id" => "secret" }).unwrap_err();
        assert!(error.to_string().contains("uuid") && !error.to_string().contains("secret"), "{error}");
    });
}

#[test]
fn type_lookup_does_not_change_the_transaction() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE t (id uuid)", params! {}).unwrap();
        let committed: Result<(), DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query("INSERT INTO t VALUES (:id)", params! { "id" => ID })?;
            // The server cannot determine these types, so the statement is executed unchanged.
            let sql = "SELECT :a = :b AS same";
            let rows = connection.execute_query(sql, params! { "a" => "x", "b" => "x" })?;
            assert!(rows[0].get::<bool>("same")?);
            let missing = "SELECT n FROM nowhere WHERE n = :n";
            let nested: Result<_, DbError> = connection.transaction(|connection| {
                connection.execute_query(missing, params! { "n" => "x" })
            });
            assert!(matches!(nested, Err(DbError::Query(_))), "{nested:?}");
            Ok(())
        });
        committed.unwrap();
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!((status.transactions_committed, status.invalid), (1, 0));
        let rows = execute(
            "SELECT id::text AS id FROM t WHERE id = :id",
            params! { "id" => ID },
        )
        .unwrap();
        assert_eq!(rows[0].get::<String>("id").unwrap(), ID);
    });
}

#[test]
fn changed_column_type_is_looked_up_again() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            execute("CREATE TABLE t (n text)", params! {}).unwrap();
            let insert = || execute("INSERT INTO t VALUES (:n)", params! { "n" => "7" });
            insert().unwrap();
            execute("ALTER TABLE t ALTER n TYPE int USING n::int", params! {}).unwrap();
            insert().unwrap();
            execute(
                "ALTER TABLE t ALTER n TYPE int[] USING ARRAY[n]",
                params! {},
            )
            .unwrap();
            let error = insert().unwrap_err();
            assert!(error.to_string().contains("malformed array"), "{error}");
            execute("ALTER TABLE t ALTER n TYPE text", params! {}).unwrap();
            insert().unwrap();
        });
}

#[test]
fn text_is_not_truncated_to_the_length_of_a_type() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute(
            "CREATE TABLE t (f bit(3), g bit varying(3), c char(2)[])",
            params! {},
        )
        .unwrap();
        let row = || params! { "f" => "101", "g" => "11", "c" => "{ab,cd}" };
        execute("INSERT INTO t VALUES (:f, :g, :c)", row()).unwrap();
        let sql = "SELECT 1 AS one FROM t WHERE f = :f AND g = :g AND c = :c";
        assert_eq!(execute(sql, row()).unwrap().len(), 1);
        let insert = "INSERT INTO t (f) VALUES (:f)";
        let error = execute(insert, params! { "f" => "1010" }).unwrap_err();
        assert!(matches!(error, DbError::Query(_)), "{error}");
    });
}
