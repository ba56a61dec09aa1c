//! What an error tells, and what it keeps to itself.

use std::error::Error as _;

use db_service::{Connection, DatabaseService, DbError, PooledConnection, Row, params};
use tests::TestDatabase;

on_both_backends!(
    constraints_say_what_they_are_about,
    statements_and_values_are_not_shown,
    what_may_only_be_read_is_told,
);

fn execute(sql: &str) -> Result<Vec<Row>, DbError> {
    DatabaseService::execute_query(sql, params! {})
}

fn constraints_say_what_they_are_about(database: &TestDatabase) {
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

/// Everything that an error shows, along its sources as well.
fn shown(error: &DbError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

fn statements_and_values_are_not_shown(database: &TestDatabase) {
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

fn what_may_only_be_read_is_told(database: &TestDatabase) {
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
        // And not for longer.
        DatabaseService::transaction(write).unwrap();
    });
}

fn process_of(connection: &mut Connection) -> i64 {
    let rows = connection.execute_query("SELECT pg_backend_pid() AS pid", params! {});
    rows.unwrap()[0].get("pid").unwrap()
}

fn terminate(process: i64) {
    let sql = "SELECT pg_terminate_backend(:pid::int, 10000) AS gone";
    DatabaseService::execute_query(sql, params! { "pid" => process }).unwrap();
}

#[test]
fn time_limits_and_losses_are_told_apart() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute("CREATE TABLE t (n INTEGER)").unwrap();
        let limited = |limit: &str, sql: &str| {
            let outcome = DatabaseService::transaction(|connection| {
                connection.execute_query(&format!("SET LOCAL {limit} = '50ms'"), params! {})?;
                connection.execute_query(sql, params! {})
            });
            outcome.unwrap_err()
        };
        let error = limited("statement_timeout", "SELECT pg_sleep(60)");
        assert!(
            matches!(error, DbError::StatementTimeout(_)) && !error.is_retryable(),
            "{error}"
        );
        let mut holder: PooledConnection = DatabaseService::connection().unwrap();
        let lock = "LOCK TABLE t IN ACCESS EXCLUSIVE MODE";
        let held: Result<(), DbError> = holder.transaction(|connection| {
            connection.execute_query(lock, params! {}).unwrap();
            let error = limited("lock_timeout", lock);
            assert!(
                matches!(error, DbError::LockTimeout(_)) && error.is_retryable(),
                "{error}"
            );
            Ok(())
        });
        held.unwrap();
        let process = process_of(&mut holder);
        terminate(process);
        let error = holder.execute_query("SELECT 1", params! {}).unwrap_err();
        assert!(matches!(error, DbError::ConnectionLost(_)), "{error}");
    });
}

#[test]
fn a_connection_lost_at_commit_leaves_the_outcome_unknown() {
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
            terminate(process_of(connection));
            Ok::<_, DbError>(())
        });
        let error = error.unwrap_err();
        assert!(
            matches!(error, DbError::OutcomeUnknown(_)) && !error.is_retryable(),
            "{error}"
        );
        assert_eq!(attempts, 1, "what may have been committed is not repeated");
        let ended = DatabaseService::transaction(|connection| {
            terminate(process_of(connection));
            connection.execute_query("SELECT 1", params! {})
        });
        assert!(
            matches!(ended, Err(DbError::ConnectionLost(_))),
            "{ended:?}"
        );
    });
}
