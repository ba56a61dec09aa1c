//! Types of the user: enums stored as text, as an integer, and as an enum type of PostgreSQL.

use std::io::Write;

use db_service::{DatabaseService, MultiBackend, params};
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::prelude::*;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Integer, Text};
use diesel::sqlite::{Sqlite, SqliteValue};
use tests::TestDatabase;

use super::tables::{execute, is_postgres};

on_both_backends!(
    own_types_are_written_and_read,
    own_types_are_seen_by_execute_query,
    own_types_are_compared,
    own_types_are_null,
    unknown_value_of_an_own_type_is_an_error,
);

/// Stored as text on every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
enum Color {
    Red,
    Blue,
}

impl<DB: Backend> ToSql<Text, DB> for Color
where
    str: ToSql<Text, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        match self {
            Color::Red => "red".to_sql(out),
            Color::Blue => "blue".to_sql(out),
        }
    }
}

impl<DB: Backend> FromSql<Text, DB> for Color
where
    String: FromSql<Text, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        match &*String::from_sql(value)? {
            "red" => Ok(Color::Red),
            "blue" => Ok(Color::Blue),
            _ => Err("an unknown color".into()),
        }
    }
}

/// Stored as an integer on every backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = Integer)]
enum Size {
    Small,
    Large,
}

impl<DB: Backend> ToSql<Integer, DB> for Size
where
    i32: ToSql<Integer, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        match self {
            Size::Small => 1.to_sql(out),
            Size::Large => 2.to_sql(out),
        }
    }
}

impl<DB: Backend> FromSql<Integer, DB> for Size
where
    i32: FromSql<Integer, DB>,
{
    fn from_sql(value: DB::RawValue<'_>) -> deserialize::Result<Self> {
        match i32::from_sql(value)? {
            1 => Ok(Size::Small),
            2 => Ok(Size::Large),
            _ => Err("an unknown size".into()),
        }
    }
}

/// The enum type `mood` on PostgreSQL, text on SQLite.
#[derive(Debug, Clone, Copy, diesel::sql_types::SqlType, diesel::query_builder::QueryId)]
#[diesel(postgres_type(name = "mood"), sqlite_type(name = "Text"))]
pub struct MoodType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = MoodType)]
enum Mood {
    Happy,
    Sad,
}

impl Mood {
    fn name(self) -> &'static str {
        match self {
            Mood::Happy => "happy",
            Mood::Sad => "sad",
        }
    }

    fn of(name: &str) -> deserialize::Result<Self> {
        match name {
            "happy" => Ok(Mood::Happy),
            "sad" => Ok(Mood::Sad),
            _ => Err("an unknown mood".into()),
        }
    }
}

impl ToSql<MoodType, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(self.name().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl ToSql<MoodType, Sqlite> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.name());
        Ok(IsNull::No)
    }
}

impl FromSql<MoodType, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Mood::of(std::str::from_utf8(value.as_bytes())?)
    }
}

impl FromSql<MoodType, Sqlite> for Mood {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Mood::of(&<String as FromSql<Text, Sqlite>>::from_sql(value)?)
    }
}

db_service::sql_type! { MoodType: Mood }

diesel::table! {
    use diesel::sql_types::*;
    use super::MoodType;

    things (id) {
        id -> BigInt,
        color -> Nullable<Text>,
        size -> Nullable<Integer>,
        mood -> Nullable<MoodType>,
    }
}

#[derive(Debug, Clone, PartialEq, Queryable, Selectable, Insertable, AsChangeset)]
#[diesel(table_name = things, check_for_backend(MultiBackend))]
struct Thing {
    id: i64,
    color: Option<Color>,
    size: Option<Size>,
    mood: Option<Mood>,
}

fn create_table(database: &TestDatabase) {
    let mut mood = "text CHECK (mood IN ('happy', 'sad', 'odd'))";
    if is_postgres(database) {
        execute(&["CREATE TYPE mood AS ENUM ('sad', 'happy', 'odd')"]);
        mood = "mood";
    }
    execute(&[&format!(
        "CREATE TABLE things (id bigint PRIMARY KEY, color text, size integer, mood {mood})"
    )]);
}

fn things() -> Vec<Thing> {
    let thing = |id, color, size, mood| Thing {
        id,
        color: Some(color),
        size: Some(size),
        mood: Some(mood),
    };
    vec![
        thing(1, Color::Red, Size::Small, Mood::Happy),
        thing(2, Color::Blue, Size::Large, Mood::Sad),
    ]
}

fn insert(rows: &[Thing]) -> Vec<Thing> {
    diesel::insert_into(things::table)
        .values(rows)
        .returning(Thing::as_returning())
        .get_results(&mut DatabaseService::connection().unwrap())
        .unwrap()
}

fn own_types_are_written_and_read(database: &TestDatabase) {
    database.scope().run(|| {
        create_table(database);
        assert_eq!(insert(&things()), things());
        let connection = &mut DatabaseService::connection().unwrap();
        let mood: Mood = diesel::select(Mood::Sad.into_sql::<MoodType>())
            .get_result(connection)
            .unwrap();
        assert_eq!(mood, Mood::Sad);
        let changed: Thing = diesel::update(things::table.find(1))
            .set((
                things::mood.eq(Mood::Sad),
                things::color.eq(Color::Blue),
                things::size.eq(Size::Large),
            ))
            .returning(Thing::as_returning())
            .get_result(connection)
            .unwrap();
        let expected = Thing {
            id: 1,
            ..things()[1].clone()
        };
        assert_eq!(changed, expected);
    });
}

fn own_types_are_seen_by_execute_query(database: &TestDatabase) {
    database.scope().run(|| {
        create_table(database);
        insert(&things());
        let sql = "SELECT color, size, CAST(mood AS text) AS mood FROM things WHERE id = 2";
        let row = &DatabaseService::execute_query(sql, params! {}).unwrap()[0];
        assert_eq!(row.get::<String>("color").unwrap(), "blue");
        assert_eq!(row.get::<i32>("size").unwrap(), 2);
        assert_eq!(row.get::<String>("mood").unwrap(), "sad");
        let sql = "INSERT INTO things VALUES (3, :color, :size, :mood)";
        let params = params! { "color" => "red", "size" => 1, "mood" => "happy" };
        DatabaseService::execute_query(sql, params).unwrap();
        let third: Thing = things::table
            .find(3)
            .first(&mut DatabaseService::connection().unwrap())
            .unwrap();
        let expected = Thing {
            id: 3,
            ..things()[0].clone()
        };
        assert_eq!(third, expected);
    });
}

fn own_types_are_compared(database: &TestDatabase) {
    database.scope().run(|| {
        create_table(database);
        insert(&things());
        let connection = &mut DatabaseService::connection().unwrap();
        let ids = things::table.select(things::id).order(things::id);
        assert_eq!(
            ids.filter(things::mood.eq(Mood::Happy)).load(connection),
            Ok(vec![1])
        );
        let both = ids
            .filter(things::mood.eq_any([Mood::Happy, Mood::Sad]))
            .filter(things::color.eq_any([Color::Red, Color::Blue]))
            .filter(things::size.eq_any([Size::Small, Size::Large]));
        assert_eq!(both.load(connection), Ok(vec![1, 2]));
        let none = ids.filter(things::mood.eq_any(Vec::<Mood>::new()));
        assert_eq!(none.load::<i64>(connection), Ok(vec![]));
        let other = ids.filter(things::mood.ne_all([Mood::Happy]));
        assert_eq!(other.load(connection), Ok(vec![2]));
        // PostgreSQL orders an enum type by its declaration: sad before happy.
        let first = things::table.select(things::mood).order(things::mood);
        let expected = if is_postgres(database) {
            Mood::Sad
        } else {
            Mood::Happy
        };
        assert_eq!(first.first(connection), Ok(Some(expected)));
    });
}

fn own_types_are_null(database: &TestDatabase) {
    database.scope().run(|| {
        create_table(database);
        let empty = Thing {
            id: 1,
            color: None,
            size: None,
            mood: None,
        };
        assert_eq!(insert(std::slice::from_ref(&empty)), [empty]);
        let changed = diesel::update(things::table.find(1))
            .set(things::mood.eq(Some(Mood::Happy)))
            .returning(things::mood)
            .get_result(&mut DatabaseService::connection().unwrap());
        assert_eq!(changed, Ok(Some(Mood::Happy)));
        let changed = diesel::update(things::table.find(1))
            .set((
                things::mood.eq(None::<Mood>),
                things::color.eq(None::<Color>),
                things::size.eq(None::<Size>),
            ))
            .returning((things::mood, things::color, things::size))
            .get_result::<(Option<Mood>, Option<Color>, Option<Size>)>(
                &mut DatabaseService::connection().unwrap(),
            );
        assert_eq!(changed, Ok((None, None, None)));
    });
}

fn unknown_value_of_an_own_type_is_an_error(database: &TestDatabase) {
    database.scope().run(|| {
        create_table(database);
        execute(&["INSERT INTO things VALUES (1, 'green', 3, 'odd')"]);
        let connection = &mut DatabaseService::connection().unwrap();
        let is_refused = |error: diesel::result::Error| {
            matches!(error, diesel::result::Error::DeserializationError(_))
        };
        let color = things::table.select(things::color);
        let color = color.first::<Option<Color>>(connection);
        let size = things::table.select(things::size);
        let size = size.first::<Option<Size>>(connection);
        let mood = things::table.select(things::mood);
        let mood = mood.first::<Option<Mood>>(connection);
        assert!(is_refused(color.unwrap_err()));
        assert!(is_refused(size.unwrap_err()));
        assert!(is_refused(mood.unwrap_err()));
    });
}
