//! `INSERT … ON CONFLICT`.

use db_service::DatabaseService;
use diesel::prelude::*;
use diesel::upsert::excluded;
use tests::TestDatabase;

use super::tables::{NewPet, Owner, Pet, create_rows, new_pet, owners, pets};

on_both_backends!(
    do_nothing_keeps_the_row,
    do_update_changes_the_row,
    batch_is_upserted,
    upserted_rows_are_returned,
    conflict_on_two_columns,
    do_nothing_without_a_target,
    do_update_only_where_a_condition_holds,
);

fn owner(id: i64, name: &str, city: &str) -> Owner {
    Owner {
        id,
        name: name.to_owned(),
        city: Some(city.to_owned()),
    }
}

/// Returns the cities of all owners, ordered by key.
fn cities(connection: &mut db_service::Connection) -> Vec<Option<String>> {
    let cities = owners::table.order(owners::id).select(owners::city);
    cities.load(connection).unwrap()
}

fn do_nothing_keeps_the_row(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        for (row, expected) in [(owner(1, "Ada", "Oslo"), 0), (owner(9, "Eve", "Oslo"), 1)] {
            let count = diesel::insert_into(owners::table)
                .values(&row)
                .on_conflict(owners::id)
                .do_nothing()
                .execute(connection);
            assert_eq!(count, Ok(expected));
        }
        let city = |city: &str| Some(city.to_owned());
        assert_eq!(
            cities(connection),
            [city("London"), city("Paris"), None, city("Oslo")]
        );
    });
}

fn do_update_changes_the_row(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let count = diesel::insert_into(owners::table)
            .values(&owner(8, "Ada", "Oslo"))
            .on_conflict(owners::name)
            .do_update()
            .set(owners::city.eq(excluded(owners::city)))
            .execute(connection);
        assert_eq!(count, Ok(1));
        // A struct is a changeset too. Values of the statement and of the row can be combined.
        let changed = owner(2, "Robert", "Rome");
        let count = diesel::insert_into(owners::table)
            .values(&changed)
            .on_conflict(owners::id)
            .do_update()
            .set(&changed)
            .execute(connection);
        assert_eq!(count, Ok(1));
        let rows: Vec<Owner> = owners::table.order(owners::id).load(connection).unwrap();
        assert_eq!(rows[..2], [owner(1, "Ada", "Oslo"), changed]);
        assert_eq!(rows.len(), 3);
    });
}

fn batch_is_upserted(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let batch = vec![
            owner(1, "Ada", "Bern"),
            owner(5, "Eve", "Kyiv"),
            owner(3, "Cy", "Lima"),
        ];
        let count = diesel::insert_into(owners::table)
            .values(&batch)
            .on_conflict(owners::id)
            .do_update()
            .set(owners::city.eq(excluded(owners::city)))
            .execute(connection);
        assert_eq!(count, Ok(3));
        let expected = ["Bern", "Paris", "Lima", "Kyiv"];
        assert_eq!(
            cities(connection),
            expected.map(|city| Some(city.to_owned()))
        );
        let count = diesel::insert_into(owners::table)
            .values(vec![owner(1, "Ada", "x"), owner(6, "Fay", "Riga")])
            .on_conflict(owners::id)
            .do_nothing()
            .execute(connection);
        assert_eq!(count, Ok(1));
    });
}

fn upserted_rows_are_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let batch = vec![owner(1, "Ada", "Bern"), owner(5, "Eve", "Kyiv")];
        let returned: Vec<Owner> = diesel::insert_into(owners::table)
            .values(&batch)
            .on_conflict(owners::id)
            .do_update()
            .set(owners::city.eq(excluded(owners::city)))
            .returning(Owner::as_returning())
            .get_results(connection)
            .unwrap();
        assert_eq!(returned, batch);
        // A row that was not changed is not returned.
        let returned: Option<i64> = diesel::insert_into(owners::table)
            .values(&batch[0])
            .on_conflict_do_nothing()
            .returning(owners::id)
            .get_result(connection)
            .optional()
            .unwrap();
        assert_eq!(returned, None);
    });
}

fn conflict_on_two_columns(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let heavy = NewPet {
            kind: Some("dog".to_owned()),
            weight: Some(5),
            ..new_pet("Rex")
        };
        let rex: Pet = diesel::insert_into(pets::table)
            .values(&heavy)
            .on_conflict((pets::name, pets::kind))
            .do_update()
            .set(pets::weight.eq(pets::weight + excluded(pets::weight)))
            .returning(Pet::as_returning())
            .get_result(connection)
            .unwrap();
        assert_eq!((rex.id, rex.weight), (1, Some(35)));
    });
}

fn do_nothing_without_a_target(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        // One conflicts by its key, one by its name.
        let batch = [
            owner(1, "Zoe", "x"),
            owner(7, "Bob", "x"),
            owner(8, "Eve", "x"),
        ];
        let count = diesel::insert_into(owners::table)
            .values(&batch)
            .on_conflict_do_nothing()
            .execute(connection);
        assert_eq!(count, Ok(1));
        assert_eq!(owners::table.count().get_result(connection), Ok(4));
    });
}

fn do_update_only_where_a_condition_holds(database: &TestDatabase) {
    // In the scope of `QueryDsl`, the method's name would be ambiguous.
    use diesel::query_dsl::methods::FilterDsl;
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        for (name, expected) in [("Ada", 1), ("Bob", 0)] {
            let upsert = diesel::insert_into(owners::table)
                .values(owner(20, name, "Oslo"))
                .on_conflict(owners::name)
                .do_update()
                .set(owners::city.eq(excluded(owners::city)));
            let upsert = FilterDsl::filter(upsert, owners::city.eq("London"));
            assert_eq!(upsert.execute(connection), Ok(expected), "{name}");
        }
        let city = |city: &str| Some(city.to_owned());
        assert_eq!(cities(connection), [city("Oslo"), city("Paris"), None]);
    });
}
