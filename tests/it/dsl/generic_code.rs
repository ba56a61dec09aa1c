//! Code that is generic over diesel's `Connection`, on a [`Connection`] and on a [`PooledConnection`].

use std::time::Duration;

use db_service::{
    Connection, DatabaseService, DbError, MultiBackend, MultiTransactionManager, PooledConnection,
    params,
};
use diesel::connection::{
    AnsiTransactionManager, DefaultLoadingMode, LoadConnection, SimpleConnection,
    TransactionManager,
};
use diesel::migration::{MigrationConnection, MigrationVersion};
use diesel::prelude::*;
use diesel::query_dsl::UpdateAndFetchResults;
use diesel::result::Error as DieselError;
use diesel_migrations::{
    EmbeddedMigration, EmbeddedMigrations, EmbeddedName, MigrationHarness, TomlMetadataWrapper,
};
use tests::TestDatabase;

use super::tables::{Pet, create_rows, execute, is_postgres, names, pets};

on_both_backends!(
    generic_function_runs_on_both_connections,
    generic_transaction_commits_and_rolls_back,
    generic_transaction_waits_for_the_write_lock_when_it_begins,
    generic_transaction_refuses_to_commit_after_a_failure,
    generic_transaction_manager_begins_and_ends_transactions,
    transaction_that_ends_itself_is_refused,
    errors_of_this_crate_come_back_from_with_connection,
    migrations_are_run_by_the_harness_of_diesel,
);

/// Runs a generic function on a [`PooledConnection`] and on the [`Connection`] inside.
macro_rules! on_both_connections {
    ($function:ident ( $($argument:expr),* )) => {{
        let mut pooled = DatabaseService::connection().unwrap();
        let first = $function(&mut pooled, $($argument),*);
        let connection: &mut Connection = &mut pooled;
        [first, $function(connection, $($argument),*)]
    }};
}

fn rename<C>(connection: &mut C, id: i64, name: &str) -> QueryResult<Pet>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    diesel::update(pets::table.find(id))
        .set(pets::name.eq(name))
        .execute(connection)?;
    pets::table
        .filter(pets::name.eq_any([name]))
        .select(Pet::as_select())
        .first(connection)
}

fn rename_then<C>(
    connection: &mut C,
    name: &str,
    outcome: impl Fn() -> QueryResult<()>,
) -> QueryResult<i64>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    connection.transaction(|connection| {
        let pet = rename(connection, 1, name)?;
        // A savepoint.
        let inner: QueryResult<()> = connection.transaction(|connection| {
            rename(connection, 2, name)?;
            Err(DieselError::RollbackTransaction)
        });
        assert_eq!(inner, Err(DieselError::RollbackTransaction));
        outcome()?;
        Ok(pet.id)
    })
}

#[test]
fn connections_have_the_traits_of_diesel() {
    fn assert_connection<C>()
    where
        C: diesel::Connection<Backend = MultiBackend, TransactionManager = MultiTransactionManager>
            + LoadConnection<DefaultLoadingMode>
            + SimpleConnection
            + MigrationConnection
            + MigrationHarness<MultiBackend>
            + Send
            + 'static,
        for<'a> C: UpdateAndFetchResults<&'a Pet, Pet>,
        MultiTransactionManager:
            TransactionManager<C, TransactionStateData = AnsiTransactionManager>,
    {
    }
    assert_connection::<Connection>();
    assert_connection::<PooledConnection>();
}

fn generic_function_runs_on_both_connections(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let [pooled, plain] = on_both_connections!(rename(1, "Max"));
        assert_eq!(pooled.unwrap().name, "Max");
        assert_eq!(plain.unwrap().name, "Max");
        assert_eq!(names(), ["Max", "Tom", "Kit", "Ox"]);
        let temporary: String = pets::table
            .find(3)
            .select(pets::name)
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(temporary, "Kit");
    });
}

fn generic_transaction_commits_and_rolls_back(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        for outcome in on_both_connections!(rename_then("Max", || Err(DieselError::NotFound))) {
            assert_eq!(outcome, Err(DieselError::NotFound));
        }
        assert_eq!(names(), ["Rex", "Tom", "Kit", "Ox"]);
        for outcome in on_both_connections!(rename_then("Max", || Ok(()))) {
            assert_eq!(outcome, Ok(1));
        }
        assert_eq!(names(), ["Max", "Tom", "Kit", "Ox"]);
    });
}

/// Reads in a transaction, and returns how a write of another connection ends meanwhile.
fn write_during_a_read<C>(connection: &mut C) -> Result<(), DbError>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    let write = connection.transaction(|connection| {
        pets::table.count().get_result::<i64>(connection)?;
        let write = DatabaseService::with_connection(|other| {
            diesel::update(pets::table.find(4))
                .set(pets::weight.eq(1))
                .execute(other)
        });
        Ok::<_, DieselError>(write)
    });
    write.unwrap().map(drop)
}

fn generic_transaction_waits_for_the_write_lock_when_it_begins(database: &TestDatabase) {
    let scope = database.scope_with(|config| config.sqlite.busy_timeout = Duration::ZERO);
    scope.run(|| {
        create_rows(database);
        for write in on_both_connections!(write_during_a_read()) {
            if is_postgres(database) {
                write.unwrap();
            } else {
                let error = write.unwrap_err();
                assert!(matches!(error, DbError::LockTimeout(_)), "{error:?}");
            }
        }
        // While another transaction has the lock, the begin itself fails, and the closure does not run.
        DatabaseService::transaction(|_| {
            let mut other = DatabaseService::connection()?;
            let mut has_run = false;
            let outcome = diesel::Connection::transaction(&mut other, |_| {
                has_run = true;
                Ok::<_, DieselError>(())
            });
            assert_eq!(
                (outcome.is_ok(), has_run),
                match is_postgres(database) {
                    true => (true, true),
                    false => (false, false),
                }
            );
            Ok::<_, DbError>(())
        })
        .unwrap();
    });
}

/// Ignores the failure of a statement, and ends the transaction successfully.
fn ignore_a_failure<C>(connection: &mut C) -> QueryResult<()>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    connection.transaction(|connection| {
        diesel::update(pets::table.find(2))
            .set(pets::weight.eq(pets::weight + 1))
            .execute(connection)?;
        let duplicate = diesel::insert_into(pets::table)
            .values((pets::id.eq(1), pets::name.eq("x")))
            .execute(connection);
        assert!(duplicate.is_err());
        Ok(())
    })
}

fn generic_transaction_refuses_to_commit_after_a_failure(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        for outcome in on_both_connections!(ignore_a_failure()) {
            if is_postgres(database) {
                let error = DbError::from(outcome.unwrap_err());
                let DbError::TransactionAborted { first, .. } = &error else {
                    panic!("{error:?}");
                };
                assert!(first.to_string().contains("pets_pkey"), "{first}");
            } else {
                // SQLite undoes only the failed statement.
                outcome.unwrap();
            }
        }
        let weight: Option<i32> = pets::table
            .find(2)
            .select(pets::weight)
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(weight, Some(if is_postgres(database) { 4 } else { 6 }));
    });
}

/// Begins and ends transactions as libraries over diesel do.
fn begin_and_end<C>(connection: &mut C) -> QueryResult<()>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    C::TransactionManager::begin_transaction(connection)?;
    rename(connection, 1, "a")?;
    C::TransactionManager::begin_transaction(connection)?;
    rename(connection, 2, "b")?;
    C::TransactionManager::rollback_transaction(connection)?;
    C::TransactionManager::commit_transaction(connection)?;
    let nothing = C::TransactionManager::commit_transaction(connection);
    assert!(matches!(nothing, Err(DieselError::NotInTransaction)));
    C::TransactionManager::begin_transaction(connection)?;
    rename(connection, 3, "c")?;
    C::TransactionManager::rollback_transaction(connection)
}

fn generic_transaction_manager_begins_and_ends_transactions(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        for outcome in on_both_connections!(begin_and_end()) {
            assert_eq!(outcome, Ok(()));
        }
        assert_eq!(names(), ["a", "Tom", "Kit", "Ox"]);
    });
}

fn commit_inside<C>(connection: &mut C) -> QueryResult<()>
where
    C: diesel::Connection<Backend = MultiBackend> + LoadConnection,
{
    connection.transaction(|connection| {
        rename(connection, 1, "a")?;
        diesel::sql_query("COMMIT").execute(connection)?;
        Ok(())
    })
}

fn transaction_that_ends_itself_is_refused(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        for outcome in on_both_connections!(commit_inside()) {
            let error = DbError::from(outcome.unwrap_err());
            assert!(matches!(error, DbError::EndsTransaction), "{error:?}");
        }
        assert_eq!(names()[0], "Rex");
    });
}

fn errors_of_this_crate_come_back_from_with_connection(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let error = DatabaseService::with_connection(|connection| {
            connection.execute_query("SELECT :a", params! {})?;
            Ok(())
        });
        let error = error.unwrap_err();
        assert!(
            matches!(&error, DbError::MissingParameter { name, .. } if name == "a"),
            "{error:?}"
        );
    });
}

const CREATE: EmbeddedMigration = migration(
    "001_create",
    "CREATE TABLE one (a INTEGER); INSERT INTO one VALUES (7)",
    "DROP TABLE one",
);
const CHANGE: EmbeddedMigration =
    migration("002_change", "UPDATE one SET a = 8", "UPDATE one SET a = 7");

const fn migration(name: &'static str, up: &'static str, down: &'static str) -> EmbeddedMigration {
    let metadata = TomlMetadataWrapper::new(true);
    EmbeddedMigration::new(up, Some(down), EmbeddedName::new(name), metadata)
}

fn run_and_revert<C>(connection: &mut C) -> [Vec<String>; 3]
where
    C: diesel::Connection<Backend = MultiBackend> + MigrationHarness<MultiBackend>,
{
    const MIGRATIONS: [EmbeddedMigration; 2] = [CREATE, CHANGE];
    let source = || EmbeddedMigrations::new(&MIGRATIONS);
    fn texts(versions: Vec<MigrationVersion<'_>>) -> Vec<String> {
        versions.iter().map(ToString::to_string).collect()
    }
    let run = texts(connection.run_pending_migrations(source()).unwrap());
    assert!(!connection.has_pending_migration(source()).unwrap());
    let applied = texts(connection.applied_migrations().unwrap());
    let reverted = texts(connection.revert_all_migrations(source()).unwrap());
    [run, applied, reverted]
}

fn migrations_are_run_by_the_harness_of_diesel(database: &TestDatabase) {
    database.scope().run(|| {
        for [run, applied, reverted] in on_both_connections!(run_and_revert()) {
            assert_eq!(run, ["001", "002"]);
            assert_eq!(applied, ["002", "001"]);
            assert_eq!(reverted, ["002", "001"]);
        }
        let connection = &mut DatabaseService::connection().unwrap();
        static FIRST: [EmbeddedMigration; 1] = [CREATE];
        let run = connection.run_pending_migrations(EmbeddedMigrations::new(&FIRST));
        assert_eq!(run.unwrap().len(), 1);
        let rows = connection.execute_query("SELECT a FROM one", params! {});
        assert_eq!(rows.unwrap()[0].get::<i32>("a").unwrap(), 7);
        execute(&["DROP TABLE one"]);
    });
}
