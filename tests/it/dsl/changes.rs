//! `UPDATE` and `DELETE`, row locks, and transactions on one connection.

use db_service::{DatabaseService, DbError};
use diesel::prelude::*;
use diesel::result::Error as DieselError;
use tests::TestDatabase;

use super::tables::{Owner, Pet, create_rows, is_postgres, names, owners, pets};

on_both_backends!(
    updated_rows_are_counted_and_returned,
    columns_are_set_from_columns_and_null,
    deleted_rows_are_counted_and_returned,
    changeset_without_changes_is_an_error,
    changed_struct_is_saved,
    boxed_conditions_of_changes,
    locked_rows_are_skipped_or_refused_on_postgres,
    nested_transaction_rolls_back_alone,
    test_transaction_changes_nothing,
    test_transaction_that_begins_a_connection_ends_with_it,
);

fn updated_rows_are_counted_and_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let count = diesel::update(pets::table.filter(pets::kind.eq("cat")))
            .set((pets::weight.eq(1), pets::kind.eq("tiger")))
            .execute(connection);
        assert_eq!(count, Ok(2));
        let none = diesel::update(pets::table.find(99))
            .set(pets::weight.eq(1))
            .execute(connection);
        assert_eq!(none, Ok(0));
        let mut rows: Vec<(i64, Option<i32>)> = diesel::update(pets::table)
            .filter(pets::kind.eq("tiger"))
            .set(pets::weight.eq(pets::weight + 1))
            .returning((pets::id, pets::weight))
            .get_results(connection)
            .unwrap();
        rows.sort();
        assert_eq!(rows, [(2, Some(2)), (3, Some(2))]);
        let rex: Pet = diesel::update(pets::table.find(1))
            .set(pets::name.eq("Max"))
            .returning(Pet::as_returning())
            .get_result(connection)
            .unwrap();
        assert_eq!((rex.id, &*rex.name, rex.weight), (1, "Max", Some(30)));
    });
}

fn columns_are_set_from_columns_and_null(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let oldest = owners::table
            .select(diesel::dsl::min(owners::id))
            .single_value();
        let row: (Option<i64>, String, Option<i32>) = diesel::update(pets::table.find(4))
            .set((
                pets::owner_id.eq(oldest),
                pets::name.eq(pets::kind.concat("!")),
                pets::weight.eq(None::<i32>),
            ))
            .returning((pets::owner_id, pets::name, pets::weight))
            .get_result(connection)
            .unwrap();
        assert_eq!(row, (Some(1), "cow!".to_owned(), None));
    });
}

fn deleted_rows_are_counted_and_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let tom: Pet = diesel::delete(pets::table.find(2))
            .returning(Pet::as_returning())
            .get_result(connection)
            .unwrap();
        assert_eq!(tom.name, "Tom");
        assert_eq!(names(), ["Rex", "Kit", "Ox"]);
        let count = diesel::delete(pets::table.filter(pets::weight.gt(3))).execute(connection);
        assert_eq!(count, Ok(2));
        let all = diesel::delete(pets::table)
            .returning(pets::id)
            .get_results(connection);
        assert_eq!(all, Ok(vec![4]));
    });
}

fn changeset_without_changes_is_an_error(database: &TestDatabase) {
    #[derive(AsChangeset)]
    #[diesel(table_name = owners)]
    struct Change {
        name: Option<&'static str>,
        city: Option<Option<&'static str>>,
    }
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let change = |name, city| Change { name, city };
        let result = diesel::update(owners::table.find(1))
            .set(change(None, None))
            .execute(connection);
        assert!(
            matches!(result, Err(DieselError::QueryBuilderError(_))),
            "{result:?}"
        );
        let result = diesel::update(owners::table.find(1))
            .set(change(None, None))
            .execute(connection)
            .optional_empty_changeset();
        assert_eq!(result, Ok(None));
        let ada: Owner = diesel::update(owners::table.find(1))
            .set(change(None, Some(None)))
            .get_result(connection)
            .unwrap();
        assert_eq!((&*ada.name, ada.city), ("Ada", None));
    });
}

fn changed_struct_is_saved(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let mut rex: Pet = pets::table.find(1).first(connection).unwrap();
        rex.weight = None;
        rex.name = "Max".to_owned();
        // On a `PooledConnection`, and on the `Connection` inside.
        let saved: Pet = rex.save_changes(connection).unwrap();
        assert_eq!(saved, rex);
        rex.weight = Some(31);
        let saved: Pet =
            DatabaseService::with_connection(|connection| rex.save_changes(connection)).unwrap();
        assert_eq!(saved, rex);
        rex.id = 99;
        let missing: QueryResult<Pet> = rex.save_changes(connection);
        assert_eq!(missing, Err(DieselError::NotFound));
    });
}

fn boxed_conditions_of_changes(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let mut update = diesel::update(pets::table)
            .set(pets::weight.eq(7))
            .into_boxed();
        update = update.filter(pets::kind.eq("cat"));
        update = update.filter(pets::name.ne("Tom"));
        assert_eq!(update.execute(connection), Ok(1));
        let mut delete = diesel::delete(pets::table).into_boxed();
        delete = delete.filter(pets::weight.eq(7));
        delete = delete.or_filter(pets::weight.is_null());
        assert_eq!(delete.execute(connection), Ok(2));
        assert_eq!(names(), ["Rex", "Tom"]);
    });
}

fn locked_rows_are_skipped_or_refused_on_postgres(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        DatabaseService::transaction(|connection| {
            let locked: Pet = pets::table.find(1).for_update().first(connection)?;
            assert_eq!(locked.name, "Rex");
            // On another connection.
            let free: Vec<i64> = DatabaseService::with_connection(|other| {
                pets::table
                    .order(pets::id)
                    .select(pets::id)
                    .for_update()
                    .skip_locked()
                    .load(other)
            })?;
            let refused = DatabaseService::with_connection(|other| {
                pets::table
                    .find(1)
                    .select(pets::id)
                    .for_share()
                    .no_wait()
                    .first::<i64>(other)
            });
            let unlocked = DatabaseService::with_connection(|other| {
                pets::table
                    .find(2)
                    .select(pets::id)
                    .for_no_key_update()
                    .no_wait()
                    .first::<i64>(other)
            });
            if is_postgres(database) {
                assert_eq!(free, [2, 3, 4]);
                let error = refused.unwrap_err();
                assert!(matches!(error, DbError::LockTimeout(_)), "{error:?}");
            } else {
                // SQLite locks no rows: one transaction writes, and others read what was committed.
                assert_eq!(free, [1, 2, 3, 4]);
                assert_eq!(refused.unwrap(), 1);
            }
            assert_eq!(unlocked.unwrap(), 2);
            Ok::<_, DbError>(())
        })
        .unwrap();
    });
}

fn nested_transaction_rolls_back_alone(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let mut connection = DatabaseService::connection().unwrap();
        let rename = |connection: &mut db_service::Connection, id, name: &str| {
            diesel::update(pets::table.find(id))
                .set(pets::name.eq(name))
                .execute(connection)
        };
        connection
            .transaction(|connection| {
                rename(connection, 1, "a")?;
                let inner = connection.transaction(|connection| {
                    rename(connection, 2, "b")?;
                    connection.transaction(|connection| rename(connection, 3, "c"))?;
                    Err::<(), _>(DieselError::RollbackTransaction)
                });
                assert_eq!(inner, Err(DieselError::RollbackTransaction));
                // On PostgreSQL, a failed statement aborts only the inner transaction.
                let failed = connection.transaction(|connection| {
                    diesel::insert_into(pets::table)
                        .values((pets::id.eq(1), pets::name.eq("x")))
                        .execute(connection)
                });
                assert!(failed.is_err());
                connection.transaction(|connection| rename(connection, 4, "d"))
            })
            .unwrap();
        assert_eq!(names(), ["a", "Tom", "Kit", "d"]);
    });
}

fn test_transaction_changes_nothing(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let mut connection = DatabaseService::connection().unwrap();
        let deleted = connection.test_transaction(|connection| {
            let deleted = diesel::delete(pets::table).execute(connection)?;
            assert_eq!(pets::table.count().get_result(connection), Ok(0));
            Ok::<_, DieselError>(deleted)
        });
        assert_eq!(deleted, 4);
        assert_eq!(names().len(), 4);
        assert_eq!(pets::table.count().get_result(&mut connection), Ok(4));
    });
}

fn test_transaction_that_begins_a_connection_ends_with_it(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let mut connection = DatabaseService::connection().unwrap();
        connection.begin_test_transaction().unwrap();
        let inner =
            connection.transaction(|connection| diesel::delete(pets::table).execute(connection));
        assert_eq!(inner, Ok(4));
        assert_eq!(pets::table.count().get_result(&mut connection), Ok(0));
        drop(connection);
        assert_eq!(names().len(), 4);
        // The connection, which is in the pool again, is in no transaction.
        let count = DatabaseService::with_connection(|connection| {
            diesel::delete(pets::table.find(1)).execute(connection)
        });
        assert_eq!(count.unwrap(), 1);
        assert_eq!(names().len(), 3);
    });
}
