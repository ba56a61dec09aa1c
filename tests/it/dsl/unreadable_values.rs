//! Values that do not fit the Rust type they are read as: errors, never other values.

use bigdecimal::BigDecimal;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use db_service::{DatabaseService, DbError};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{
    Array, BigInt, Bool, Date, Double, Float, Integer, Json, Numeric, SmallInt, Text, Time,
    Timestamp, Timestamptz,
};
use tests::TestDatabase;
use uuid::Uuid;

/// Reads an SQL expression as a type, and returns the reason of the failure and the error as db-service shows it.
macro_rules! unreadable {
    ($expression:literal as $sql_type:ty: $type:ty) => {{
        let query = diesel::select(sql::<$sql_type>($expression));
        let result = query.get_result::<$type>(&mut DatabaseService::connection().unwrap());
        let error = result.expect_err($expression);
        let diesel::result::Error::DeserializationError(reason) = &error else {
            panic!("{}: {error:?}", $expression);
        };
        // The error of the column is around the error of the value.
        let reason = reason.source().map(ToString::to_string).unwrap_or_default();
        (reason, DbError::from(error).to_string())
    }};
}

#[test]
fn sqlite_value_that_does_not_fit_is_an_error() {
    TestDatabase::sqlite().scope().run(|| {
        let (reason, shown) = unreadable!("2147483648" as Integer: i32);
        assert_eq!(
            reason,
            "the column holds an integer, which cannot be read as i32"
        );
        assert!(!shown.contains("2147483648"), "{shown}");
        unreadable!("-2147483649" as Integer: i32);
        unreadable!("32768" as SmallInt: i16);
        unreadable!("1.0" as BigInt: i64);
        unreadable!("9223372036854775808" as BigInt: i64);
        let (reason, _) = unreadable!("'text'" as Integer: i32);
        assert_eq!(reason, "the column holds text, which cannot be read as i32");
        unreadable!("'7'" as Integer: i32);
        unreadable!("x'07'" as SmallInt: i16);
        unreadable!("2" as Bool: bool);
        unreadable!("'true'" as Bool: bool);
        unreadable!("7" as Text: String);
        unreadable!("'7'" as diesel::sql_types::Binary: Vec<u8>);
        unreadable!("'1.5'" as Double: f64);
        unreadable!("9007199254740993" as Double: f64);
        unreadable!("1e300" as Float: f32);
        unreadable!("'2026-02-30'" as Date: NaiveDate);
        unreadable!("20260228" as Date: NaiveDate);
        unreadable!("'25:00:00'" as Time: NaiveTime);
        unreadable!("'yesterday'" as Timestamp: NaiveDateTime);
        unreadable!("'yesterday'" as Timestamptz: DateTime<Utc>);
        unreadable!("'no uuid'" as diesel::sql_types::Uuid: Uuid);
        unreadable!("'one'" as Numeric: BigDecimal);
        unreadable!("'{'" as Json: serde_json::Value);
        unreadable!("'[1]'" as Array<Integer>: Vec<i32>);
    });
}

#[test]
fn postgres_value_that_does_not_fit_is_an_error() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        unreadable!("1::bigint" as Integer: i32);
        unreadable!("time '24:00'" as Time: NaiveTime);
        unreadable!("'infinity'::timestamptz" as Timestamptz: DateTime<Utc>);
        unreadable!("'infinity'::date" as Date: NaiveDate);
        unreadable!("'NaN'::numeric" as Numeric: BigDecimal);
    });
}
