//! Rows of either driver, for diesel.

use std::fmt;
use std::ops::Range;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
use diesel::connection::LoadConnection;
#[cfg(feature = "postgres")]
use diesel::pg::Pg;
use diesel::row::{Field, PartialRow, Row, RowIndex, RowSealed};
#[cfg(feature = "sqlite")]
use diesel::sqlite::Sqlite;

use super::backend::{MultiBackend, MultiValue};

#[cfg(feature = "postgres")]
type PostgresRow<'conn, 'query> = <diesel::PgConnection as LoadConnection>::Row<'conn, 'query>;
#[cfg(feature = "sqlite")]
type SqliteRow<'conn, 'query> = <diesel::SqliteConnection as LoadConnection>::Row<'conn, 'query>;

/// One row of a query.
pub enum MultiRow<'conn, 'query> {
    /// A row from PostgreSQL.
    #[doc(hidden)]
    #[cfg(feature = "postgres")]
    Postgres(PostgresRow<'conn, 'query>),
    /// A row from SQLite.
    #[doc(hidden)]
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteRow<'conn, 'query>),
}

/// Evaluates an expression on the row of either driver.
macro_rules! on_each_row {
    ($row:expr, $inner:ident => $work:expr) => {
        match $row {
            #[cfg(feature = "postgres")]
            MultiRow::Postgres($inner) => $work,
            #[cfg(feature = "sqlite")]
            MultiRow::Sqlite($inner) => $work,
        }
    };
}

impl fmt::Debug for MultiRow<'_, '_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values may be secrets.
        formatter.write_str("MultiRow")
    }
}

impl RowSealed for MultiRow<'_, '_> {}

impl RowIndex<usize> for MultiRow<'_, '_> {
    fn idx(&self, index: usize) -> Option<usize> {
        on_each_row!(self, row => row.idx(index))
    }
}

impl<'a> RowIndex<&'a str> for MultiRow<'_, '_> {
    fn idx(&self, name: &'a str) -> Option<usize> {
        on_each_row!(self, row => row.idx(name))
    }
}

impl<'conn, 'query> Row<'conn, MultiBackend> for MultiRow<'conn, 'query> {
    type Field<'f>
        = MultiField<'f>
    where
        'conn: 'f,
        Self: 'f;
    type InnerPartialRow = Self;

    fn field_count(&self) -> usize {
        on_each_row!(self, row => row.field_count())
    }

    fn get<'b, I>(&'b self, index: I) -> Option<MultiField<'b>>
    where
        'conn: 'b,
        Self: RowIndex<I>,
    {
        let index = self.idx(index)?;
        match self {
            #[cfg(feature = "postgres")]
            MultiRow::Postgres(row) => row.get(index).map(MultiField::Postgres),
            #[cfg(feature = "sqlite")]
            MultiRow::Sqlite(row) => row.get(index).map(MultiField::Sqlite),
        }
    }

    fn partial_row(&self, range: Range<usize>) -> PartialRow<'_, Self> {
        PartialRow::new(self, range)
    }
}

/// One column of a row.
pub enum MultiField<'f> {
    /// A column from PostgreSQL.
    #[doc(hidden)]
    #[cfg(feature = "postgres")]
    Postgres(<PostgresRow<'f, 'f> as Row<'f, Pg>>::Field<'f>),
    /// A column from SQLite.
    #[doc(hidden)]
    #[cfg(feature = "sqlite")]
    Sqlite(<SqliteRow<'f, 'f> as Row<'f, Sqlite>>::Field<'f>),
}

impl fmt::Debug for MultiField<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MultiField")
    }
}

impl<'f> Field<'f, MultiBackend> for MultiField<'f> {
    fn field_name(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "postgres")]
            MultiField::Postgres(field) => field.field_name(),
            #[cfg(feature = "sqlite")]
            MultiField::Sqlite(field) => field.field_name(),
        }
    }

    fn value(&self) -> Option<MultiValue<'_>> {
        match self {
            #[cfg(feature = "postgres")]
            MultiField::Postgres(field) => field.value().map(MultiValue::Postgres),
            #[cfg(feature = "sqlite")]
            MultiField::Sqlite(field) => field.value().map(MultiValue::Sqlite),
        }
    }
}
