//! Aggregates, groups, window functions, conditions and functions of the database.

use db_service::{DatabaseService, MultiBackend};
use diesel::dsl::{avg, case_when, count, count_star, max, min, rank, row_number, sql, sum};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Double, Float, Integer, Nullable, Text};
use tests::TestDatabase;

use super::tables::{Pet, create_rows, execute, pets};

on_both_backends!(
    aggregates_are_computed,
    aggregate_filter_restricts_its_rows,
    groups_have_conditions,
    window_functions,
    window_frames,
    aggregates_have_an_order,
    case_when_chooses_a_value,
    casts_name_a_type_of_both_databases,
    functions_of_the_database_are_declared,
    sql_literals_take_parameters,
    sql_query_takes_parameters_and_names_its_columns,
    debug_query_shows_the_text_and_the_values,
);

fn aggregates_are_computed(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        execute(&["INSERT INTO pets (id, name, kind, weight) VALUES (5, 'Pip', 'cat', 5)"]);
        let connection = &mut DatabaseService::connection().unwrap();
        assert_eq!(pets::table.count().get_result(connection), Ok(5));
        let counts: (i64, i64, i64) = pets::table
            .select((
                count_star(),
                count(pets::weight),
                count(pets::weight).aggregate_distinct(),
            ))
            .first(connection)
            .unwrap();
        assert_eq!(counts, (5, 4, 3));
        let extremes: (Option<i32>, Option<i32>, Option<i64>, Option<String>) = pets::table
            .select((
                min(pets::weight),
                max(pets::weight),
                sum(pets::weight),
                max(pets::name),
            ))
            .first(connection)
            .unwrap();
        assert_eq!(
            extremes,
            (Some(4), Some(30), Some(44), Some("Tom".to_owned()))
        );
        let nothing: Option<i64> = pets::table
            .filter(pets::name.eq("nobody"))
            .select(sum(pets::weight))
            .first(connection)
            .unwrap();
        assert_eq!(nothing, None);
        let average: Option<f64> = pets::table
            .select(avg(pets::weight.cast::<Nullable<Double>>()))
            .first(connection)
            .unwrap();
        assert_eq!(average, Some(11.0));
    });
}

fn aggregate_filter_restricts_its_rows(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let (all, cats, weight): (i64, i64, Option<i64>) = pets::table
            .select((
                count_star(),
                count(pets::id).aggregate_filter(pets::kind.eq("cat")),
                sum(pets::weight).aggregate_filter(pets::kind.ne("dog")),
            ))
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!((all, cats, weight), (4, 2, Some(9)));
    });
}

fn groups_have_conditions(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let groups: Vec<(String, i64, Option<i32>)> = pets::table
            .group_by(pets::kind)
            .select((pets::kind, count_star(), max(pets::weight)))
            .order((count_star().desc(), pets::kind))
            .load(connection)
            .unwrap();
        let groups: Vec<_> = groups
            .iter()
            .map(|(kind, count, weight)| (&**kind, *count, *weight))
            .collect();
        assert_eq!(
            groups,
            [("cat", 2, Some(5)), ("cow", 1, None), ("dog", 1, Some(30))]
        );
        let frequent: Vec<String> = pets::table
            .group_by(pets::kind)
            .having(count_star().gt(1).and(max(pets::weight).lt(10)))
            .select(pets::kind)
            .load(connection)
            .unwrap();
        assert_eq!(frequent, ["cat"]);
    });
}

fn window_functions(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let rows: Vec<(String, i64, i64, Option<i64>)> = pets::table
            .filter(pets::weight.is_not_null())
            .select((
                pets::name,
                row_number().window_order(pets::name),
                rank()
                    .partition_by(pets::kind)
                    .window_order(pets::weight.desc()),
                sum(pets::weight).over().partition_by(pets::kind),
            ))
            .order(pets::name)
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, number, rank, sum)| (&**name, *number, *rank, *sum))
            .collect();
        assert_eq!(
            rows,
            [
                ("Kit", 1, 1, Some(9)),
                ("Rex", 2, 1, Some(30)),
                ("Tom", 3, 2, Some(9))
            ]
        );
    });
}

fn window_frames(database: &TestDatabase) {
    use diesel::dsl::frame;
    database.scope().run(|| {
        create_rows(database);
        let sums: Vec<Option<i64>> = pets::table
            .order(pets::id)
            .select(
                sum(pets::weight)
                    .window_order(pets::id)
                    .frame_by(frame::Rows.frame_start_with(1.preceding())),
            )
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(sums, [Some(30), Some(34), Some(9), Some(5)]);
    });
}

fn aggregates_have_an_order(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let names: Option<String> = pets::table
            .select(
                string_agg(pets::name.nullable(), ", ")
                    .aggregate_filter(pets::weight.is_not_null())
                    .aggregate_order(pets::name.desc()),
            )
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(names.as_deref(), Some("Tom, Rex, Kit"));
    });
}

fn case_when_chooses_a_value(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        // Without the type, the compiler searches for a very long time.
        let size = case_when::<_, _, Text>(pets::weight.gt(10), "heavy")
            .when(pets::weight.le(10), "light")
            .otherwise("unknown");
        let sizes: Vec<String> = pets::table
            .order(pets::id)
            .select(size)
            .load(&mut DatabaseService::connection().unwrap())
            .unwrap();
        assert_eq!(sizes, ["heavy", "light", "light", "unknown"]);
    });
}

fn casts_name_a_type_of_both_databases(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let row: (String, i64, i32, f64, f32) = pets::table
            .find(1)
            .select((
                pets::id.cast::<Text>(),
                pets::weight.assume_not_null().cast::<BigInt>(),
                pets::id.cast::<Text>().fallible_cast::<Integer>(),
                pets::weight.assume_not_null().cast::<Double>(),
                sql::<Double>("0.5").fallible_cast::<Float>(),
            ))
            .first(connection)
            .unwrap();
        assert_eq!(row, ("1".to_owned(), 30, 1, 30.0, 0.5));
    });
}

diesel::define_sql_function! {
    fn upper(text: Text) -> Text;
}

#[diesel::declare_sql_function]
extern "SQL" {
    fn lower(text: Text) -> Text;

    fn coalesce(first: Nullable<Integer>, second: Integer) -> Integer;

    #[aggregate]
    fn string_agg(text: Nullable<Text>, separator: Text) -> Nullable<Text>;

    #[aggregate]
    #[sql_name = "count"]
    fn count_of(value: Nullable<Integer>) -> BigInt;
}

fn functions_of_the_database_are_declared(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let rows: Vec<(String, String, i32)> = pets::table
            .filter(lower(pets::name).eq_any(["rex", "ox"]))
            .order(pets::id)
            .select((
                lower(pets::name),
                upper(pets::kind),
                coalesce(pets::weight, -1),
            ))
            .load(connection)
            .unwrap();
        let row = |name: &str, kind: &str, weight| (name.to_owned(), kind.to_owned(), weight);
        assert_eq!(rows, [row("rex", "DOG", 30), row("ox", "COW", -1)]);
        let weighed = pets::table.select(count_of(pets::weight));
        assert_eq!(weighed.first(connection), Ok(3));
    });
}

fn sql_literals_take_parameters(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        let names: Vec<String> = pets::table
            .filter(
                sql::<diesel::sql_types::Bool>("weight * ")
                    .bind::<Integer, _>(2)
                    .sql(" >= ")
                    .bind::<Integer, _>(10),
            )
            .filter(pets::name.ne("Rex"))
            .order(sql::<Integer>("length(kind) DESC, id"))
            .select(pets::name)
            .load(connection)
            .unwrap();
        assert_eq!(names, ["Kit"]);
        let length = diesel::select(sql::<BigInt>("length('four')"));
        // PostgreSQL's `length` is an `integer`, and the driver does not convert it.
        assert_eq!(
            length.get_result::<i64>(connection).is_ok(),
            !super::tables::is_postgres(database)
        );
    });
}

#[derive(Debug, PartialEq, QueryableByName)]
#[diesel(check_for_backend(MultiBackend))]
struct Counted {
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = Nullable<Integer>)]
    heaviest: Option<i32>,
}

fn sql_query_takes_parameters_and_names_its_columns(database: &TestDatabase) {
    database.scope().run(|| {
        create_rows(database);
        let connection = &mut DatabaseService::connection().unwrap();
        // SQLite accepts PostgreSQL's placeholders if they appear in the order of their numbers.
        let counted: Vec<Counted> = diesel::sql_query(
            "SELECT max(weight) AS heaviest, kind, count(*) AS n FROM pets WHERE kind <> $1 AND id > $2 \
             GROUP BY kind ORDER BY kind",
        )
        .bind::<Text, _>("dog")
        .bind::<BigInt, _>(0)
        .load(connection)
        .unwrap();
        let expected = |kind: &str, n, heaviest| Counted {
            kind: kind.to_owned(),
            n,
            heaviest,
        };
        assert_eq!(
            counted,
            [expected("cat", 2, Some(5)), expected("cow", 1, None)]
        );
        // A struct of a table reads the columns of the same names.
        let mut boxed = diesel::sql_query("SELECT * FROM pets WHERE name = $1")
            .into_boxed::<MultiBackend>()
            .bind::<Text, _>("Tom");
        boxed = boxed.sql(" AND weight < $2").bind::<Integer, _>(10);
        let pets: Vec<NamedPet> = boxed.load(connection).unwrap();
        assert_eq!(pets, [NamedPet { id: 2, weight: Some(4) }]);
        let changed = diesel::sql_query("UPDATE pets SET weight = $1 WHERE kind = $2")
            .bind::<Integer, _>(6)
            .bind::<Text, _>("cat")
            .execute(connection);
        assert_eq!(changed, Ok(2));
        let tom: Pet = pets::table.find(2).first(connection).unwrap();
        assert_eq!(tom.weight, Some(6));
    });
}

#[derive(Debug, PartialEq, QueryableByName)]
#[diesel(table_name = pets, check_for_backend(MultiBackend))]
struct NamedPet {
    id: i64,
    weight: Option<i32>,
}

fn debug_query_shows_the_text_and_the_values(_: &TestDatabase) {
    let query = pets::table
        .filter(pets::name.eq("Rex"))
        .filter(pets::id.eq_any([1_i64, 2]))
        .select(pets::id);
    let shown = diesel::debug_query::<MultiBackend, _>(&query).to_string();
    assert_eq!(
        shown,
        r#"SELECT "pets"."id" FROM "pets" WHERE (("pets"."name" = $1) AND ("pets"."id" = ANY($2))) -- binds: ["Rex", [1, 2]]"#
    );
}
