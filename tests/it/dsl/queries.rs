//! `SELECT`: filters, joins, subselects, order and limits.

use chrono::{DateTime, Utc};
use db_service::{DatabaseService, DbError, MultiBackend, params};
use diesel::dsl::{exists, not, now};
use diesel::prelude::*;
use diesel::sql_types::Timestamptz;
use tests::TestDatabase;

use super::tables::{Owner, Pet, create_rows, execute, is_postgres, owners, pets};

on_both_backends!(
    eq_any_and_ne_all_compare_with_a_list,
    inner_and_left_joins,
    belonging_rows_are_grouped,
    table_is_joined_with_itself_by_an_alias,
    boxed_query_grows_condition_by_condition,
    limit_and_offset_work_without_each_other,
    exists_and_distinct,
    distinct_on_needs_postgres,
    union_intersect_and_except,
    subselects,
    like_and_escape,
    concatenation,
    null_is_compared,
    now_is_a_point_in_time,
    first_get_result_and_optional,
    rows_are_loaded_one_by_one,
    rows_of_a_query_are_deserialized_by_position,
);

/// Loads names, ordered by the query.
macro_rules! names {
    ($query:expr, $connection:expr) => {
        $query
            .select(pets::name)
            .load::<String>($connection)
            .unwrap()
            .join(" ")
    };
}

fn eq_any_and_ne_all_compare_with_a_list(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let by_id = pets::table.order(pets::id);
        assert_eq!(
            names!(by_id.filter(pets::id.eq_any([1_i64, 3, 99])), connection),
            "Rex Kit"
        );
        assert_eq!(
            names!(
                by_id.filter(pets::name.ne_all(vec!["Rex", "Ox"])),
                connection
            ),
            "Tom Kit"
        );
        let nothing = Vec::<i64>::new();
        assert_eq!(
            names!(by_id.filter(pets::id.eq_any(&nothing)), connection),
            ""
        );
        assert_eq!(
            names!(by_id.filter(pets::id.ne_all(&nothing)), connection),
            "Rex Tom Kit Ox"
        );
        // SQLite accepts 32,766 parameters.
        let many: Vec<i64> = (2..30_000).collect();
        assert_eq!(
            names!(by_id.filter(pets::id.eq_any(&many)), connection),
            "Tom Kit Ox"
        );
        assert_eq!(
            names!(by_id.filter(pets::id.ne_all(&many)), connection),
            "Rex"
        );
        assert_eq!(
            names!(
                by_id.filter(pets::weight.eq_any([Some(4), Some(30), None])),
                connection
            ),
            "Rex Tom"
        );
    });
}

fn inner_and_left_joins(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let inner: Vec<(String, Owner)> = pets::table
            .inner_join(owners::table)
            .filter(owners::city.eq("London"))
            .order(pets::name.desc())
            .select((pets::name, Owner::as_select()))
            .load(connection)
            .unwrap();
        let inner: Vec<_> = inner
            .iter()
            .map(|(pet, owner)| (&**pet, &*owner.name))
            .collect();
        assert_eq!(inner, [("Tom", "Ada"), ("Rex", "Ada")]);
        let left: Vec<(Pet, Option<Owner>)> = pets::table
            .left_join(owners::table)
            .order(pets::id)
            .select((Pet::as_select(), Option::<Owner>::as_select()))
            .load(connection)
            .unwrap();
        let ids: Vec<_> = left
            .iter()
            .map(|(pet, owner)| (pet.id, owner.as_ref().map(|owner| owner.id)))
            .collect();
        assert_eq!(ids, [(1, Some(1)), (2, Some(1)), (3, Some(2)), (4, None)]);
        let nullable: Vec<(String, Option<String>)> = owners::table
            .left_join(pets::table.on(pets::owner_id.eq(owners::id.nullable())))
            .filter(pets::id.is_null())
            .select((owners::name, pets::name.nullable()))
            .load(connection)
            .unwrap();
        assert_eq!(nullable, [("Cy".to_owned(), None)]);
    });
}

fn belonging_rows_are_grouped(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let owners: Vec<Owner> = owners::table.order(owners::id).load(connection).unwrap();
        let pets: Vec<Pet> = Pet::belonging_to(&owners)
            .select(Pet::as_select())
            .load(connection)
            .unwrap();
        let counts: Vec<usize> = pets.grouped_by(&owners).iter().map(Vec::len).collect();
        assert_eq!(counts, [2, 1, 0]);
    });
}

fn table_is_joined_with_itself_by_an_alias(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let other = diesel::alias!(pets as other);
        let pairs: Vec<(String, String)> = pets::table
            .inner_join(other.on(other.field(pets::kind).eq(pets::kind)))
            .filter(other.field(pets::id).gt(pets::id))
            .select((pets::name, other.field(pets::name)))
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(pairs, [("Tom".to_owned(), "Kit".to_owned())]);
    });
}

fn boxed_query_grows_condition_by_condition(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let find = |kind: Option<&'static str>, offset| {
            let mut query = pets::table.into_boxed::<MultiBackend>();
            if let Some(kind) = kind {
                query = query.filter(pets::kind.eq(kind));
            }
            query = query.or_filter(pets::name.eq("Ox"));
            query.order(pets::id).offset(offset)
        };
        assert_eq!(names!(find(Some("cat"), 0), connection), "Tom Kit Ox");
        assert_eq!(names!(find(Some("cat"), 1), connection), "Kit Ox");
        assert_eq!(names!(find(Some("dog"), 0).limit(1), connection), "Rex");
        let condition: Box<
            dyn BoxableExpression<pets::table, MultiBackend, SqlType = diesel::sql_types::Bool>,
        > = Box::new(pets::kind.eq("cat").and(pets::name.ne("Tom")));
        assert_eq!(names!(pets::table.filter(condition), connection), "Kit");
    });
}

fn limit_and_offset_work_without_each_other(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let by_id = pets::table.order(pets::id);
        assert_eq!(names!(by_id.limit(2), connection), "Rex Tom");
        assert_eq!(names!(by_id.offset(2), connection), "Kit Ox");
        assert_eq!(names!(by_id.limit(1).offset(2), connection), "Kit");
        assert_eq!(names!(by_id.limit(0), connection), "");
    });
}

fn exists_and_distinct(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        for (kind, expected) in [("cat", true), ("bat", false)] {
            let query = diesel::select(exists(pets::table.filter(pets::kind.eq(kind))));
            assert_eq!(query.get_result(connection), Ok(expected));
        }
        let kinds: Vec<String> = pets::table
            .select(pets::kind)
            .distinct()
            .order(pets::kind)
            .load(connection)
            .unwrap();
        assert_eq!(kinds, ["cat", "cow", "dog"]);
        let lonely: Vec<String> = owners::table
            .filter(not(exists(
                pets::table.filter(pets::owner_id.eq(owners::id.nullable())),
            )))
            .select(owners::name)
            .load(connection)
            .unwrap();
        assert_eq!(lonely, ["Cy"]);
    });
}

fn distinct_on_needs_postgres(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let heaviest = DatabaseService::with_connection(|connection| {
            pets::table
                .distinct_on(pets::kind)
                .filter(pets::weight.is_not_null())
                .order((pets::kind, pets::weight.desc()))
                .select(pets::name)
                .load::<String>(connection)
        });
        if is_postgres(database) {
            assert_eq!(heaviest.unwrap(), ["Kit", "Rex"]);
        } else {
            let error = heaviest.unwrap_err();
            assert!(matches!(error, DbError::Unsupported { .. }), "{error:?}");
            assert!(error.to_string().contains("DISTINCT ON"), "{error}");
        }
    });
}

fn union_intersect_and_except(database: &TestDatabase) {
    use diesel::query_dsl::positional_order_dsl::PositionalOrderDsl;
    database.scope().run(|| {
        create_rows(database);
        execute(&["INSERT INTO owners (name) VALUES ('Rex')"]);
        let connection = &mut DatabaseService::connection().unwrap();
        let cats = || pets::table.filter(pets::kind.eq("cat")).select(pets::name);
        let light = || pets::table.filter(pets::weight.lt(5)).select(pets::name);
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names.join(" ")
        };
        assert_eq!(
            sorted(cats().union(light()).load(connection).unwrap()),
            "Kit Tom"
        );
        assert_eq!(
            sorted(cats().union_all(light()).load(connection).unwrap()),
            "Kit Tom Tom"
        );
        assert_eq!(
            sorted(cats().intersect(light()).load(connection).unwrap()),
            "Tom"
        );
        assert_eq!(
            sorted(cats().except(light()).load(connection).unwrap()),
            "Kit"
        );
        // Parts with values, an order and a limit of their own, and of two tables.
        let first: Vec<String> = cats()
            .order(pets::name.desc())
            .limit(1)
            .union(owners::table.filter(owners::id.ge(2)).select(owners::name))
            .union_all(pets::table.filter(pets::name.eq("Ox")).select(pets::name))
            .positional_order_by(1)
            .limit(4)
            .load(connection)
            .unwrap();
        assert_eq!(first, ["Bob", "Cy", "Ox", "Rex"]);
    });
}

fn subselects(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let in_paris = owners::table
            .filter(owners::city.eq("Paris"))
            .select(owners::id.nullable());
        assert_eq!(
            names!(
                pets::table.filter(pets::owner_id.eq_any(in_paris)),
                connection
            ),
            "Kit"
        );
        assert_eq!(
            names!(
                pets::table
                    .filter(pets::owner_id.ne_all(in_paris))
                    .order(pets::id),
                connection
            ),
            "Rex Tom"
        );
        let other = diesel::alias!(pets as other);
        let heaviest = other.select(diesel::dsl::max(other.field(pets::weight)));
        assert_eq!(
            names!(
                pets::table.filter(pets::weight.eq(heaviest.single_value())),
                connection
            ),
            "Rex"
        );
        let count = pets::table
            .filter(pets::owner_id.eq(owners::id.nullable()))
            .count()
            .single_value();
        let counts: Vec<(String, Option<i64>)> = owners::table
            .select((owners::name, count))
            .order(owners::id)
            .load(connection)
            .unwrap();
        let counts: Vec<_> = counts.iter().map(|(name, n)| (&**name, *n)).collect();
        assert_eq!(
            counts,
            [("Ada", Some(2)), ("Bob", Some(1)), ("Cy", Some(0))]
        );
    });
}

fn like_and_escape(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        execute(&["INSERT INTO pets (id, name) VALUES (10, 'a_b'), (11, 'axb')"]);
        let connection = &mut DatabaseService::connection().unwrap();
        let by_id = pets::table.order(pets::id);
        assert_eq!(
            names!(by_id.filter(pets::name.like("%o%")), connection).replace("Ox", ""),
            // SQLite's LIKE ignores the case of ASCII letters.
            if is_postgres(database) { "Tom" } else { "Tom " }
        );
        assert_eq!(
            names!(by_id.filter(pets::name.like("a_b")), connection),
            "a_b axb"
        );
        assert_eq!(
            names!(
                by_id.filter(pets::name.like("a!_b").escape('!')),
                connection
            ),
            "a_b"
        );
        assert_eq!(
            names!(
                by_id.filter(pets::name.not_like("%b").and(pets::id.gt(3))),
                connection
            ),
            "Ox"
        );
    });
}

fn concatenation(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let described: Vec<String> = pets::table
            .filter(pets::name.concat("!").eq("Rex!"))
            .select(pets::name.concat(" the ").concat(pets::kind))
            .load(connection)
            .unwrap();
        assert_eq!(described, ["Rex the dog"]);
    });
}

fn null_is_compared(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let by_id = pets::table.order(pets::id);
        assert_eq!(
            names!(by_id.filter(pets::owner_id.is_null()), connection),
            "Ox"
        );
        assert_eq!(
            names!(by_id.filter(pets::weight.is_not_null()), connection),
            "Rex Tom Kit"
        );
        assert_eq!(
            names!(by_id.filter(pets::owner_id.eq(None::<i64>)), connection),
            "",
            "NULL equals nothing"
        );
        assert_eq!(
            names!(
                by_id.filter(pets::weight.between(4, 5).or(pets::weight.is_null())),
                connection
            ),
            "Tom Kit Ox"
        );
        let total = pets::table
            .select(pets::weight.assume_not_null() * 2 + 1)
            .filter(pets::weight.eq(4));
        assert_eq!(total.get_result(connection), Ok(9));
    });
}

fn now_is_a_point_in_time(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let before = Utc::now() - chrono::Duration::seconds(2);
        let born: Option<DateTime<Utc>> = diesel::update(pets::table.find(1))
            .set(pets::born.eq(now.into_sql::<diesel::sql_types::Nullable<Timestamptz>>()))
            .returning(pets::born)
            .get_result(connection)
            .unwrap();
        let after = Utc::now() + chrono::Duration::seconds(2);
        assert!(
            born.is_some_and(|born| before < born && born < after),
            "{born:?}"
        );
        for (id, days) in [(2, -1), (3, 1)] {
            diesel::update(pets::table.find(id))
                .set(pets::born.eq(Utc::now() + chrono::Duration::days(days)))
                .execute(connection)
                .unwrap();
        }
        let unborn = pets::table
            .filter(pets::born.gt(now.into_sql::<diesel::sql_types::Nullable<Timestamptz>>()));
        assert_eq!(names!(unborn, connection), "Kit");
    });
}

fn first_get_result_and_optional(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let first: Pet = pets::table
            .order(pets::id.desc())
            .first(connection)
            .unwrap();
        assert_eq!(first.name, "Ox");
        let by_kind = |kind| pets::table.filter(pets::kind.eq(kind)).select(pets::id);
        assert_eq!(by_kind("dog").get_result(connection), Ok(1));
        assert_eq!(by_kind("bat").first::<i64>(connection).optional(), Ok(None));
        let missing = DatabaseService::with_connection(|connection| {
            pets::table
                .find(99)
                .select(pets::id)
                .first::<i64>(connection)
        });
        let error = missing.unwrap_err();
        assert!(
            matches!(&error, DbError::Query(error)
                if *error.driver_error() == diesel::result::Error::NotFound),
            "{error:?}"
        );
    });
}

fn rows_are_loaded_one_by_one(database: &TestDatabase) {
    use diesel::connection::DefaultLoadingMode;
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let pets = pets::table.select(Pet::as_select()).order(pets::id);
        let first: Vec<i64> = pets
            .load_iter::<Pet, DefaultLoadingMode>(connection)
            .unwrap()
            .take(2)
            .map(|pet| pet.unwrap().id)
            .collect();
        assert_eq!(first, [1, 2]);
        // The rest of the rows is not in the way of the next statement.
        assert_eq!(pets::table.count().get_result(connection), Ok(4));
    });
}

fn rows_of_a_query_are_deserialized_by_position(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        // No `select`: the columns of the table, in the order of the struct's fields.
        let owner: Owner = owners::table
            .find(3)
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        let expected = Owner {
            id: 3,
            name: "Cy".to_owned(),
            city: None,
        };
        assert_eq!(owner, expected);
        let rows = DatabaseService::execute_query(
            "SELECT id FROM owners WHERE name = :name",
            params! { "name" => owner.name },
        );
        assert_eq!(rows.unwrap()[0].get::<i64>("id").unwrap(), 3);
    });
}
