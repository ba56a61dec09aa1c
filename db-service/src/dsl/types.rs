//! The SQL types, and the Rust types of their values.
//!
//! On SQLite, a value has the form that [`Value`] has there: dates, times, uuids, decimals and JSON are text. Values are
//! read as [`Row::get`](crate::Row::get) reads them, so a value that does not fit its Rust type is an error.

use std::any::Any;
use std::error::Error as StdError;

use bigdecimal::BigDecimal;
use chrono::{DateTime, FixedOffset, Local, NaiveDate, NaiveDateTime, NaiveTime, SubsecRound, Utc};
use diesel::deserialize::{self, FromSql};
use diesel::pg::{Pg, PgTypeMetadata, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Date, Double, Float, HasSqlType, Integer, Json, Jsonb, Numeric,
    SmallInt, Text, Time, Timestamp, Timestamptz, Uuid,
};
#[cfg(feature = "sqlite")]
use diesel::sqlite::{Sqlite, SqliteType, SqliteValue};

use super::backend::{MultiBackend, MultiTypeMetadata, MultiValue};
use super::binds::{MultiBindValue, postgres_lookup};
use crate::error::DbError;
use crate::values::{FromValue, Value, parse_json};

/// The form that SQLite stores a value of the SQL type `ST` in, where diesel has another one or none.
#[cfg_attr(
    not(feature = "sqlite"),
    allow(
        unreachable_pub,
        reason = "only the traits of SQLite's backend show it"
    )
)]
#[derive(Debug)]
pub struct SqliteForm<ST>(std::marker::PhantomData<ST>);

/// The functions that the expansion of [`sql_type!`](crate::sql_type) calls.
pub mod __private {
    use super::*;

    /// Returns the type of a parameter: `ST` on PostgreSQL, `L` on SQLite.
    #[cfg(feature = "sqlite")]
    pub fn metadata<ST, L>(lookup: &mut (dyn Any + 'static)) -> MultiTypeMetadata
    where
        Pg: HasSqlType<ST>,
        Sqlite: HasSqlType<L>,
    {
        match postgres_lookup(lookup) {
            Some(lookup) => MultiTypeMetadata::Postgres(<Pg as HasSqlType<ST>>::metadata(lookup)),
            None => MultiTypeMetadata::Sqlite(<Sqlite as HasSqlType<L>>::metadata(&mut ())),
        }
    }

    /// Returns the type of a parameter on PostgreSQL.
    #[cfg(not(feature = "sqlite"))]
    pub fn metadata<ST, L>(lookup: &mut (dyn Any + 'static)) -> MultiTypeMetadata
    where
        Pg: HasSqlType<ST>,
    {
        let lookup = postgres_lookup(lookup).expect("PostgreSQL is the only backend");
        MultiTypeMetadata::Postgres(<Pg as HasSqlType<ST>>::metadata(lookup))
    }

    /// Binds a value as `ST` on PostgreSQL and as `L` on SQLite.
    #[cfg(feature = "sqlite")]
    pub fn bind<'b, ST, L, T>(
        value: &'b T,
        out: &mut Output<'b, '_, MultiBackend>,
    ) -> serialize::Result
    where
        Pg: HasSqlType<ST>,
        Sqlite: HasSqlType<L>,
        T: ToSql<ST, Pg> + ToSql<L, Sqlite> + ?Sized,
    {
        out.set_value(MultiBindValue::new(move |binds, lookup| {
            binds.push::<ST, L, T>(value, lookup)
        }));
        Ok(IsNull::No)
    }

    /// Binds a value as `ST` on PostgreSQL.
    #[cfg(not(feature = "sqlite"))]
    pub fn bind<'b, ST, L, T>(
        value: &'b T,
        out: &mut Output<'b, '_, MultiBackend>,
    ) -> serialize::Result
    where
        Pg: HasSqlType<ST>,
        T: ToSql<ST, Pg> + ?Sized,
    {
        out.set_value(MultiBindValue::new(move |binds, lookup| {
            binds.push_postgres::<ST, T>(value, lookup)
        }));
        Ok(IsNull::No)
    }

    /// Reads a value as `ST` from either backend.
    #[cfg(feature = "sqlite")]
    pub fn read<ST, T>(raw: MultiValue<'_>) -> deserialize::Result<T>
    where
        T: FromSql<ST, Pg> + FromSql<ST, Sqlite>,
    {
        match raw {
            MultiValue::Postgres(raw) => <T as FromSql<ST, Pg>>::from_sql(raw),
            MultiValue::Sqlite(raw) => <T as FromSql<ST, Sqlite>>::from_sql(raw),
        }
    }

    /// Reads a value as `ST` from PostgreSQL.
    #[cfg(not(feature = "sqlite"))]
    pub fn read<ST, T: FromSql<ST, Pg>>(raw: MultiValue<'_>) -> deserialize::Result<T> {
        let MultiValue::Postgres(raw) = raw;
        <T as FromSql<ST, Pg>>::from_sql(raw)
    }
}

/// Makes an SQL type of the user, and the Rust types of its values, usable on a [`Connection`](crate::Connection).
///
/// `sql_type! { SqlType: RustType, OtherRustType }` needs what diesel asks for on each backend that is compiled in: the
/// derive of `SqlType`, and `ToSql` and `FromSql` for `Pg` and `Sqlite`.
///
/// A Rust type that is stored as one of diesel's own SQL types does not need this macro. Write its `ToSql` and `FromSql`
/// for every backend, as in the example of [`dsl`](crate::dsl).
///
/// # Examples
///
/// ```
/// use diesel::deserialize::{self, FromSql};
/// use diesel::pg::{Pg, PgValue};
/// use diesel::serialize::{self, IsNull, Output, ToSql};
/// use diesel::sqlite::{Sqlite, SqliteValue};
/// use std::io::Write;
///
/// /// An enum type of PostgreSQL; text on SQLite.
/// #[derive(diesel::sql_types::SqlType)]
/// #[diesel(postgres_type(name = "mood"), sqlite_type(name = "Text"))]
/// struct MoodType;
///
/// #[derive(Debug, Clone, Copy, diesel::expression::AsExpression, diesel::deserialize::FromSqlRow)]
/// #[diesel(sql_type = MoodType)]
/// enum Mood {
///     Happy,
///     Sad,
/// }
///
/// impl Mood {
///     fn name(&self) -> &'static str {
///         match self {
///             Mood::Happy => "happy",
///             Mood::Sad => "sad",
///         }
///     }
///
///     fn of(name: &str) -> deserialize::Result<Self> {
///         match name {
///             "happy" => Ok(Mood::Happy),
///             "sad" => Ok(Mood::Sad),
///             _ => Err("an unknown mood".into()),
///         }
///     }
/// }
///
/// impl ToSql<MoodType, Pg> for Mood {
///     fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
///         out.write_all(self.name().as_bytes())?;
///         Ok(IsNull::No)
///     }
/// }
///
/// impl ToSql<MoodType, Sqlite> for Mood {
///     fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
///         out.set_value(self.name());
///         Ok(IsNull::No)
///     }
/// }
///
/// impl FromSql<MoodType, Pg> for Mood {
///     fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
///         Mood::of(std::str::from_utf8(value.as_bytes())?)
///     }
/// }
///
/// impl FromSql<MoodType, Sqlite> for Mood {
///     fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
///         Mood::of(&<String as FromSql<diesel::sql_types::Text, Sqlite>>::from_sql(value)?)
///     }
/// }
///
/// db_service::sql_type! { MoodType: Mood }
/// ```
#[macro_export]
macro_rules! sql_type {
    ($sql_type:ty: $($type:ty),+ $(,)?) => {
        impl ::diesel::sql_types::HasSqlType<$sql_type> for $crate::MultiBackend {
            fn metadata(
                lookup: &mut (dyn ::std::any::Any + 'static),
            ) -> $crate::dsl::MultiTypeMetadata {
                $crate::dsl::__private::metadata::<$sql_type, $sql_type>(lookup)
            }
        }
        $(
            impl ::diesel::serialize::ToSql<$sql_type, $crate::MultiBackend> for $type {
                fn to_sql<'b>(
                    &'b self,
                    out: &mut ::diesel::serialize::Output<'b, '_, $crate::MultiBackend>,
                ) -> ::diesel::serialize::Result {
                    $crate::dsl::__private::bind::<$sql_type, $sql_type, Self>(self, out)
                }
            }

            impl ::diesel::deserialize::FromSql<$sql_type, $crate::MultiBackend> for $type {
                fn from_sql(
                    raw: $crate::dsl::MultiValue<'_>,
                ) -> ::diesel::deserialize::Result<Self> {
                    $crate::dsl::__private::read::<$sql_type, Self>(raw)
                }
            }
        )+
    };
}

macro_rules! has_sql_type {
    ($($sql_type:ty => $sqlite:ty),* $(,)?) => {$(
        impl HasSqlType<$sql_type> for MultiBackend {
            fn metadata(lookup: &mut (dyn Any + 'static)) -> MultiTypeMetadata {
                __private::metadata::<$sql_type, $sqlite>(lookup)
            }
        }
    )*};
}

has_sql_type! {
    SmallInt => SmallInt, Integer => Integer, BigInt => BigInt, Bool => Bool, Text => Text, Binary => Binary,
    Float => SqliteForm<Float>, Double => SqliteForm<Double>, Date => SqliteForm<Date>, Time => SqliteForm<Time>,
    Timestamp => SqliteForm<Timestamp>, Timestamptz => SqliteForm<Timestamptz>, Uuid => SqliteForm<Uuid>,
    Numeric => SqliteForm<Numeric>, Json => SqliteForm<Json>, Jsonb => SqliteForm<Jsonb>,
}

macro_rules! to_sql {
    ($($sql_type:ty => $postgres:ty, $sqlite:ty: $($type:ty),+;)*) => {$($(
        impl ToSql<$sql_type, MultiBackend> for $type {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> serialize::Result {
                __private::bind::<$postgres, $sqlite, $type>(self, out)
            }
        }
    )+)*};
}

to_sql! {
    SmallInt => SmallInt, SmallInt: i16;
    Integer => Integer, Integer: i32;
    BigInt => BigInt, BigInt: i64;
    Bool => Bool, Bool: bool;
    Text => Text, Text: str;
    Binary => Binary, Binary: [u8];
    Float => Float, SqliteForm<Float>: f32;
    Double => Double, SqliteForm<Double>: f64;
    Date => Date, SqliteForm<Date>: NaiveDate;
    Time => PostgresForm<Time>, SqliteForm<Time>: NaiveTime;
    Timestamp => PostgresForm<Timestamp>, SqliteForm<Timestamp>: NaiveDateTime;
    Timestamptz => PostgresForm<Timestamptz>, SqliteForm<Timestamptz>: DateTime<Utc>, DateTime<Local>, DateTime<FixedOffset>;
    Uuid => Uuid, SqliteForm<Uuid>: uuid::Uuid;
    Numeric => Numeric, SqliteForm<Numeric>: BigDecimal;
    Json => Json, SqliteForm<Json>: serde_json::Value;
    Jsonb => Jsonb, SqliteForm<Jsonb>: serde_json::Value;
}

/// The form that PostgreSQL gets a time of the SQL type `ST` in: to the microsecond, and without leap seconds.
#[derive(Debug)]
struct PostgresForm<ST>(std::marker::PhantomData<ST>);

macro_rules! postgres_form {
    ($($sql_type:ty: $($type:ty),+;)*) => {$(
        impl HasSqlType<PostgresForm<$sql_type>> for Pg {
            fn metadata(lookup: &mut Self::MetadataLookup) -> PgTypeMetadata {
                <Pg as HasSqlType<$sql_type>>::metadata(lookup)
            }
        }
        $(
            impl ToSql<PostgresForm<$sql_type>, Pg> for $type {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
                    if let Some(problem) = crate::dialect::leap_second(self) {
                        return Err(Box::new(DbError::unstorable_in_query(problem)));
                    }
                    // diesel would round times before 2000 up.
                    let time = self.trunc_subsecs(6);
                    ToSql::<$sql_type, Pg>::to_sql(&time, &mut out.reborrow())
                }
            }
        )+
    )*};
}

postgres_form! {
    Time: NaiveTime;
    Timestamp: NaiveDateTime;
    Timestamptz: DateTime<Utc>, DateTime<Local>, DateTime<FixedOffset>;
}

/// The error of a value that its Rust type cannot hold. It does not show the value.
type Unreadable = Box<dyn StdError + Send + Sync>;

macro_rules! from_sql {
    ($($sql_type:ty: $type:ty, $of_sqlite:expr;)*) => {$(
        impl FromSql<$sql_type, MultiBackend> for $type {
            fn from_sql(raw: MultiValue<'_>) -> deserialize::Result<Self> {
                match raw {
                    MultiValue::Postgres(raw) => {
                        check_postgres(&raw)?;
                        <$type as FromSql<$sql_type, Pg>>::from_sql(raw)
                    }
                    #[cfg(feature = "sqlite")]
                    MultiValue::Sqlite(raw) => $of_sqlite(raw),
                }
            }
        }
    )*};
}

from_sql! {
    SmallInt: i16, of_sqlite;
    Integer: i32, of_sqlite;
    BigInt: i64, of_sqlite;
    Bool: bool, of_sqlite;
    Text: String, text_of_sqlite;
    Binary: Vec<u8>, bytes_of_sqlite;
    Float: f32, of_sqlite;
    Double: f64, of_sqlite;
    Date: NaiveDate, of_sqlite;
    Time: NaiveTime, of_sqlite;
    Timestamp: NaiveDateTime, of_sqlite;
    Timestamptz: DateTime<Utc>, of_sqlite;
    Uuid: uuid::Uuid, of_sqlite;
    Numeric: BigDecimal, of_sqlite;
}

macro_rules! json_from_sql {
    ($($sql_type:ty),*) => {$(
        impl FromSql<$sql_type, MultiBackend> for serde_json::Value {
            fn from_sql(raw: MultiValue<'_>) -> deserialize::Result<Self> {
                match raw {
                    MultiValue::Postgres(raw) => json_of_postgres(&raw),
                    #[cfg(feature = "sqlite")]
                    MultiValue::Sqlite(raw) => of_sqlite(raw),
                }
            }
        }
    )*};
}

json_from_sql! { Json, Jsonb }

/// Reads a value of `json` or `jsonb` as [`Row::get`](crate::Row::get) does. diesel would round numbers.
fn json_of_postgres(raw: &PgValue<'_>) -> Result<serde_json::Value, Unreadable> {
    /// The object identifier of `jsonb`, from `pg_type.dat`. Its first byte is the version of the format.
    const JSONB: u32 = 3802;
    let text = match (raw.get_oid().get(), raw.as_bytes()) {
        (JSONB, [1, text @ ..]) => text,
        (JSONB, _) => return Err("the format of jsonb has an unknown version".into()),
        (_, text) => text,
    };
    let text = std::str::from_utf8(text)?;
    parse_json(text).ok_or_else(|| unreadable::<serde_json::Value>(&Value::Json(String::default())))
}

/// Returns an error for the time 24:00, which the driver would read as 00:00.
fn check_postgres(value: &PgValue<'_>) -> Result<(), Unreadable> {
    if crate::dialect::is_midnight_at_the_end(value) {
        return Err("the time 24:00 has no equal in chrono".into());
    }
    Ok(())
}

/// Reads a value as [`Row::get`](crate::Row::get) does.
#[cfg(feature = "sqlite")]
fn of_sqlite<T: FromValue>(raw: SqliteValue<'_, '_, '_>) -> Result<T, Unreadable> {
    let value = crate::dialect::sqlite::decode(raw)?;
    T::from_value(&value).ok_or_else(|| unreadable::<T>(&value))
}

#[cfg(feature = "sqlite")]
fn text_of_sqlite(raw: SqliteValue<'_, '_, '_>) -> Result<String, Unreadable> {
    match crate::dialect::sqlite::decode(raw)? {
        Value::Text(text) => Ok(text),
        value => Err(unreadable::<String>(&value)),
    }
}

#[cfg(feature = "sqlite")]
fn bytes_of_sqlite(raw: SqliteValue<'_, '_, '_>) -> Result<Vec<u8>, Unreadable> {
    match crate::dialect::sqlite::decode(raw)? {
        Value::Bytes(bytes) => Ok(bytes),
        value => Err(unreadable::<Vec<u8>>(&value)),
    }
}

fn unreadable<T: FromValue>(value: &Value) -> Unreadable {
    format!(
        "the column holds {}, which cannot be read as {}",
        value.kind(),
        T::NAME
    )
    .into()
}

macro_rules! sqlite_form {
    ($($sql_type:ty => $storage:ident: $($type:ty),+;)*) => {$(
        #[cfg(feature = "sqlite")]
        impl HasSqlType<SqliteForm<$sql_type>> for Sqlite {
            fn metadata(_: &mut ()) -> SqliteType {
                SqliteType::$storage
            }
        }
        $(
            #[cfg(feature = "sqlite")]
            impl ToSql<SqliteForm<$sql_type>, Sqlite> for $type {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
                    crate::dialect::sqlite::set(&Value::from(self.clone()), out)
                }
            }
        )+
    )*};
}

sqlite_form! {
    Float => Double: f32;
    Double => Double: f64;
    Date => Text: NaiveDate;
    Time => Text: NaiveTime;
    Timestamp => Text: NaiveDateTime;
    Timestamptz => Text: DateTime<Utc>, DateTime<Local>, DateTime<FixedOffset>;
    Uuid => Text: uuid::Uuid;
    Numeric => Text: BigDecimal;
    Json => Text: serde_json::Value;
    Jsonb => Text: serde_json::Value;
}

/// SQLite has no arrays. [`ArrayComparison`](super::syntax::ArrayComparison) sends it none.
#[cfg(feature = "sqlite")]
impl<ST> HasSqlType<SqliteForm<Array<ST>>> for Sqlite {
    fn metadata(_: &mut ()) -> SqliteType {
        SqliteType::Text
    }
}

impl<ST> HasSqlType<Array<ST>> for MultiBackend
where
    Pg: HasSqlType<ST>,
    ST: 'static,
{
    fn metadata(lookup: &mut (dyn Any + 'static)) -> MultiTypeMetadata {
        __private::metadata::<Array<ST>, SqliteForm<Array<ST>>>(lookup)
    }
}

impl<ST, T> ToSql<Array<ST>, MultiBackend> for Vec<T>
where
    ST: 'static,
    T: std::fmt::Debug,
    Pg: HasSqlType<ST>,
    Vec<T>: ToSql<Array<ST>, Pg>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, MultiBackend>) -> serialize::Result {
        out.set_value(MultiBindValue::new(move |binds, lookup| {
            binds.push_postgres::<Array<ST>, Vec<T>>(self, lookup)
        }));
        Ok(IsNull::No)
    }
}

impl<ST, T> FromSql<Array<ST>, MultiBackend> for Vec<T>
where
    ST: 'static,
    Vec<T>: FromSql<Array<ST>, Pg>,
{
    fn from_sql(raw: MultiValue<'_>) -> deserialize::Result<Self> {
        match raw {
            MultiValue::Postgres(raw) => <Vec<T> as FromSql<Array<ST>, Pg>>::from_sql(raw),
            #[cfg(feature = "sqlite")]
            MultiValue::Sqlite(_) => Err("SQLite has no arrays".into()),
        }
    }
}
