//! Tables, and their upkeep.

use db_service::{Backend, DatabaseService, DbError, params};
use tests::TestDatabase;

on_both_backends!(tables_are_described, names_are_names, upkeep_works);

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn tables_are_described(database: &TestDatabase) {
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

fn names_are_names(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE \"Robert\"\"; DROP TABLE pets; --\" (id INTEGER)");
        execute("CREATE TABLE pets (id INTEGER)");
        execute("INSERT INTO pets VALUES (1)");
        let hostile = "Robert\"; DROP TABLE pets; --";
        assert_eq!(
            DatabaseService::get_table_info(hostile).unwrap().row_count,
            0
        );
        DatabaseService::vacuum_analyze(Some(hostile)).unwrap();
        for name in [
            "",
            " ",
            "pets ",
            "no_such_table",
            "pets; DROP TABLE pets",
            "\"pets\"",
            "'pets'",
            "pets\0",
            "ñ",
            "information_schema.pets",
        ] {
            for result in [
                DatabaseService::get_table_info(name).map(|_| ()),
                DatabaseService::vacuum_analyze(Some(name)),
            ] {
                let error = result.unwrap_err();
                assert!(
                    matches!(&error, DbError::UnknownTable { table, .. } if table == name),
                    "{name:?}: {error}"
                );
            }
        }
        assert_eq!(
            DatabaseService::get_table_info("pets").unwrap().row_count,
            1
        );
    });
}

fn upkeep_works(database: &TestDatabase) {
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
            "outside of any transaction"
        );
    });
}

#[test]
fn tables_of_every_kind_are_described() {
    TestDatabase::sqlite()
        .scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0))
        .run(|| {
            execute("CREATE TABLE pairs (a INTEGER, b INTEGER, PRIMARY KEY (a, b))");
            let columns = DatabaseService::get_table_info("pairs").unwrap().columns;
            assert!(
                columns.iter().all(|column| column.is_nullable),
                "of several, none is the row's number: {columns:?}"
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
fn schemas_of_postgres_are_searched_as_the_server_does() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE SCHEMA shop");
        execute("CREATE TABLE shop.pets (id INTEGER)");
        assert!(matches!(
            DatabaseService::get_table_info("pets"),
            Err(DbError::UnknownTable { .. })
        ));
        assert_eq!(
            DatabaseService::get_table_info("shop.pets")
                .unwrap()
                .columns
                .len(),
            1
        );
        execute("CREATE TABLE \"shop.pets\" (id INTEGER, name TEXT)");
        assert_eq!(
            DatabaseService::get_table_info("shop.pets")
                .unwrap()
                .columns
                .len(),
            2,
            "the exact name comes first"
        );
    });
}
