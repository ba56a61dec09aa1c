//! The duration of inserting 10,000 rows in several ways, on SQLite and, if it is installed, on a temporary PostgreSQL
//! server.
//!
//! `cargo run --release --manifest-path tests/benchmarks/Cargo.toml --bin bulk` alternates the ways in rounds. It
//! prints the best round of each way, and its ratio to `bulk_insert`.

use std::time::{Duration, Instant};

use db_service::{Backend, DatabaseService, DbError, Params, params, values};
use diesel::prelude::*;
use tests::TestDatabase;

const ROWS: i64 = 10_000;
const ROUNDS: usize = 15;

diesel::table! {
    pets (id) {
        id -> BigInt,
        name -> Text,
        weight -> Double,
    }
}

type Method = (&'static str, fn() -> Result<(), DbError>);
const METHODS: [Method; 4] = [
    ("bulk_insert", bulk),
    ("execute_many", many),
    ("multi-row INSERT, diesel", typed),
    ("execute_query, one by one", one_by_one),
];

fn main() -> Result<(), DbError> {
    measure(Backend::Sqlite, &TestDatabase::sqlite())?;
    if let Some(database) = TestDatabase::postgres() {
        measure(Backend::Postgres, &database)?;
    }
    Ok(())
}

fn measure(backend: Backend, database: &TestDatabase) -> Result<(), DbError> {
    database.scope().run(|| {
        execute("CREATE TABLE pets (id BIGINT PRIMARY KEY, name TEXT NOT NULL, weight DOUBLE PRECISION)")?;
        let mut best = [Duration::MAX; METHODS.len()];
        for _ in 0..ROUNDS {
            for ((_, insert), best) in METHODS.iter().zip(&mut best) {
                execute("DELETE FROM pets")?;
                let began = Instant::now();
                insert()?;
                *best = began.elapsed().min(*best);
            }
        }
        for ((name, _), time) in METHODS.iter().zip(&best) {
            let ratio = time.as_secs_f64() / best[0].as_secs_f64();
            println!("{backend:10} {name:26} {time:>8.1?} {ratio:6.2}");
        }
        Ok(())
    })
}

fn execute(sql: &str) -> Result<(), DbError> {
    DatabaseService::execute_query(sql, params! {}).map(drop)
}

fn rows() -> impl Iterator<Item = (i64, String, f64)> {
    (0..ROWS).map(|id| (id, format!("pet number {id}"), id as f64 / 7.0))
}

fn bulk() -> Result<(), DbError> {
    let rows = rows().map(|(id, name, weight)| values![id, name, weight]);
    DatabaseService::bulk_insert("pets", &["id", "name", "weight"], rows).map(drop)
}

const INSERT: &str = "INSERT INTO pets (id, name, weight) VALUES (:id, :name, :weight)";

fn parameters() -> impl Iterator<Item = Params> {
    rows().map(|(id, name, weight)| params! { "id" => id, "name" => name, "weight" => weight })
}

fn many() -> Result<(), DbError> {
    let rows: Vec<_> = parameters().collect();
    DatabaseService::execute_many(INSERT, &rows).map(drop)
}

fn typed() -> Result<(), DbError> {
    DatabaseService::transaction(|connection| {
        let rows: Vec<_> = rows()
            .map(|(id, name, weight)| {
                (
                    pets::id.eq(id),
                    pets::name.eq(name),
                    pets::weight.eq(weight),
                )
            })
            .collect();
        for rows in rows.chunks(1_000) {
            let insert = diesel::insert_into(pets::table).values(rows);
            match connection {
                db_service::Connection::Postgres(inner) => insert.execute(inner)?,
                db_service::Connection::Sqlite(inner) => insert.execute(inner)?,
            };
        }
        Ok(())
    })
}

fn one_by_one() -> Result<(), DbError> {
    DatabaseService::transaction(|connection| {
        for params in parameters() {
            connection.execute_query(INSERT, params)?;
        }
        Ok(())
    })
}
