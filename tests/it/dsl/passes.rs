//! The values of a query in each pass of diesel over it: executed, logged, prepared or not, and shown to an observer.

use std::sync::{Arc, Mutex};

use db_service::{Connection, DatabaseService, DbError, params};
use diesel::connection::{Connection as _, InstrumentationEvent, LoadConnection};
use diesel::prelude::*;
use tests::TestDatabase;

use super::tables::{Pet, create_rows, execute, is_postgres, new_pet, pets};
use crate::reporting::logs::{capture, lines_with};

on_both_backends!(
    values_arrive_with_and_without_a_statement_cache,
    values_arrive_while_they_are_logged,
    values_are_not_logged_unless_requested,
    values_are_shown_to_an_instrumentation,
    instrumentation_ends_with_the_checkout,
    query_is_prepared_once,
    changed_table_is_read_with_a_new_plan,
);

/// Runs one query of each kind with the text `name` as a value, on both connection types, and asserts their results.
fn use_values(name: &str) {
    let connection = &mut DatabaseService::connection().unwrap();
    let inserted: Pet = diesel::insert_into(pets::table)
        .values(&new_pet(name))
        .returning(Pet::as_returning())
        .get_result(connection)
        .unwrap();
    let inner: &mut Connection = connection;
    let updated = diesel::update(pets::table.filter(pets::name.eq(name)))
        .set(pets::weight.eq(3))
        .execute(inner);
    assert_eq!(updated, Ok(1));
    let by_name = pets::table.filter(pets::name.eq_any([name, "nobody"]));
    // By reference, for which diesel makes one pass only.
    let by_name = by_name.select(pets::id);
    assert_eq!(LoadConnection::load(inner, &by_name).unwrap().count(), 1);
    let update = diesel::update(pets::table.find(inserted.id)).set(pets::weight.eq(3));
    assert_eq!(inner.execute_returning_count(&&update), Ok(1));
    let boxed = pets::table
        .into_boxed()
        .filter(pets::name.eq(name))
        .filter(pets::weight.eq(3));
    assert_eq!(boxed.count().get_result(connection), Ok(1));
    let raw = diesel::sql_query("UPDATE pets SET kind = $1 WHERE name = $2")
        .bind::<diesel::sql_types::Text, _>("cat")
        .bind::<diesel::sql_types::Text, _>(name)
        .execute(connection);
    assert_eq!(raw, Ok(1));
    let batch = vec![new_pet(&format!("{name} 1")), new_pet(&format!("{name} 2"))];
    let batch = diesel::insert_into(pets::table)
        .values(&batch)
        .on_conflict_do_nothing()
        .execute(connection);
    assert_eq!(batch, Ok(2));
    let deleted = diesel::delete(pets::table.filter(pets::name.like(format!("{name}%"))));
    assert_eq!(deleted.execute(connection), Ok(3));
}

fn values_arrive_with_and_without_a_statement_cache(database: &TestDatabase) {
    database.scope().run(|| create_rows(database));
    for size in [0, 1, 100] {
        let scope = database.scope_with(|config| config.statement_cache_size = size);
        scope.run(|| {
            for round in 0..3 {
                use_values(&format!("round {round}"));
            }
        });
    }
}

fn values_arrive_while_they_are_logged(database: &TestDatabase) {
    capture();
    let scope = database.scope_with(|config| {
        (config.echo_sql, config.echo_parameters) = (true, true);
    });
    scope.run(|| {
        create_rows(database);
        let name = format!("dsl logged {}", is_postgres(database));
        use_values(&name);
        let lines = lines_with(&name);
        // One line for each of the seven queries, with its text and its values.
        assert_eq!(lines.len(), 7, "{lines:?}");
        for (line, statement) in lines.iter().zip([
            "INSERT", "UPDATE", "SELECT", "SELECT", "UPDATE", "INSERT", "DELETE",
        ]) {
            assert!(line.contains(statement), "{statement} in {line}");
            assert!(line.contains("pets") && line.contains("binds"), "{line}");
        }
    });
}

fn values_are_not_logged_unless_requested(database: &TestDatabase) {
    capture();
    let scope = database.scope_with(|config| config.echo_sql = true);
    scope.run(|| {
        create_rows(database);
        let [name, mark] =
            ["secret", "mark"].map(|text| format!("dsl_{text}_{}", is_postgres(database)));
        let connection = &mut DatabaseService::connection().unwrap();
        let query = pets::table
            .filter(pets::name.eq(&name))
            .select(diesel::dsl::sql::<diesel::sql_types::BigInt>(&format!(
                "id AS {mark}"
            )));
        assert_eq!(query.load::<i64>(connection), Ok(vec![]));
        assert_eq!(lines_with(&mark).len(), 1);
        assert_eq!(lines_with(&name), [""; 0]);
    });
}

/// Collects the queries that an instrumentation sees, rendered with their values.
fn observe(connection: &mut impl diesel::Connection) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&seen);
    connection.set_instrumentation(move |event: InstrumentationEvent<'_>| match event {
        InstrumentationEvent::StartQuery { query, .. } => {
            events.lock().unwrap().push(query.to_string());
        }
        InstrumentationEvent::FinishQuery { query, error, .. } => {
            let end = if error.is_some() { "failed" } else { "done" };
            events.lock().unwrap().push(format!("{end}: {query}"));
        }
        _ => {}
    });
    seen
}

fn values_are_shown_to_an_instrumentation(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let seen = observe(connection);
        let query = pets::table
            .filter(pets::name.eq("Rex"))
            .filter(pets::id.lt(9))
            .select(pets::id);
        assert_eq!(query.load(connection), Ok(vec![1]));
        let duplicate = diesel::insert_into(pets::table)
            .values((pets::id.eq(1), pets::name.eq("Max")))
            .execute(connection);
        assert!(duplicate.is_err());
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 4, "{seen:?}");
        assert!(seen[0].starts_with("SELECT"), "{}", seen[0]);
        assert!(seen[0].ends_with(r#"-- binds: ["Rex", 9]"#), "{}", seen[0]);
        assert_eq!(seen[1], format!("done: {}", seen[0]));
        assert!(seen[2].ends_with(r#"-- binds: [1, "Max"]"#), "{}", seen[2]);
        assert_eq!(seen[3], format!("failed: {}", seen[2]));
    });
}

fn instrumentation_ends_with_the_checkout(database: &TestDatabase) {
    let scope = database.scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0));
    scope.run(|| {
        create_rows(database);
        let seen = observe(&mut DatabaseService::connection().unwrap());
        execute(&["DELETE FROM pets"]);
        let count = pets::table.count();
        let count: i64 = count
            .get_result(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(count, 0);
        assert_eq!(*seen.lock().unwrap(), [""; 0]);
    });
}

fn query_is_prepared_once(database: &TestDatabase) {
    if !is_postgres(database) {
        return;
    }
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let prepared = |connection: &mut Connection| -> i64 {
            let sql = "SELECT count(*) AS n FROM pg_prepared_statements WHERE statement LIKE '%FROM \"pets\" WHERE%' \
                       AND statement NOT LIKE '%pg_prepared_statements%'";
            let rows = connection.execute_query(sql, params! {}).unwrap();
            rows[0].get("n").unwrap()
        };
        for id in 1..=4 {
            // One text for lists of each length.
            let ids: Vec<i64> = (1..=id).collect();
            let found = pets::table.filter(pets::id.eq_any(ids)).count();
            assert_eq!(found.get_result(connection), Ok(id));
            let name = pets::table.find(id).select(pets::name);
            name.first::<String>(connection).unwrap();
            assert_eq!(prepared(connection), 2, "after {id}");
        }
    });
}

fn changed_table_is_read_with_a_new_plan(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let all = || pets::table.order(pets::id).select(pets::name);
        let before: Vec<String> = all().load(connection).unwrap();
        if is_postgres(database) {
            execute(&["ALTER TABLE pets ALTER COLUMN name TYPE varchar(20)"]);
        } else {
            execute(&["ALTER TABLE pets ADD COLUMN more TEXT"]);
        }
        let after: Vec<String> = all().load(connection).unwrap();
        assert_eq!(before, after);
        if is_postgres(database) {
            assert_eq!(all().load(connection), Ok(before.clone()), "prepared again");
            // In a transaction the statement has failed, and a retry of the transaction succeeds.
            execute(&["ALTER TABLE pets ALTER COLUMN name TYPE text"]);
            let mut load = || connection.transaction(|connection| all().load::<String>(connection));
            let error = DbError::from(load().unwrap_err());
            assert!(matches!(error, DbError::StalePlan(_)), "{error:?}");
            assert_eq!(load(), Ok(before));
        }
    });
}
