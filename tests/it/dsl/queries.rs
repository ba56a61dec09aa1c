//! The items of the DSL that the page `db_service::dsl` lists, on both backends.

use bigdecimal::BigDecimal;
use chrono::{DateTime, Utc};
use db_service::{DatabaseService, DbError, MultiBackend, params};
use diesel::prelude::*;
use tests::TestDatabase;
use uuid::Uuid;

on_both_backends!(batch_is_inserted_and_returned,);

diesel::table! {
    pets (id) {
        id -> BigInt,
        name -> Text,
        weight -> Nullable<Double>,
        price -> Nullable<Numeric>,
        tag -> Nullable<Uuid>,
        facts -> Nullable<Jsonb>,
        photo -> Nullable<Binary>,
        born -> Nullable<Timestamptz>,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable)]
#[diesel(table_name = pets, check_for_backend(MultiBackend))]
struct Pet {
    id: i64,
    name: String,
    weight: Option<f64>,
    price: Option<BigDecimal>,
    tag: Option<Uuid>,
    facts: Option<serde_json::Value>,
    photo: Option<Vec<u8>>,
    born: Option<DateTime<Utc>>,
}

fn create(database: &TestDatabase) {
    let sql = if database.url().starts_with("postgres") {
        "CREATE TABLE pets (id bigint PRIMARY KEY, name text NOT NULL UNIQUE, weight double precision, price numeric, \
         tag uuid, facts jsonb, photo bytea, born timestamptz)"
    } else {
        "CREATE TABLE pets (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, weight REAL, price TEXT, tag TEXT, \
         facts TEXT, photo BLOB, born TEXT)"
    };
    DatabaseService::execute_query(sql, params! {}).unwrap();
}

fn pet(id: i64) -> Pet {
    Pet {
        id,
        name: format!("pet {id}"),
        weight: Some(0.1),
        price: Some("12345678901234567890.123456789".parse().unwrap()),
        tag: Some(Uuid::from_u128(id as u128)),
        facts: Some(serde_json::json!({ "legs": 4 })),
        photo: Some(vec![0, 255]),
        born: Some("2026-11-28T12:00:00.123456Z".parse().unwrap()),
    }
}

fn batch_is_inserted_and_returned(database: &TestDatabase) {
    database.scope().run(|| {
        create(database);
        let pets: Vec<Pet> = (1..=3).map(pet).collect();
        let inserted: Vec<Pet> = DatabaseService::with_connection(|connection| {
            diesel::insert_into(pets::table)
                .values(&pets)
                .returning(Pet::as_returning())
                .load(connection)
        })
        .unwrap();
        assert_eq!(inserted, pets);
        let loaded: Result<Vec<Pet>, DbError> = (|| {
            Ok(pets::table
                .select(Pet::as_select())
                .order(pets::id)
                .load(&mut DatabaseService::connection()?)?)
        })();
        assert_eq!(loaded.unwrap(), pets);
    });
}
