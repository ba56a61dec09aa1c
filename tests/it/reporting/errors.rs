//! Errors: their kinds, what they show, and what they do not show.

pub(crate) mod causes;
mod details;

use db_service::{Connection, DatabaseService, DbError, PooledConnection, Row, params};
use tests::TestDatabase;

on_both_backends!(
    constraint_violations_name_the_constraint_table_and_columns,
    errors_do_not_show_statements_or_values,
    write_in_a_read_only_transaction_returns_read_only,
);

fn execute(sql: &str) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params! {})
}

fn constraint_violations_name_the_constraint_table_and_columns(database: &TestDatabase) {
    database.scope().run(|| {
        let is_postgres = database.url().starts_with("postgres");
        execute("CREATE TABLE owners (id INTEGER PRIMARY KEY)").unwrap();
        execute(
            "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL, \
             owner INTEGER CONSTRAINT pets_owner REFERENCES owners (id), \
             legs INTEGER CONSTRAINT pets_legs CHECK (legs >= 0))",
        )
        .unwrap();
        execute("INSERT INTO pets VALUES (1, 'Rex', NULL, 4)").unwrap();
        let failure = |values: &str| execute(&format!("INSERT INTO pets {values}")).unwrap_err();
        match failure("VALUES (1, 'Rex', NULL, 4)") {
            DbError::UniqueViolation { table, columns, .. } => {
                assert_eq!(
                    (table.as_deref(), &*columns),
                    (Some("pets"), &["id".to_owned()][..])
                );
            }
            other => panic!("{other}"),
        }
        match failure("VALUES (2, NULL, NULL, 4)") {
            DbError::NotNullViolation { table, column, .. } => {
                assert_eq!(
                    (table.as_deref(), column.as_deref()),
                    (Some("pets"), Some("name"))
                );
            }
            other => panic!("{other}"),
        }
        match failure("VALUES (2, 'Rex', NULL, -1)") {
            DbError::CheckViolation {
                constraint, table, ..
            } => {
                assert_eq!(constraint.as_deref(), Some("pets_legs"));
                assert_eq!(table.as_deref(), is_postgres.then_some("pets"));
            }
            other => panic!("{other}"),
        }
        match failure("VALUES (2, 'Rex', 7, 4)") {
            DbError::ForeignKeyViolation {
                constraint, table, ..
            } => {
                assert_eq!(constraint.as_deref(), is_postgres.then_some("pets_owner"));
                assert_eq!(table.as_deref(), is_postgres.then_some("pets"));
            }
            other => panic!("{other}"),
        }
        assert!(matches!(execute("SELEC 1"), Err(DbError::Syntax(_))));
        assert!(matches!(
            execute("SELECT * FROM nowhere"),
            Err(DbError::Query(_))
        ));
    });
}

/// Returns everything that an error and its causes show.
fn shown(error: &DbError) -> String {
    let mut text = format!("{error} {error:?}");
    for cause in causes::causes(error) {
        text += &format!(" {cause} {cause:?}");
    }
    text
}

fn errors_do_not_show_statements_or_values(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER PRIMARY KEY CHECK (n < 100), d TEXT UNIQUE)").unwrap();
        let insert = "INSERT INTO t VALUES (:n, :d)";
        let secret = || params! { "n" => 4711, "d" => "secret" };
        let mut errors = vec![
            DatabaseService::execute_query(insert, secret()).unwrap_err(),
            DatabaseService::execute_query("SELEC 'secret', 4711", params! {}).unwrap_err(),
            DatabaseService::execute_query("SELECT 'secret' secret secret", params! {})
                .unwrap_err(),
        ];
        execute("INSERT INTO t VALUES (1, 'secret')").unwrap();
        let again = params! { "n" => 2, "d" => "secret" };
        errors.push(DatabaseService::execute_query(insert, again).unwrap_err());
        if database.url().starts_with("postgres") {
            for sql in [
                "SELECT 'secret'::int",
                "SELECT '{secret'::int[]",
                "SELECT to_date('secret', 'YYYY')",
            ] {
                errors.push(execute(sql).unwrap_err());
            }
        }
        for error in errors {
            let shown = shown(&error);
            assert!(
                !shown.contains("secret") && !shown.contains("4711"),
                "{shown}"
            );
        }
    });
}

fn write_in_a_read_only_transaction_returns_read_only(database: &TestDatabase) {
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let options = db_service::TransactionOptions {
            read_only: true,
            ..Default::default()
        };
        let write = |connection: &mut Connection| {
            connection.execute_query("SELECT n FROM t", params! {})?;
            connection.execute_query("INSERT INTO t VALUES (1)", params! {})
        };
        let error = DatabaseService::transaction_with(&options, write).unwrap_err();
        assert!(matches!(error, DbError::ReadOnly(_)), "{error}");
        // The next transaction may write again.
        DatabaseService::transaction(write).unwrap();
    });
}

fn backend_pid(connection: &mut Connection) -> i64 {
    let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
    rows.unwrap()[0].get("pid").unwrap()
}

fn terminate(pid: i64) {
    let sql = "SELECT pg_terminate_backend(:pid::int, 10000) AS gone";
    DatabaseService::execute_query(sql, params! { "pid" => pid }).unwrap();
}

#[test]
fn timeouts_and_lost_connections_are_distinguished() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let time_out = |setting: &str, sql: &str| {
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query(&format!("SET LOCAL {setting} = '50ms'"), params! {})?;
                connection.execute_query(sql, params! {})
            });
            outcome.unwrap_err()
        };
        let error = time_out("statement_timeout", "SELECT pg_sleep(60)");
        assert!(
            matches!(error, DbError::StatementTimeout(_)) && !error.is_retryable(),
            "{error}"
        );
        let mut holder: PooledConnection = DatabaseService::connection().unwrap();
        let lock = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE";
        let held: Result<(), DbError> = holder.transaction(|connection| {
            connection.execute_query(lock, params! {}).unwrap();
            let error = time_out("lock_timeout", lock);
            assert!(
                matches!(error, DbError::LockTimeout(_)) && error.is_retryable(),
                "{error}"
            );
            Ok(())
        });
        held.unwrap();
        let pid = backend_pid(&mut holder);
        terminate(pid);
        let error = holder.execute_query("SELECT 1", params! {}).unwrap_err();
        assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
    });
}

#[test]
fn connection_lost_at_commit_returns_outcome_unknown() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let mut attempts = 0;
        let options = db_service::TransactionOptions {
            retries: 5,
            ..Default::default()
        };
        let error = DatabaseService::transaction_with(&options, |connection| {
            attempts += 1;
            connection.execute_query("INSERT INTO t VALUES (1)", params! {})?;
            terminate(backend_pid(connection));
            Ok::<_, DbError>(())
        });
        let error = error.unwrap_err();
        assert!(
            matches!(error, DbError::OutcomeUnknown(_)) && !error.is_retryable(),
            "{error}"
        );
        assert_eq!(
            attempts, 1,
            "a transaction that may have been committed is not retried"
        );
        let ended = DatabaseService::transaction(|connection| {
            terminate(backend_pid(connection));
            connection.execute_query("SELECT 1", params! {})
        });
        assert!(
            matches!(ended, Err(DbError::ConnectionLost(_))),
            "{ended:?}"
        );
    });
}
