//! Calls of `db-service` on a SQLite database in memory, with the default settings.
//!
//! The first iteration opens the connection and prepares the statement, and the others reuse both. No other thread
//! uses the pool.

use std::hint::black_box;

use anyhow::{Context, bail, ensure};
use db_service::{
    ConfigService, Connection, DatabaseConfig, DatabaseService, DbError, Row, params,
};
use diesel::connection::{Connection as _, SimpleConnection};
use diesel::prelude::*;

use crate::case::Case;

/// The number of rows of the table `people`. The iterations are multiples of it, so that all rows are queried equally
/// often.
const PEOPLE: u64 = 100;
/// For operations of more than 10,000 instructions.
const CALLS: [u64; 2] = [1_000, 5_000];
/// For texts that a connection does not know: it knows 1,024 of them, and then forgets all.
const NEW_TEXTS: [u64; 2] = [4_096, 24_576];
/// For cheaper operations, which need more iterations for the same relative spread.
const MANY_CALLS: [u64; 2] = [10_000, 50_000];

const TABLE: &str = "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, \
     score DOUBLE NOT NULL, city TEXT, created_at TEXT NOT NULL)";
const PEOPLE_ROWS: &str = "INSERT INTO people (name, email, score, city, created_at) \
     WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT ?) \
     SELECT 'person ' || n, 'person' || n || '@example.com', n / 7.0, CASE WHEN n % 2 = 0 THEN 'Vienna' END, \
     '2026-01-01 12:00:00' FROM numbers";
const POINT_QUERY: &str =
    "SELECT id, name, email, score, city, created_at FROM people WHERE id = :id";
const SEVERAL_ROWS: &str =
    "SELECT id, name, email, score, city, created_at FROM people WHERE id <= :last";
const EIGHT_PARAMETERS: &str = "INSERT INTO orders (id, customer, product, quantity, price, currency, note, \
     ordered_at) VALUES (:id, :customer, :product, :quantity, :price, :currency, :note, :ordered_at)";

pub(crate) const CASES: [Case; 9] = [
    Case {
        name: "checkout",
        operation: "check out a pooled connection and return it",
        run: |calls| {
            open()?;
            for _ in 0..calls {
                black_box(DatabaseService::connection()?);
            }
            Ok(())
        },
        baseline: None,
        iterations: MANY_CALLS,
        per_iteration: 1,
    },
    Case {
        name: "dynamic-service",
        operation: "point query of 6 columns, `DatabaseService::execute_query`",
        run: |calls| {
            open_with_people()?;
            for call in 0..calls {
                let rows =
                    DatabaseService::execute_query(POINT_QUERY, params! { "id" => id(call) })?;
                ensure!(black_box(rows).len() == 1, "a query by id returns one row");
            }
            Ok(())
        },
        baseline: None,
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "dynamic-connection",
        operation: "point query of 6 columns, `Connection::execute_query`",
        run: |calls| {
            open_with_people()?;
            let mut connection = DatabaseService::connection()?;
            for call in 0..calls {
                let rows = connection.execute_query(POINT_QUERY, params! { "id" => id(call) })?;
                ensure!(black_box(rows).len() == 1, "a query by id returns one row");
            }
            Ok(())
        },
        baseline: None,
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "typed-connection",
        operation: "point query of 6 columns, diesel's DSL on `Connection`",
        run: |calls| {
            open_with_people()?;
            let mut connection = DatabaseService::connection()?;
            for call in 0..calls {
                // `first` would bind its LIMIT, and SQLite then prepares the statement again on each call.
                let query = people::table.find(id(call));
                black_box(query.get_result::<Person>(&mut *connection)?);
            }
            Ok(())
        },
        baseline: None,
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "typed-sqlite",
        operation: "point query of 6 columns, diesel's DSL on the `SqliteConnection` inside",
        run: |calls| {
            open_with_people()?;
            let mut connection = DatabaseService::connection()?;
            #[allow(
                irrefutable_let_patterns,
                reason = "there is a second variant if the workspace is built with PostgreSQL"
            )]
            let Connection::Sqlite(connection) = &mut *connection else {
                bail!("the connection is not one to SQLite");
            };
            for call in 0..calls {
                black_box(
                    people::table
                        .find(id(call))
                        .get_result::<Person>(connection)?,
                );
            }
            Ok(())
        },
        baseline: None,
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "typed-bare",
        operation: "point query of 6 columns, diesel's DSL on a `SqliteConnection` without this crate",
        run: |calls| {
            let mut connection = SqliteConnection::establish(":memory:")?;
            connection.batch_execute(TABLE)?;
            diesel::sql_query(PEOPLE_ROWS)
                .bind::<diesel::sql_types::BigInt, _>(PEOPLE.cast_signed())
                .execute(&mut connection)?;
            for call in 0..calls {
                let query = people::table.find(id(call));
                black_box(query.get_result::<Person>(&mut connection)?);
            }
            Ok(())
        },
        baseline: None,
        iterations: CALLS,
        per_iteration: 1,
    },
    Case {
        name: "parse",
        operation: "parse a statement of 8 parameters",
        run: |calls| fail_after_parsing(EIGHT_PARAMETERS, calls),
        baseline: Some(|calls| fail_after_parsing("SELECT :id", calls)),
        iterations: NEW_TEXTS,
        per_iteration: 1,
    },
    Case {
        name: "row-decode",
        operation: "fetch and decode a row of 6 columns, dynamic",
        run: |calls| query_rows(PEOPLE, calls),
        baseline: Some(|calls| query_rows(0, calls)),
        iterations: [100, 500],
        per_iteration: PEOPLE,
    },
    Case {
        name: "row-get",
        operation: "read 6 columns of a dynamic row with `Row::get`",
        run: |calls| {
            open_with_people()?;
            let rows = DatabaseService::execute_query(POINT_QUERY, params! { "id" => 1 })?;
            let row = rows.first().context("the first person")?;
            for _ in 0..calls {
                black_box(Person::from_row(black_box(row))?);
            }
            Ok(())
        },
        baseline: None,
        iterations: MANY_CALLS,
        per_iteration: 1,
    },
];

diesel::table! {
    people (id) {
        id -> BigInt,
        name -> Text,
        email -> Text,
        score -> Double,
        city -> Nullable<Text>,
        created_at -> Text,
    }
}

#[derive(Queryable)]
#[allow(dead_code, reason = "the fields are decoded and not read")]
struct Person {
    id: i64,
    name: String,
    email: String,
    score: f64,
    city: Option<String>,
    created_at: String,
}

impl Person {
    fn from_row(row: &Row) -> Result<Self, DbError> {
        Ok(Person {
            id: row.get("id")?,
            name: row.get("name")?,
            email: row.get("email")?,
            score: row.get("score")?,
            city: row.get("city")?,
            created_at: row.get("created_at")?,
        })
    }
}

/// Returns the id of the person that a call queries: all people one after the other, and then from the start.
fn id(call: u64) -> i64 {
    (call % PEOPLE + 1).cast_signed()
}

/// Chooses a database in memory, whatever the environment variables are.
fn open() -> anyhow::Result<()> {
    let config = DatabaseConfig::new("sqlite::memory:".parse()?);
    Ok(ConfigService::provide(ConfigService::new(config))?)
}

fn open_with_people() -> anyhow::Result<()> {
    open()?;
    DatabaseService::execute_query(TABLE, params! {})?;
    DatabaseService::execute_query(
        &PEOPLE_ROWS.replace('?', ":people"),
        params! { "people" => PEOPLE.cast_signed() },
    )?;
    Ok(())
}

/// Executes `sql` without its parameters, which fails after the statement was parsed and before SQLite receives it.
/// Each text is new, so that the connection does not know it.
fn fail_after_parsing(sql: &str, calls: u64) -> anyhow::Result<()> {
    open()?;
    let mut connection = DatabaseService::connection()?;
    for call in 0..calls {
        let sql = format!("{sql} -- {call:06}");
        match black_box(connection.execute_query(black_box(&sql), params! {})) {
            Err(DbError::MissingParameter { .. }) => {}
            other => bail!("a statement without its parameters returned {other:?}"),
        }
    }
    Ok(())
}

/// Executes the same statement so that it returns the first `rows` people.
fn query_rows(rows: u64, calls: u64) -> anyhow::Result<()> {
    open_with_people()?;
    let mut connection = DatabaseService::connection()?;
    for _ in 0..calls {
        let found =
            connection.execute_query(SEVERAL_ROWS, params! { "last" => rows.cast_signed() })?;
        ensure!(
            black_box(found).len() as u64 == rows,
            "the table holds {PEOPLE} people"
        );
    }
    Ok(())
}
