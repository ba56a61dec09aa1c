//! Table names: quoting, case, schemas and invalid names.

use db_service::{Backend, DatabaseService, DbError, params};
use tests::TestDatabase;

on_both_backends!(
    table_names_are_never_executed_as_sql,
    listed_tables_can_be_described,
    tables_created_in_a_transaction_are_described,
);

fn execute(sql: &str) {
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn table_names_are_never_executed_as_sql(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE \"Robert\"\"; DROP TABLE pets; --\" (id INTEGER)");
        execute("CREATE TABLE pets (id INTEGER)");
        execute("INSERT INTO pets VALUES (1)");
        let quoted = "\"Robert\"\"; DROP TABLE pets; --\"";
        assert_eq!(
            DatabaseService::get_table_info(quoted).unwrap().row_count,
            0
        );
        DatabaseService::vacuum_analyze(Some(quoted)).unwrap();
        let long = "x".repeat(10_000);
        for name in [
            "no_such_table",
            "ñ",
            "information_schema.pets",
            "nowhere.pets",
            "\"'; SELECT 1\"",
            &long,
        ] {
            for error in errors_for(name) {
                assert!(
                    matches!(&error, DbError::UnknownTable { table, .. } if table == name),
                    "{name:?}: {error}"
                );
                assert!(error.to_string().len() < 300, "{error}");
            }
        }
        let unclosed = format!("\"{long}");
        for name in [
            "",
            " ",
            "pets ",
            "pets; DROP TABLE pets",
            "Robert\"; DROP TABLE pets; --",
            "'pets'",
            "pets\0",
            "\"pets\0\"",
            "\"pets",
            "a.b.pets",
            ".pets",
            &unclosed,
        ] {
            for error in errors_for(name) {
                assert!(
                    matches!(&error, DbError::InvalidTableName { table, .. } if table == name),
                    "{name:?}: {error}"
                );
                assert!(error.to_string().len() < 300, "{error}");
            }
        }
        assert_eq!(
            DatabaseService::get_table_info("pets").unwrap().row_count,
            1
        );
    });
}

fn errors_for(name: &str) -> [DbError; 2] {
    [
        DatabaseService::get_table_info(name).unwrap_err(),
        DatabaseService::vacuum_analyze(Some(name)).unwrap_err(),
    ]
}

fn listed_tables_can_be_described(database: &TestDatabase) {
    database.scope().run(|| {
        let is_postgres = database.url().starts_with("postgres");
        let names = ["pets", "Pets of Mine", "my.pets", "\"", "größe", "9lives"];
        for (width, name) in names.iter().enumerate() {
            let columns: Vec<_> = (0..=width)
                .map(|column| format!("c{column} INTEGER"))
                .collect();
            let name = name.replace('"', "\"\"");
            execute(&format!(
                "CREATE TABLE \"{name}\" ({}, PRIMARY KEY (c0))",
                columns.join(", ")
            ));
        }
        execute("CREATE TABLE toys (pet INTEGER REFERENCES \"my.pets\")");
        let listed = DatabaseService::list_tables().unwrap();
        assert_eq!(
            listed,
            [
                "\"\"\"\"",
                "\"9lives\"",
                "\"Pets of Mine\"",
                "\"größe\"",
                "\"my.pets\"",
                "pets",
                "toys"
            ]
        );
        for (width, listed) in
            [(3, 0), (5, 1), (1, 2), (4, 3), (2, 4), (0, 5)].map(|(width, at)| (width, &listed[at]))
        {
            let table = DatabaseService::get_table_info(listed).unwrap();
            assert_eq!(
                (table.columns.len(), table.primary_key.len()),
                (width + 1, 1),
                "{listed}"
            );
            DatabaseService::vacuum_analyze(Some(listed)).unwrap();
        }
        let keys = DatabaseService::get_table_info("toys")
            .unwrap()
            .foreign_keys;
        assert_eq!(keys[0].referenced_table, "\"my.pets\"");
        // As in SQL, unquoted names are case-insensitive.
        let schema = if is_postgres { "public" } else { "main" };
        for name in [
            "PETS",
            "\"pets\"",
            &format!("{schema}.Pets"),
            &format!("\"{schema}\".\"pets\""),
        ] {
            assert_eq!(
                DatabaseService::get_table_info(name).unwrap().columns.len(),
                1,
                "{name}"
            );
        }
        assert_eq!(
            DatabaseService::get_table_info("\"PETS\"").is_ok(),
            !is_postgres
        );
        // Without quotes, `my.pets` is the table `pets` of the schema `my`.
        assert!(matches!(
            DatabaseService::get_table_info("my.pets"),
            Err(DbError::UnknownTable { .. })
        ));
    });
}

fn tables_created_in_a_transaction_are_described(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        let listed: Result<_, DbError> = DatabaseService::transaction(|connection| {
            connection.execute_query(
                "CREATE TEMPORARY TABLE pets (id INTEGER, name TEXT)",
                params! {},
            )?;
            connection.execute_query("CREATE TABLE toys (id INTEGER)", params! {})?;
            let width = |connection: &mut db_service::Connection, name| {
                connection
                    .get_table_info(name)
                    .map(|table| table.columns.len())
            };
            let permanent = if connection.backend() == Backend::Sqlite {
                "main.pets"
            } else {
                "public.pets"
            };
            assert_eq!(
                (width(connection, "pets")?, width(connection, permanent)?),
                (2, 1)
            );
            connection.list_tables()
        });
        let shadowed = if database.url().starts_with("sqlite") {
            "main.pets"
        } else {
            "public.pets"
        };
        assert_eq!(listed.unwrap(), [shadowed, "toys"]);
        assert_eq!(DatabaseService::list_tables().unwrap(), ["pets", "toys"]);
    });
}

#[test]
fn attached_sqlite_databases_are_described() {
    let (database, other) = (TestDatabase::sqlite(), TestDatabase::sqlite());
    database.scope().run(|| {
        execute("CREATE TABLE pets (id INTEGER)");
        execute("CREATE TABLE toys (id INTEGER)");
        let mut connection = DatabaseService::connection().unwrap();
        let path = other.url().strip_prefix("sqlite:///").unwrap();
        let mut run = |sql: &str| connection.execute_query(sql, params! {}).unwrap();
        run(&format!("ATTACH '{path}' AS \"Other Pets\""));
        run("CREATE TABLE \"Other Pets\".pets (id INTEGER PRIMARY KEY, name TEXT)");
        run("CREATE INDEX \"Other Pets\".by_name ON pets (name)");
        run("CREATE TABLE \"Other Pets\".toys (pet INTEGER REFERENCES pets)");
        assert_eq!(
            connection.list_tables().unwrap(),
            ["\"Other Pets\".pets", "\"Other Pets\".toys", "pets", "toys"]
        );
        let mut table = |name: &str| connection.get_table_info(name).unwrap();
        assert_eq!(table("pets").columns.len(), 1);
        assert_eq!(table("MAIN.pets").primary_key, [""; 0]);
        let pets = table("\"other pets\".PETS");
        assert_eq!(
            (
                pets.columns.len(),
                pets.primary_key.len(),
                pets.indexes.len()
            ),
            (2, 1, 1)
        );
        assert!(pets.size_bytes.unwrap() >= 4096, "{pets:?}");
        let toys = table("\"Other Pets\".toys");
        assert_eq!(toys.foreign_keys[0].referenced_table, "\"Other Pets\".pets");
    });
}
