//! `INSERT` without `ON CONFLICT`.

use db_service::{DatabaseService, DbError, params};
use diesel::prelude::*;
use tests::TestDatabase;

use super::tables::{NewPet, Owner, Pet, create_rows, create_tables, is_postgres, names, new_pet};
use super::tables::{owners, pets};

on_both_backends!(
    inserted_row_is_returned,
    batches_are_inserted,
    batch_is_inserted_and_returned,
    empty_batch_inserts_nothing,
    none_is_the_default_in_a_single_insert,
    none_is_the_default_in_a_batch_of_equal_rows,
    batch_whose_rows_leave_out_different_columns,
    none_is_the_default_in_an_array,
    none_is_null_where_the_struct_says_so,
    rows_are_inserted_from_a_select,
    row_of_default_values_is_inserted,
    violated_constraint_is_reported,
);

fn inserted_row_is_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let owner = Owner {
            id: 7,
            name: "Ada".to_owned(),
            city: Some("London".to_owned()),
        };
        let connection = &mut DatabaseService::connection().unwrap();
        let inserted: Owner = diesel::insert_into(owners::table)
            .values(&owner)
            .returning(Owner::as_returning())
            .get_result(connection)
            .unwrap();
        assert_eq!(inserted, owner);
        let (id, name): (i64, String) = diesel::insert_into(owners::table)
            .values((owners::name.eq("Bob"), owners::id.eq(8)))
            .returning((owners::id, owners::name))
            .get_result(connection)
            .unwrap();
        assert_eq!((id, &*name), (8, "Bob"));
        let selected: Owner = owners::table
            .find(7)
            .select(Owner::as_select())
            .first(connection)
            .unwrap();
        assert_eq!(selected, owner);
    });
}

fn batches_are_inserted(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let pair = |first, second| vec![new_pet(first), new_pet(second)];
        let of_reference = diesel::insert_into(pets::table)
            .values(&pair("a", "b"))
            .execute(connection);
        let of_vec = diesel::insert_into(pets::table)
            .values(pair("c", "d"))
            .execute(connection);
        let of_array = diesel::insert_into(pets::table)
            .values([new_pet("e"), new_pet("f"), new_pet("g")])
            .execute(connection);
        let of_slice = diesel::insert_into(pets::table)
            .values(&pair("h", "i")[..])
            .execute(connection);
        let borrowed = "j".to_owned();
        let of_tuples = diesel::insert_into(pets::table)
            .values(vec![(pets::name.eq(&borrowed), pets::kind.eq("cat"))])
            .execute(connection);
        assert_eq!(
            [of_reference, of_vec, of_array, of_slice, of_tuples],
            [Ok(2), Ok(2), Ok(3), Ok(2), Ok(1)]
        );
        assert_eq!(names().concat(), "abcdefghij");
    });
}

fn batch_is_inserted_and_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let batch = vec![new_pet("a"), new_pet("b"), new_pet("c")];
        let inserted: Vec<Pet> = DatabaseService::with_connection(|connection| {
            diesel::insert_into(pets::table)
                .values(&batch)
                .returning(Pet::as_returning())
                .get_results(connection)
        })
        .unwrap();
        let all: Vec<Pet> = pets::table
            .select(Pet::as_select())
            .order(pets::id)
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(inserted, all);
        assert_eq!(names().concat(), "abc");
    });
}

fn empty_batch_inserts_nothing(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        // SQLite's count belongs to the last statement that changed rows.
        let updated = diesel::update(pets::table)
            .set(pets::weight.eq(1))
            .execute(connection);
        assert_eq!(updated, Ok(4));
        let inserted = diesel::insert_into(pets::table)
            .values(&Vec::<NewPet>::new())
            .execute(connection);
        assert_eq!(inserted, Ok(0));
        let returned: Vec<i64> = diesel::insert_into(pets::table)
            .values(&Vec::<NewPet>::new())
            .returning(pets::id)
            .get_results(connection)
            .unwrap();
        assert_eq!(returned, [0; 0]);
        assert_eq!(names().len(), 4);
    });
}

fn none_is_the_default_in_a_single_insert(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let insert = |connection: &mut _, pet: &NewPet| -> Pet {
            diesel::insert_into(pets::table)
                .values(pet)
                .returning(Pet::as_returning())
                .get_result(connection)
                .unwrap()
        };
        let plain: Pet = insert(&mut *connection, &new_pet("a"));
        assert_eq!((&*plain.kind, plain.weight), ("dog", Some(10)));
        // The statement depends on which values are `None`.
        let heavy = NewPet {
            weight: Some(20),
            ..new_pet("b")
        };
        let heavy: Pet = insert(&mut *connection, &heavy);
        assert_eq!((&*heavy.kind, heavy.weight), ("dog", Some(20)));
        let cat = NewPet {
            kind: Some("cat".to_owned()),
            ..new_pet("c")
        };
        let cat: Pet = insert(&mut *connection, &cat);
        assert_eq!((&*cat.kind, cat.weight), ("cat", Some(10)));
    });
}

fn none_is_the_default_in_a_batch_of_equal_rows(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let cat = |name| NewPet {
            kind: Some("cat".to_owned()),
            ..new_pet(name)
        };
        let inserted: Vec<(String, Option<i32>)> = diesel::insert_into(pets::table)
            .values(vec![cat("a"), cat("b")])
            .returning((pets::kind, pets::weight))
            .get_results(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(inserted, vec![("cat".to_owned(), Some(10)); 2]);
    });
}

fn none_is_the_default_in_an_array(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let connection = &mut DatabaseService::connection().unwrap();
        // diesel identifies an array by its type, although its text depends on which values are `None`.
        for (name, weight) in [("a", None), ("b", Some(3)), ("c", None), ("d", Some(4))] {
            let row = NewPet {
                weight,
                ..new_pet(name)
            };
            let inserted: Vec<Option<i32>> = diesel::insert_into(pets::table)
                .values([row])
                .returning(pets::weight)
                .get_results(connection)
                .unwrap();
            assert_eq!(inserted, [weight.or(Some(10))], "{name}");
        }
    });
}

fn batch_whose_rows_leave_out_different_columns(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let mut batch = vec![new_pet("a"), new_pet("b"), new_pet("c")];
        batch[1].kind = Some("cat".to_owned());
        batch[2].weight = Some(3);
        let inserted = DatabaseService::with_connection(|connection| {
            diesel::insert_into(pets::table)
                .values(&batch)
                .returning((pets::kind, pets::weight))
                .get_results::<(String, Option<i32>)>(connection)
        });
        if is_postgres(database) {
            let row = |kind: &str, weight| (kind.to_owned(), Some(weight));
            assert_eq!(
                inserted.unwrap(),
                [row("dog", 10), row("cat", 10), row("dog", 3)]
            );
        } else {
            let error = inserted.unwrap_err();
            assert!(matches!(error, DbError::Unsupported { .. }), "{error:?}");
            assert!(error.to_string().contains("different columns"), "{error}");
            assert_eq!(names(), [""; 0]);
        }
    });
}

fn none_is_null_where_the_struct_says_so(database: &TestDatabase) {
    #[derive(Insertable)]
    #[diesel(table_name = owners, treat_none_as_default_value = false)]
    struct NewOwner {
        name: &'static str,
        city: Option<&'static str>,
    }
    database.scope().run(|| {
        create_tables(database);
        let batch = [
            NewOwner {
                name: "Ada",
                city: None,
            },
            NewOwner {
                name: "Bob",
                city: Some("Paris"),
            },
        ];
        let cities: Vec<Option<String>> = diesel::insert_into(owners::table)
            .values(&batch)
            .returning(owners::city)
            .get_results(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(cities, [None, Some("Paris".to_owned())]);
    });
}

fn rows_are_inserted_from_a_select(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let cats = pets::table
            .filter(pets::kind.eq("cat"))
            .order(pets::id)
            .select((pets::name, pets::kind.concat("s")));
        let inserted: Vec<(String, String, Option<i32>)> = diesel::insert_into(pets::table)
            .values(cats)
            .into_columns((pets::name, pets::kind))
            .returning((pets::name, pets::kind, pets::weight))
            .get_results(connection)
            .unwrap();
        let row = |name: &str| (name.to_owned(), "cats".to_owned(), Some(10));
        assert_eq!(inserted, [row("Tom"), row("Kit")]);
        let count = diesel::insert_into(owners::table)
            .values(pets::table.filter(pets::id.le(2)).select(pets::name))
            .into_columns(owners::name)
            .execute(connection);
        assert_eq!(count, Ok(2));
    });
}

fn row_of_default_values_is_inserted(database: &TestDatabase) {
    diesel::table! {
        defaults (id) {
            id -> BigInt,
            text -> Nullable<Text>,
        }
    }
    database.scope().run(|| {
        let key = match is_postgres(database) {
            true => "bigserial",
            false => "INTEGER",
        };
        let create =
            format!("CREATE TABLE defaults (id {key} PRIMARY KEY, text text DEFAULT 'none')");
        DatabaseService::execute_query(&create, params! {}).unwrap();
        let row: (i64, Option<String>) = diesel::insert_into(defaults::table)
            .default_values()
            .returning(defaults::all_columns)
            .get_result(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(row, (1, Some("none".to_owned())));
    });
}

fn violated_constraint_is_reported(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let insert = |owner_id, name: &str| {
            DatabaseService::with_connection(|connection| {
                diesel::insert_into(pets::table)
                    .values((pets::owner_id.eq(owner_id), pets::name.eq(name)))
                    .execute(connection)
            })
        };
        let error = insert(1, "Rex").unwrap_err();
        assert!(
            matches!(&error, DbError::UniqueViolation { columns, .. } if columns == &["name", "kind"]),
            "{error:?}"
        );
        let error = insert(99, "Max").unwrap_err();
        assert!(
            matches!(error, DbError::ForeignKeyViolation { .. }),
            "{error:?}"
        );
        assert_eq!(names().len(), 4);
    });
}
