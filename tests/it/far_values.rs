//! Values of PostgreSQL that other types do not hold.

use chrono::{Datelike, NaiveDate};
use db_service::{DatabaseService, DbError, Value, params};
use tests::TestDatabase;

#[test]
fn what_a_type_does_not_hold_is_left_as_it_is() {
    let Some(database) = TestDatabase::postgres() else {
        return;
    };
    database.scope().run(|| {
        for value in [
            "time '24:00'",
            "date 'infinity'",
            "date '-infinity'",
            "date '5874897-12-31'",
            "timestamp 'infinity'",
            "timestamp '-infinity'",
            "timestamp '294276-12-31 23:59:59.999999'",
            "timestamptz 'infinity'",
            "timestamptz '-infinity'",
            "timestamptz '294276-12-31 23:59:59.999999+00'",
            "numeric 'NaN'",
            "numeric 'Infinity'",
        ] {
            let sql = format!("SELECT {value} AS far, ({value})::text AS text, 7 AS near");
            let rows = DatabaseService::execute_query(&sql, params! {}).unwrap();
            let far = &rows[0]["far"];
            assert!(matches!(far, Value::Other { .. }), "{value}: {far:?}");
            let error = rows[0].get::<NaiveDate>("far").unwrap_err();
            assert!(matches!(&error, DbError::WrongType { column, .. } if column == "far"), "{error}");
            assert!(error.to_string().contains("column::text"), "{error}");
            assert_eq!(rows[0].get::<i64>("near").unwrap(), 7);
            rows[0].get::<String>("text").unwrap();
        }
        let sql = "SELECT date '4713-01-01 BC' AS oldest, date '0044-03-15 BC' AS ides, timestamp '4713-01-01 00:00:00 BC' AS moment, time '23:59:59.999999' AS late";
        let row = &DatabaseService::execute_query(sql, params! {}).unwrap()[0];
        assert_eq!(row.get::<NaiveDate>("oldest").unwrap().year(), -4712);
        assert_eq!(row.get::<NaiveDate>("ides").unwrap(), NaiveDate::from_ymd_opt(-43, 3, 15).unwrap());
        assert_eq!(row.get::<chrono::NaiveDateTime>("moment").unwrap().year(), -4712);
        assert_eq!(row.get::<chrono::NaiveTime>("late").unwrap().to_string(), "23:59:59.999999");
    });
}
