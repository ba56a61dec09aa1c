//! The state of a connection's transaction, and its first failure.

use diesel::result::{DatabaseErrorInformation, Error as DieselError};

use super::session::Caller;
use crate::error::ServerError;

/// The state of a connection's transaction.
#[derive(Debug, Default)]
pub(crate) struct TransactionState {
    /// The number of transactions and savepoints that were begun through this crate.
    pub(super) levels: u32,
    /// The driver's depth below the first of these levels. It is not 0 in a transaction that the caller has begun on
    /// the driver's connection.
    pub(super) base: u32,
    /// Whether the end of the transaction is yet to be counted.
    pub(super) is_counted: bool,
    /// Whether a raw statement has begun a transaction that diesel does not know.
    pub(super) has_raw: bool,
    /// Whether a statement of the closure has begun a transaction or a savepoint. If the closure's transaction has ended,
    /// that one is open.
    pub(super) has_begun_again: bool,
    /// Whether a statement of the current transaction has failed.
    pub(super) has_failed: bool,
    /// Whether the last statement that was sent has failed, so that PostgreSQL refuses all but a rollback.
    pub(super) is_aborted: bool,
    /// Whether the database has ended the transaction, or the driver's connection has executed a `COMMIT` or `ROLLBACK`
    /// itself.
    pub(super) was_ended: bool,
    /// Whether SQLite must be asked if it is still in the transaction: a statement has failed that may have ended it.
    pub(super) must_ask: bool,
    /// The first failure of the transaction.
    pub(super) first_failure: Option<FirstFailure>,
    /// Whether the last transaction was rolled back, or could not begin, because of a conflict with another one.
    pub(super) has_conflicted: bool,
}

impl TransactionState {
    /// Returns the driver's depth that belongs to these levels. 0 without levels.
    pub(super) fn depth(&self) -> u32 {
        match self.levels {
            0 => 0,
            levels => self.base + levels,
        }
    }
}

/// The first failure of a transaction.
#[derive(Debug, Clone)]
pub(super) struct FirstFailure {
    pub(super) error: ServerError,
    pub(super) at: Option<Caller>,
    /// The number of levels at that time.
    pub(super) level: u32,
}

/// Copies a server's error. Errors of the driver end no transaction.
pub(super) fn copy(error: &DieselError) -> Option<DieselError> {
    let DieselError::DatabaseError(kind, information) = error else {
        return None;
    };
    let text = |text: Option<&str>| text.map(str::to_owned);
    let copied = CopiedInformation {
        message: information.message().to_owned(),
        details: text(information.details()),
        hint: text(information.hint()),
        table: text(information.table_name()),
        column: text(information.column_name()),
        constraint: text(information.constraint_name()),
        position: information.statement_position(),
    };
    Some(DieselError::DatabaseError(*kind, Box::new(copied)))
}

struct CopiedInformation {
    message: String,
    details: Option<String>,
    hint: Option<String>,
    table: Option<String>,
    column: Option<String>,
    constraint: Option<String>,
    position: Option<i32>,
}

impl DatabaseErrorInformation for CopiedInformation {
    fn message(&self) -> &str {
        &self.message
    }

    fn details(&self) -> Option<&str> {
        self.details.as_deref()
    }

    fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    fn table_name(&self) -> Option<&str> {
        self.table.as_deref()
    }

    fn column_name(&self) -> Option<&str> {
        self.column.as_deref()
    }

    fn constraint_name(&self) -> Option<&str> {
        self.constraint.as_deref()
    }

    fn statement_position(&self) -> Option<i32> {
        self.position
    }
}
