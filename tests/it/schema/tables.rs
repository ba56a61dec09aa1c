//! Descriptions of tables, keys and indexes, and `vacuum_analyze`.

use db_service::{Backend, DatabaseService, DbError, params};
use tests::TestDatabase;

on_both_backends!(
    columns_and_row_counts_are_described,
    keys_and_indexes_are_described,
    vacuum_analyze_runs_outside_a_transaction,
);

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn columns_and_row_counts_are_described(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER PRIMARY KEY, name VARCHAR(20) NOT NULL DEFAULT 'Rex', born DATE)");
        execute("INSERT INTO pets (id) VALUES (1), (2)");
        let table = DatabaseService::get_table_info("pets").unwrap();
        assert_eq!((table.table_name.as_str(), table.row_count), ("pets", 2));
        let names: Vec<_> = table.columns.iter().map(|column| column.column_name.as_str()).collect();
        assert_eq!(names, ["id", "name", "born"]);
        assert_eq!(table.columns.iter().map(|column| column.is_nullable).collect::<Vec<_>>(), [false, false, true]);
        let (data_type, default) = match DatabaseService::connection().unwrap().backend() {
            Backend::Postgres => ("character varying", "'Rex'::character varying"),
            _ => ("VARCHAR(20)", "'Rex'"),
        };
        assert_eq!(table.columns[1].data_type, data_type);
        assert_eq!(table.columns[1].column_default.as_deref(), Some(default));
        assert_eq!(table.columns[2].column_default, None);
    });
}

fn vacuum_analyze_runs_outside_a_transaction(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        DatabaseService::vacuum_analyze(None).unwrap();
        DatabaseService::vacuum_analyze(Some("pets")).unwrap();
        let status = DatabaseService::get_pool_status().unwrap();
        assert_eq!(
            (
                status.transactions_committed,
                status.transactions_rolled_back
            ),
            (0, 0),
            "no transaction is counted"
        );
    });
}

#[test]
fn composite_keys_and_materialized_views_are_described() {
    TestDatabase::sqlite()
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            execute("CREATE TABLE pairs (a INTEGER, b INTEGER, PRIMARY KEY (a, b))");
            let columns = DatabaseService::get_table_info("pairs").unwrap().columns;
            assert!(
                columns.iter().all(|column| column.is_nullable),
                "no column of a composite key is the rowid: {columns:?}"
            );
        });
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE MATERIALIZED VIEW seen AS SELECT 1 AS n, 'x'::text AS s");
        let table = DatabaseService::get_table_info("seen").unwrap();
        let columns: Vec<_> = table
            .columns
            .iter()
            .map(|column| (column.column_name.as_str(), column.data_type.as_str()))
            .collect();
        assert_eq!(
            (columns, table.row_count),
            (vec![("n", "integer"), ("s", "text")], 1)
        );
    });
}

#[test]
fn postgres_tables_are_found_by_schema_and_search_path() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE SCHEMA shop");
        execute("CREATE TABLE shop.pets (id INTEGER)");
        let width = |table| DatabaseService::get_table_info(table).map(|found| found.columns.len());
        assert!(matches!(width("pets"), Err(DbError::UnknownTable { .. })));
        execute("CREATE TABLE \"shop.pets\" (id INTEGER, name TEXT)");
        execute("CREATE SCHEMA \"my.shop\"");
        execute("CREATE TABLE \"my.shop\".\"my pets\" (a INTEGER, b INTEGER, c INTEGER)");
        let listed = DatabaseService::list_tables().unwrap();
        assert_eq!(
            listed,
            ["\"my.shop\".\"my pets\"", "\"shop.pets\"", "shop.pets"]
        );
        assert_eq!(
            listed
                .iter()
                .map(|table| width(table).unwrap())
                .collect::<Vec<_>>(),
            [3, 2, 1]
        );
        // A long name is truncated as the server truncates it.
        let long = "x".repeat(70);
        execute(&format!("CREATE TABLE {long} (id INTEGER)"));
        assert_eq!(width(&long).unwrap(), 1);
    });
}

fn keys_and_indexes_are_described(database: &TestDatabase) {
    database.scope().run(|| {
        let is_postgres = database.url().starts_with("postgres");
        execute("CREATE TABLE \"My Owners\" (a INTEGER, b INTEGER, PRIMARY KEY (b, a))");
        execute(
            "CREATE TABLE pets (id INTEGER PRIMARY KEY, x INTEGER, y INTEGER, name TEXT, mother INTEGER REFERENCES pets (id), \
             CONSTRAINT pets_owner FOREIGN KEY (x, y) REFERENCES \"My Owners\" (b, a))",
        );
        execute("CREATE UNIQUE INDEX pets_by_name ON pets (name, lower(name))");
        execute("CREATE INDEX \"pets; by id\" ON pets (y DESC)");
        execute("CREATE VIEW cats AS SELECT * FROM pets");
        execute("INSERT INTO pets (id, name) VALUES (1, 'Rex')");
        assert_eq!(DatabaseService::list_tables().unwrap(), ["\"My Owners\"", "pets"]);
        let owners = DatabaseService::get_table_info("\"My Owners\"").unwrap();
        assert_eq!(owners.primary_key, ["b", "a"]);
        let pets = DatabaseService::get_table_info("pets").unwrap();
        assert_eq!(pets.primary_key, ["id"]);
        assert!(pets.size_bytes.unwrap() >= 4096, "{:?}", pets.size_bytes);
        let indexes: Vec<_> = pets
            .indexes
            .iter()
            .filter(|index| index.index_name != "pets_pkey")
            .map(|index| (index.index_name.as_str(), index.is_unique, index.columns.clone()))
            .collect();
        let some = |name: &str| Some(name.to_owned());
        let expression = is_postgres.then(|| "lower(name)".to_owned());
        assert_eq!(
            indexes,
            [
                ("pets; by id", false, vec![some("y")]),
                ("pets_by_name", true, vec![some("name"), expression]),
            ]
        );
        let keys: Vec<_> = pets
            .foreign_keys
            .iter()
            .map(|key| (key.referenced_table.as_str(), key.columns.join(","), key.referenced_columns.join(",")))
            .collect();
        assert_eq!(
            keys,
            [
                ("pets", "mother".to_owned(), "id".to_owned()),
                ("\"My Owners\"", "x,y".to_owned(), "b,a".to_owned()),
            ]
        );
        let name = pets.foreign_keys[1].constraint_name.as_deref();
        assert_eq!(name, is_postgres.then_some("pets_owner"));
        let cats = DatabaseService::get_table_info("cats").unwrap();
        assert!(cats.indexes.is_empty() && cats.foreign_keys.is_empty() && cats.primary_key.is_empty());
        if is_postgres {
            execute("CREATE SCHEMA shop");
            execute("CREATE TABLE shop.items (id INTEGER PRIMARY KEY, pet INTEGER REFERENCES pets)");
            execute("CREATE TABLE shop.parts (item INTEGER REFERENCES shop.items)");
            assert_eq!(
                DatabaseService::list_tables().unwrap(),
                ["\"My Owners\"", "pets", "shop.items", "shop.parts"]
            );
            let parts = DatabaseService::get_table_info("shop.parts").unwrap();
            assert_eq!(parts.foreign_keys[0].referenced_table, "shop.items");
        }
    });
}

#[test]
fn tables_of_virtual_tables_are_described_but_not_listed() {
    TestDatabase::sqlite().scope().run(|| {
        execute("CREATE TABLE plain (n INTEGER PRIMARY KEY AUTOINCREMENT)");
        execute("CREATE VIRTUAL TABLE notes USING fts5(body)");
        execute("CREATE VIRTUAL TABLE places USING rtree(id, left, right)");
        execute("INSERT INTO notes VALUES ('a note')");
        execute("ANALYZE");
        let tables = DatabaseService::list_tables().unwrap();
        assert_eq!(tables, ["notes", "places", "plain"]);
        let content = DatabaseService::get_table_info("notes_content").unwrap();
        assert_eq!((content.row_count, content.columns.len()), (1, 2));
        assert_eq!(
            DatabaseService::get_table_info("notes").unwrap().row_count,
            1
        );
    });
}

#[test]
fn temporary_tables_and_tables_of_extensions_are_not_listed() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE plain (n int)");
        execute("CREATE TABLE of_extension (n int)");
        // Every database has this extension.
        execute("ALTER EXTENSION plpgsql ADD TABLE of_extension");
        let mut other = DatabaseService::connection().unwrap();
        other
            .execute("CREATE TEMP TABLE temporary (n int)", params! {})
            .unwrap();
        assert_eq!(DatabaseService::list_tables().unwrap(), ["plain"]);
        assert_eq!(other.list_tables().unwrap(), ["plain"]);
        assert_eq!(
            DatabaseService::get_table_info("of_extension")
                .unwrap()
                .row_count,
            0
        );
        execute("ALTER EXTENSION plpgsql DROP TABLE of_extension");
    });
}
