//! A fake database for unit tests.

use std::fmt;

use crate::error::DbError;
use crate::values::Params;
use crate::values::Row;
use crate::values::Value;

type Answer = dyn Fn(&str, &Params) -> Result<Vec<Row>, DbError> + Send + Sync;

/// Answers statements from a closure; see [`DatabaseService::fake`](crate::DatabaseService::fake).
pub(crate) struct FakeDatabase {
    answer: Box<Answer>,
}

impl FakeDatabase {
    pub(crate) fn new(
        answer: impl Fn(&str, &Params) -> Result<Vec<Row>, DbError> + Send + Sync + 'static,
    ) -> Self {
        FakeDatabase {
            answer: Box::new(answer),
        }
    }

    pub(crate) fn execute_query(&self, sql: &str, params: &Params) -> Result<Vec<Row>, DbError> {
        (self.answer)(sql, params)
    }

    /// The rows of the answer stand for the affected ones.
    pub(crate) fn execute(&self, sql: &str, params: &Params) -> Result<u64, DbError> {
        Ok(self.execute_query(sql, params)?.len() as u64)
    }

    pub(crate) fn execute_many(&self, sql: &str, rows: &[Params]) -> Result<u64, DbError> {
        rows.iter().try_fold(0, |affected, params| {
            self.execute_query(sql, params).map(|_| affected + 1)
        })
    }

    pub(crate) fn bulk_insert<R: IntoIterator<Item = Value>>(
        &self,
        table: &str,
        columns: &[&str],
        rows: impl Iterator<Item = R>,
    ) -> Result<u64, DbError> {
        let names = |separator| columns.join(separator);
        let sql = format!(
            "INSERT INTO {table} ({}) VALUES (:{})",
            names(", "),
            names(", :")
        );
        let mut inserted = 0;
        for row in rows {
            let values = columns.iter().zip(row);
            let params = values.fold(Params::new(), |params, (column, value)| {
                params.with((*column).to_owned(), value)
            });
            self.execute_query(&sql, &params)?;
            inserted += 1;
        }
        Ok(inserted)
    }
}

impl fmt::Debug for FakeDatabase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FakeDatabase")
    }
}
