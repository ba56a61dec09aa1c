//! Transactions: their options, begin and end, retries, and timeouts that are set in each transaction.

use super::Connection;
use super::on_each;
use crate::backend::Backend;
use crate::error::DbError;
use crate::sql::ParsedStatement;
use backon::BackoffBuilder;
use diesel::connection::AnsiTransactionManager;
use diesel::result::Error as DieselError;
use std::panic::{self, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

/// The isolation level of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Each statement sees the data that was committed before the statement.
    ReadCommitted,
    /// All statements see the data that was committed before the first statement.
    RepeatableRead,
    /// The result is the same as if the transactions ran one after the other.
    Serializable,
}

/// Options of [`DatabaseService::transaction_with`](crate::DatabaseService::transaction_with).
///
/// # Examples
///
/// ```
/// use db_service::{Isolation, TransactionOptions};
///
/// let transfer = TransactionOptions {
///     isolation: Some(Isolation::Serializable),
///     retries: 5,
///     ..TransactionOptions::default()
/// };
/// assert!(!transfer.read_only);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransactionOptions {
    /// The isolation level. Default: the server's. SQLite transactions are always serializable.
    pub isolation: Option<Isolation>,
    /// Whether the database refuses changes. Default: false. On SQLite, a read-only transaction does not wait for
    /// writers.
    pub read_only: bool,
    /// Whether a serializable read-only transaction waits until it can run without conflicts. Default: false.
    /// PostgreSQL only.
    pub deferrable: bool,
    /// The maximum number of retries after a conflict with another transaction. Default: 0.
    ///
    /// A conflict is a serialization failure, a deadlock, or on SQLite a timeout while waiting for the write lock at
    /// the begin. The pauses between retries double from 10 ms to 1 s, with jitter.
    pub retries: usize,
}

impl TransactionOptions {
    fn begin(&self, backend: Backend) -> String {
        if backend == Backend::Sqlite {
            let mode = if self.read_only {
                "DEFERRED"
            } else {
                "IMMEDIATE"
            };
            return format!("BEGIN {mode}");
        }
        let isolation = match self.isolation {
            None => "",
            Some(Isolation::ReadCommitted) => " ISOLATION LEVEL READ COMMITTED",
            Some(Isolation::RepeatableRead) => " ISOLATION LEVEL REPEATABLE READ",
            Some(Isolation::Serializable) => " ISOLATION LEVEL SERIALIZABLE",
        };
        let access = if self.read_only { " READ ONLY" } else { "" };
        let deferrable = if self.deferrable { " DEFERRABLE" } else { "" };
        format!("BEGIN{isolation}{access}{deferrable}")
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> {
        backon::ExponentialBuilder::default()
            // The jitter adds up to the same amount again.
            .with_min_delay(Duration::from_millis(5))
            .with_max_delay(Duration::from_millis(500))
            .with_max_times(self.retries)
            .with_jitter()
            .build()
    }
}

/// The failure of a transaction, by where it happened.
pub(crate) enum Failure<E> {
    Begin(DieselError),
    Work(E),
    Commit(DieselError),
}

impl<E: From<DbError>> Failure<E> {
    pub(crate) fn into_error(self, connection: &mut Connection) -> E {
        match self {
            Failure::Work(error) => error,
            Failure::Begin(error) => connection.classify_timeout(DbError::from(error)).into(),
            Failure::Commit(error) => DbError::from_commit(error).into(),
        }
    }
}

impl Connection {
    /// Runs `work` in a transaction, like [`transaction`](Connection::transaction), with options, and retries the whole
    /// of `work` after a conflict if they ask for it.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the transaction's begin and end. Returns an error inside another
    /// transaction. If the connection is lost during `COMMIT`, returns [`DbError::OutcomeUnknown`] and does not retry.
    pub fn transaction_with<T, E, F>(
        &mut self,
        options: &TransactionOptions,
        mut work: F,
    ) -> Result<T, E>
    where
        F: FnMut(&mut Self) -> Result<T, E>,
        E: From<DbError>,
    {
        let begin = options.begin(self.backend());
        // Inside another transaction the begin fails, and its access mode must stay.
        let reads =
            options.read_only && self.backend() == Backend::Sqlite && self.transaction_depth() == 0;
        let mut pauses = options.pauses();
        loop {
            if reads {
                self.run("PRAGMA query_only = ON").map_err(DbError::from)?;
            }
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                self.transact(|connection| connection.begin_with(&begin), &mut work)
            }));
            let restored = if reads {
                self.run("PRAGMA query_only = OFF")
            } else {
                Ok(())
            };
            let outcome = outcome.unwrap_or_else(|payload| panic::resume_unwind(payload));
            restored.map_err(DbError::from)?;
            match outcome {
                Ok(value) => return Ok(value),
                Err(failure) => match pauses.next().filter(|_| self.may_retry()) {
                    Some(pause) => thread::sleep(pause),
                    None => return Err(failure.into_error(self)),
                },
            }
        }
    }

    /// Returns whether a retry is allowed: the last failure was a conflict, and the connection was not lost since.
    fn may_retry(&mut self) -> bool {
        self.has_conflicted() && !self.is_lost()
    }

    /// Begins a transaction with `begin`, runs `work`, and commits or rolls back.
    pub(crate) fn transact<T, E>(
        &mut self,
        begin: impl FnOnce(&mut Self) -> Result<(), DieselError>,
        work: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, Failure<E>> {
        if self.is_lost() {
            return Err(Failure::Begin(DieselError::BrokenTransactionManager));
        }
        let depth = self.transaction_depth();
        begin(self).map_err(Failure::Begin)?;
        match panic::catch_unwind(AssertUnwindSafe(|| work(self))) {
            Ok(Ok(value)) => match self.commit() {
                Ok(()) => Ok(value),
                Err(failure) => {
                    self.roll_back_to(depth);
                    Err(failure)
                }
            },
            Ok(Err(error)) => {
                self.roll_back_to(depth);
                Err(Failure::Work(error))
            }
            Err(payload) => {
                self.roll_back_to(depth);
                panic::resume_unwind(payload)
            }
        }
    }
}

impl Connection {
    /// Begins an outermost transaction with the statement `sql`.
    pub(crate) fn begin_with(&mut self, sql: &str) -> Result<(), DieselError> {
        let sql = self.with_limits(sql);
        on_each!(self, connection => AnsiTransactionManager::begin_transaction_sql(connection, &sql))
    }

    /// Returns the begin of a transaction, followed by the statements that set its timeouts.
    fn with_limits(&mut self, begin: &str) -> String {
        match self.observer() {
            Some(observer) if !observer.limits.is_empty() => format!("{begin};{}", observer.limits),
            _ => begin.to_owned(),
        }
    }

    pub(crate) fn has_limits(&mut self) -> bool {
        self.observer()
            .is_some_and(|observer| !observer.limits.is_empty())
    }

    /// Runs a statement in its own transaction if timeouts must be set for it and it can run in a transaction.
    pub(crate) fn with_transaction_timeouts<R>(
        &mut self,
        parsed: &ParsedStatement<'_>,
        work: impl FnOnce(&mut Self) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let is_alone = self.transaction_depth() == 0
            && self
                .observer()
                .is_some_and(|seen| !seen.has_raw_transaction);
        if !is_alone || !parsed.is_preparable || !self.has_limits() {
            return work(self);
        }
        let begin = self.with_limits("BEGIN");
        if let Err(error) = self.run(&begin) {
            // The transaction may have begun and failed to set a timeout.
            self.undo("ROLLBACK");
            return Err(error.into());
        }
        let result = work(self);
        if result.is_ok() {
            if let Err(error) = self.run("COMMIT") {
                self.undo("ROLLBACK");
                return Err(DbError::from_commit(error));
            }
        } else {
            self.undo("ROLLBACK");
        }
        result
    }

    /// Rolls back a transaction that diesel does not know. A cancellation can hit the first attempt. If the second one
    /// fails too, gives the connection up, so that the next caller does not get a failed transaction.
    pub(crate) fn undo(&mut self, sql: &str) {
        if self.run(sql).is_err() && self.run(sql).is_err() {
            self.terminate();
        }
    }
}
