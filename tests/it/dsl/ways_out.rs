//! What diesel has for one database only, or keeps to itself, and how it is expressed here. The page `db_service::dsl`
//! lists the same cases.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use db_service::{Connection, DatabaseService, DbError, params};
use diesel::dsl::{count, row_number, sql};
use diesel::expression::expression_types::NotSelectable;
use diesel::prelude::*;
use diesel::sql_types::{Array, Bool, Integer, Nullable, Text};
use diesel::upsert::excluded;
use tests::TestDatabase;

use super::tables::{
    NewPet, create_rows, create_tables, execute, is_postgres, names, new_pet, owners, pets,
};

on_both_backends!(
    match_reaches_what_one_driver_has,
    sql_literal_is_part_of_a_query,
    operators_of_both_databases_are_declared,
    json_operators_are_declared,
    upsert_from_a_select,
    upsert_by_a_partial_index,
    insert_or_ignore_and_replace,
    moments_are_computed,
    first_row_of_each_group,
    rows_are_read_in_bounded_memory,
    batch_of_different_rows_is_inserted_row_by_row,
);

fn match_reaches_what_one_driver_has(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let found: Vec<String> = DatabaseService::with_connection(|connection| match connection {
            Connection::Postgres(inner) => pets::table
                .filter(pets::name.ilike("r%"))
                .select(pets::name)
                .load(inner),
            Connection::Sqlite(inner) => pets::table
                .filter(pets::name.like("r%"))
                .select(pets::name)
                .load(inner),
        })
        .unwrap();
        assert_eq!(found, ["Rex"]);
        // In a transaction of the connection, and beside its other statements.
        let updated = DatabaseService::transaction(|connection| {
            let row = (pets::name.eq("Rex"), pets::kind.eq("dog"));
            diesel::insert_into(pets::table)
                .values((pets::name.eq("Max"), pets::kind.eq("dog")))
                .execute(connection)?;
            let updated = match connection {
                Connection::Postgres(inner) => diesel::insert_into(pets::table)
                    .values(row)
                    .on_conflict(diesel::upsert::on_constraint("pets_name_kind_key"))
                    .do_update()
                    .set(pets::weight.eq(1))
                    .execute(inner),
                Connection::Sqlite(inner) => diesel::insert_into(pets::table)
                    .values(row)
                    .on_conflict((pets::name, pets::kind))
                    .do_update()
                    .set(pets::weight.eq(1))
                    .execute(inner),
            };
            Ok::<_, DbError>(updated?)
        });
        assert_eq!(updated.unwrap(), 1);
        assert_eq!(names(), ["Rex", "Tom", "Kit", "Ox", "Max"]);
    });
}

fn sql_literal_is_part_of_a_query(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        // PostgreSQL's `LIKE` compares the case of letters; SQLite's does not, and it has no ILIKE.
        let like = match is_postgres(database) {
            true => "name ILIKE ",
            false => "name LIKE ",
        };
        let found: Vec<String> = pets::table
            .filter(sql::<Bool>(like).bind::<Text, _>("R%"))
            .filter(pets::weight.gt(1))
            .order(sql::<Integer>("weight DESC NULLS LAST"))
            .select(pets::name)
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(found, ["Rex"]);
    });
}

diesel::infix_operator!(IsDistinctFrom, " IS DISTINCT FROM ");
diesel::postfix_operator!(NullsFirst, " NULLS FIRST", NotSelectable);
diesel::postfix_operator!(NullsLast, " NULLS LAST", NotSelectable);

fn operators_of_both_databases_are_declared(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let other = IsDistinctFrom::new(pets::weight, 4.into_sql::<Nullable<Integer>>());
        let other: Vec<i64> = pets::table
            .filter(other)
            .order(pets::id)
            .select(pets::id)
            .load(connection)
            .unwrap();
        assert_eq!(other, [1, 3, 4], "with NULL");
        let first = pets::table
            .order(NullsFirst::new(pets::weight.asc()))
            .select(pets::id);
        assert_eq!(first.load(connection), Ok(vec![4, 2, 3, 1]));
        let last = pets::table
            .order(NullsLast::new(pets::weight.desc()))
            .select(pets::id);
        assert_eq!(last.load(connection), Ok(vec![1, 3, 2, 4]));
    });
}

diesel::infix_operator!(TextOf, " ->> ", Nullable<Text>);

fn json_operators_are_declared(database: &TestDatabase) {
    diesel::table! {
        documents (id) {
            id -> BigInt,
            facts -> Jsonb,
        }
    }
    database.scope().run(|| {
        let json = if is_postgres(database) {
            "jsonb"
        } else {
            "TEXT"
        };
        execute(&[&format!(
            "CREATE TABLE documents (id bigint PRIMARY KEY, facts {json} NOT NULL)"
        )]);
        let connection = &mut DatabaseService::connection().unwrap();
        let rows: Vec<_> = [(1, "red"), (2, "blue")]
            .map(|(id, color)| {
                let facts = serde_json::json!({ "color": color });
                (documents::id.eq(id), documents::facts.eq(facts))
            })
            .into();
        diesel::insert_into(documents::table)
            .values(rows)
            .execute(connection)
            .unwrap();
        let color = || TextOf::new(documents::facts, "color".into_sql::<Text>());
        let blue: Vec<(i64, Option<String>)> = documents::table
            .filter(color().eq("blue"))
            .select((documents::id, color()))
            .load(connection)
            .unwrap();
        assert_eq!(blue, [(2, Some("blue".to_owned()))]);
    });
}

diesel::infix_operator!(ContainsAll, " @> ");

#[test]
fn postgres_array_operators_are_declared() {
    diesel::table! {
        posts (id) {
            id -> BigInt,
            tags -> Array<Text>,
        }
    }
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        execute(&["CREATE TABLE posts (id bigint PRIMARY KEY, tags text[] NOT NULL)"]);
        let connection = &mut DatabaseService::connection().unwrap();
        diesel::insert_into(posts::table)
            .values(vec![
                (posts::id.eq(1), posts::tags.eq(vec!["a", "b"])),
                (posts::id.eq(2), posts::tags.eq(vec!["b"])),
            ])
            .execute(connection)
            .unwrap();
        let both = vec!["b", "a"].into_sql::<Array<Text>>();
        let found: Vec<(i64, Vec<String>)> = posts::table
            .filter(ContainsAll::new(posts::tags, both))
            .load(connection)
            .unwrap();
        assert_eq!(found, [(1, vec!["a".to_owned(), "b".to_owned()])]);
    });
}

fn upsert_from_a_select(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        // SQLite needs the `WHERE`, or it reads ON as the begin of a join's condition.
        let sql = "INSERT INTO owners (name, city) SELECT name, kind FROM pets WHERE weight > :weight \
                   ON CONFLICT (name) DO UPDATE SET city = excluded.city RETURNING name";
        for _ in 0..2 {
            let rows = DatabaseService::execute_query(sql, params! { "weight" => 4 }).unwrap();
            assert_eq!(rows.len(), 2);
        }
        let count = owners::table.count();
        let count: i64 = count
            .get_result(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(count, 5);
    });
}

fn upsert_by_a_partial_index(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        execute(&[
            "CREATE UNIQUE INDEX one_dog ON pets (owner_id) WHERE kind = 'dog'",
            "INSERT INTO owners (id, name) VALUES (1, 'Ada')",
        ]);
        let connection = &mut DatabaseService::connection().unwrap();
        for name in ["Rex", "Max"] {
            let row = (
                pets::owner_id.eq(1),
                pets::name.eq(name),
                pets::kind.eq("dog"),
            );
            let count = diesel::insert_into(pets::table)
                .values(row)
                .on_conflict(sql::<Bool>("(owner_id) WHERE kind = 'dog'"))
                .do_update()
                .set(pets::name.eq(excluded(pets::name)))
                .execute(connection);
            assert_eq!(count, Ok(1));
        }
        assert_eq!(names(), ["Max"]);
    });
}

#[test]
fn postgres_constraint_is_a_conflict_target() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        create_rows(&database);
        let name: String = diesel::insert_into(pets::table)
            .values((pets::name.eq("Rex"), pets::kind.eq("dog")))
            .on_conflict(sql::<Bool>("ON CONSTRAINT pets_name_kind_key"))
            .do_update()
            .set(pets::name.eq("Max"))
            .returning(pets::name)
            .get_result(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(name, "Max");
        assert_eq!(names(), ["Max", "Tom", "Kit", "Ox"]);
    });
}

fn insert_or_ignore_and_replace(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let row = (
            owners::id.eq(1),
            owners::name.eq("Ada"),
            owners::city.eq("Oslo"),
        );
        let ignored = diesel::insert_into(owners::table)
            .values(row)
            .on_conflict_do_nothing()
            .execute(connection);
        assert_eq!(ignored, Ok(0));
        let replaced: Option<String> = diesel::insert_into(owners::table)
            .values(row)
            .on_conflict(owners::id)
            .do_update()
            .set((
                owners::name.eq(excluded(owners::name)),
                owners::city.eq(excluded(owners::city)),
            ))
            .returning(owners::city)
            .get_result(connection)
            .unwrap();
        assert_eq!(replaced.as_deref(), Some("Oslo"));
    });
}

fn moments_are_computed(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let born: DateTime<Utc> = "2026-02-28T12:00:00Z".parse().unwrap();
        let day = chrono::Duration::days(1);
        diesel::update(pets::table.find(1))
            .set(pets::born.eq(born))
            .execute(connection)
            .unwrap();
        // `born + 1 day > moment`, with the day on the side of Rust.
        let found = pets::table
            .filter(pets::born.gt(born + chrono::Duration::hours(1) - day))
            .select(pets::id);
        assert_eq!(found.load(connection), Ok(vec![1]));
        let later = match is_postgres(database) {
            true => "born + interval '1 day'",
            false => "strftime('%Y-%m-%d %H:%M:%S', born, '+1 day')",
        };
        let later: Option<DateTime<Utc>> = diesel::update(pets::table.find(1))
            .set(pets::born.eq(sql::<Nullable<diesel::sql_types::Timestamptz>>(later)))
            .returning(pets::born)
            .get_result(connection)
            .unwrap();
        assert_eq!(later, Some(born + day));
        // The text has the form of the other values.
        let same = pets::table.filter(pets::born.eq(born + day));
        assert_eq!(same.count().get_result(connection), Ok(1));
    });
}

fn first_row_of_each_group(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let place = row_number()
            .partition_by(pets::kind)
            .window_order((pets::weight.desc(), pets::id));
        let ranked: Vec<(String, i64)> = pets::table
            .select((pets::name, place))
            .order(pets::kind)
            .load(connection)
            .unwrap();
        let first: Vec<String> = ranked
            .into_iter()
            .filter_map(|(name, place)| (place == 1).then_some(name))
            .collect();
        assert_eq!(first, ["Kit", "Ox", "Rex"]);
        let sql = "SELECT name FROM (SELECT name, kind, row_number() OVER (PARTITION BY kind ORDER BY weight DESC) AS place \
                   FROM pets) AS ranked WHERE place = 1 ORDER BY kind";
        let rows = connection.execute_query(sql, params! {}).unwrap();
        let first_in_sql: Vec<String> = rows.iter().map(|row| row.get("name").unwrap()).collect();
        assert_eq!(first_in_sql, first);
        let cats = pets::table.select(count(pets::id).aggregate_filter(pets::kind.eq("cat")));
        assert_eq!(cats.first(connection), Ok(2));
    });
}

fn rows_are_read_in_bounded_memory(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let mut seen = Vec::new();
        let sql = "SELECT id FROM pets WHERE id >= :id ORDER BY id";
        DatabaseService::for_each_row(sql, params! { "id" => 2 }, |row| {
            seen.push(row.get::<i64>("id")?);
            Ok::<_, DbError>(match seen.len() {
                2 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })
        .unwrap();
        assert_eq!(seen, [2, 3]);
    });
}

fn batch_of_different_rows_is_inserted_row_by_row(database: &TestDatabase) {
    database.scope().run(|| {
        create_tables(database);
        let batch = vec![
            new_pet("a"),
            NewPet {
                weight: Some(3),
                ..new_pet("b")
            },
        ];
        let weights = DatabaseService::transaction(|connection| {
            let mut weights = Vec::new();
            for pet in &batch {
                let weight: Option<i32> = diesel::insert_into(pets::table)
                    .values(pet)
                    .returning(pets::weight)
                    .get_result(connection)?;
                weights.push(weight);
            }
            Ok::<_, DbError>(weights)
        });
        assert_eq!(weights.unwrap(), [Some(10), Some(3)]);
    });
}
