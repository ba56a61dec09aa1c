//! Transactions: their options, begin and end, retries, and timeouts that are set in each transaction.

use std::borrow::BorrowMut;
use std::panic::{self, AssertUnwindSafe};
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use diesel::connection::{AnsiTransactionManager, TransactionManager, TransactionManagerStatus};
use diesel::result::{Error as DieselError, QueryResult};

use super::session::Running;
use super::{Connection, on_each};
use crate::backend::Backend;
use crate::error::{DbError, Meaning, ServerError, meaning};
use crate::sql::{ParsedStatement, SideEffects};

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
    /// The transaction could not begin, or `COMMIT` was not sent.
    Begin(DieselError),
    Work(E),
    Commit(DieselError),
    /// The transaction had failed or ended before its closure returned.
    Ended(DbError),
}

impl<E: From<DbError>> Failure<E> {
    pub(crate) fn into_error(self, connection: &mut Connection) -> E {
        match self {
            Failure::Work(error) => error,
            Failure::Begin(error) => connection.classify_timeout(DbError::from(error)).into(),
            Failure::Commit(error) => DbError::from_commit(error).into(),
            Failure::Ended(error) => error.into(),
        }
    }
}

impl<E: From<DieselError>> Failure<E> {
    /// Returns an error of diesel. If the outcome of the transaction is unknown, it wraps
    /// [`DbError::OutcomeUnknown`].
    fn into_diesel(self) -> E {
        match self {
            Failure::Work(error) => error,
            Failure::Begin(error) => error.into(),
            Failure::Commit(error) if meaning(&error) == Meaning::Lost => {
                DieselError::from(DbError::from_commit(error)).into()
            }
            Failure::Commit(error) => error.into(),
            Failure::Ended(error) => DieselError::from(error).into(),
        }
    }
}

impl Connection {
    /// Runs `work` in a transaction. Commits on `Ok`, and rolls back on `Err` and on panic.
    ///
    /// Inside another transaction, it creates a savepoint. On SQLite, the outermost transaction takes the write lock
    /// when it begins (`BEGIN IMMEDIATE`), because a later attempt to lock can fail in a way that a retry cannot fix.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the transaction's begin and end. If the transaction failed before
    /// `work` returned `Ok`, returns [`DbError::TransactionAborted`], and if the connection was lost during `COMMIT`,
    /// [`DbError::OutcomeUnknown`]. An error type of diesel holds these two in a
    /// [`QueryBuilderError`](DieselError::QueryBuilderError), which [`DbError::from`] unwraps.
    pub fn transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut Self) -> Result<T, E>,
        E: From<DieselError>,
    {
        transact(self, Self::begin, work).map_err(Failure::into_diesel)
    }

    /// Runs `work` in a transaction, like [`transaction`](Connection::transaction), with options, and retries the whole
    /// of `work` after a conflict or a stale plan if they ask for it.
    ///
    /// If nothing else determines the error type of `work`, write it, as in `Ok::<_, DbError>(())`.
    ///
    /// # Errors
    ///
    /// Returns the errors of `work`, and those of the transaction's begin and end. Returns an error inside another
    /// transaction. If the connection is lost during `COMMIT`, returns [`DbError::OutcomeUnknown`] and does not retry. If
    /// the service is shut down before a retry, returns [`DbError::Closed`].
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
        let mut pauses = options.pauses().peekable();
        // The begin fails inside another transaction, which may be an attempt itself.
        let is_outermost = self.transaction_depth() == 0;
        loop {
            if reads {
                self.run("PRAGMA query_only = ON").map_err(DbError::from)?;
            }
            if is_outermost && pauses.peek().is_some() {
                self.session().begin_attempt();
            }
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
                transact(self, |connection| connection.begin_with(&begin), &mut work)
            }));
            let restored = if reads {
                self.run("PRAGMA query_only = OFF")
            } else {
                Ok(())
            };
            let pause = match &outcome {
                Ok(Err(_)) if restored.is_ok() => pauses.next().filter(|_| self.may_retry()),
                _ => None,
            };
            if is_outermost {
                self.session().end_attempt(pause.is_some());
            }
            let outcome = outcome.unwrap_or_else(|payload| panic::resume_unwind(payload));
            restored.map_err(DbError::from)?;
            match (outcome, pause) {
                (Ok(value), _) => return Ok(value),
                (Err(failure), None) => return Err(failure.into_error(self)),
                (Err(_), Some(pause)) => {
                    if self.session().closing.wait(pause) {
                        return Err(DbError::Closed.into());
                    }
                }
            }
        }
    }

    /// Returns whether a retry is allowed: the last failure was a conflict, and the connection was not lost since.
    fn may_retry(&mut self) -> bool {
        let session = self.session();
        session.transaction.has_conflicted && !session.is_lost
    }

    /// Begins a transaction, or creates a savepoint in the present one.
    pub(crate) fn begin(&mut self) -> Result<(), DieselError> {
        if self.transaction_depth() == 0 {
            return self.begin_with(match self.backend() {
                Backend::Postgres => "BEGIN",
                Backend::Sqlite => "BEGIN IMMEDIATE",
            });
        }
        self.check_usable()?;
        let base = self.transaction_depth();
        let (running, begun) = self.command("SAVEPOINT", |connection| {
            on_each!(connection, inner => AnsiTransactionManager::begin_transaction(inner))
        });
        if begun.is_err() && running.has_failed_before() {
            return Err(self.aborted().into());
        }
        if begun.is_ok() {
            self.entered_level(base);
        }
        begun
    }

    /// Begins an outermost transaction with the statement `sql`.
    pub(crate) fn begin_with(&mut self, sql: &str) -> Result<(), DieselError> {
        self.check_usable()?;
        self.check_no_raw_transaction()?;
        if self.transaction_depth() == 0 && self.must_drop_prepared() {
            self.drop_prepared();
        }
        let sql = self.with_limits(sql);
        self.session().transaction.has_conflicted = false;
        let (_, begun) = self.command(&sql, |connection| {
            on_each!(connection, inner => AnsiTransactionManager::begin_transaction_sql(inner, &sql))
        });
        let session = self.session();
        match &begun {
            Ok(()) => {
                session.count_rollback();
                session.transaction.is_counted = true;
                session.transaction.has_failed = false;
                self.entered_level(0);
            }
            // Only a `BEGIN` that could not lock is a conflict. A lock timeout of another statement is the user's own
            // setting.
            Err(error) => {
                session.transaction.has_conflicted |= meaning(error) == Meaning::LockTimeout;
                // The transaction may have begun and failed to set a timeout.
                if !session.limits.is_empty() && self.transaction_depth() == 0 && !self.is_lost() {
                    self.undo("ROLLBACK");
                }
            }
        }
        begun
    }

    /// Notes a level that was begun. `base` is the driver's depth below it.
    fn entered_level(&mut self, base: u32) {
        let transaction = &mut self.session().transaction;
        if transaction.levels == 0 {
            transaction.base = base;
        }
        transaction.levels += 1;
    }

    /// Returns an error inside a transaction that a statement of the user has begun, which PostgreSQL would join with a
    /// warning only. SQLite refuses a second `BEGIN` itself.
    fn check_no_raw_transaction(&mut self) -> Result<(), DieselError> {
        if self.backend() == Backend::Sqlite || !self.session().transaction.has_raw {
            return Ok(());
        }
        // A text may look like a `BEGIN` without being one. PostgreSQL has savepoints only in a transaction.
        const SAVEPOINT: &str = "SAVEPOINT db_service_raw_transaction";
        if self.run(SAVEPOINT).is_ok() {
            self.run("RELEASE SAVEPOINT db_service_raw_transaction")?;
            return Err(DieselError::AlreadyInTransaction);
        }
        Ok(self.check_usable()?)
    }

    /// Runs a transaction command.
    fn command(
        &mut self,
        text: &str,
        command: impl FnOnce(&mut Self) -> QueryResult<()>,
    ) -> (Running, QueryResult<()>) {
        if self.session().observed.echo {
            self.session().observed.echo(&text);
        }
        let started_at = Instant::now();
        let running = self.start(SideEffects::default(), None);
        let result = command(self);
        let session = self.session();
        session.observed.log_if_slow(text, started_at.elapsed());
        session.finish(&running, result.as_ref().err());
        (running, result)
    }

    /// Commits the present transaction, or releases the last savepoint.
    pub(crate) fn commit<E>(&mut self) -> Result<(), Failure<E>> {
        self.session().take_row_failure();
        // COMMIT was not sent, so the outcome is known.
        if self.is_lost() {
            return Err(Failure::Begin(DieselError::BrokenTransactionManager));
        }
        if self.session().transaction.levels > 0 && self.has_ended() {
            return Err(Failure::Ended(self.aborted()));
        }
        // A closure has left a transaction of the driver's connection open, such as diesel's `transaction` after a panic.
        // The last savepoint is not this level's, and nothing says what must happen to the changes since.
        let transaction = &self.session().transaction;
        let (levels, expected) = (transaction.levels, transaction.base + transaction.levels);
        if levels > 0 && self.transaction_depth() > expected {
            return Err(Failure::Begin(DieselError::AlreadyInTransaction));
        }
        let is_outermost = self.transaction_depth() == 1;
        // After a failed statement, PostgreSQL turns COMMIT into a rollback without an error. It refuses any other
        // statement.
        if self.backend() == Backend::Postgres
            && is_outermost
            && self.session().transaction.has_failed
            && let Err(error) = self.run("SELECT 1")
        {
            return Err(match self.has_first_failure() && !self.is_lost() {
                true => Failure::Ended(self.aborted()),
                false => Failure::Begin(error),
            });
        }
        let text = if is_outermost {
            "COMMIT"
        } else {
            "RELEASE SAVEPOINT"
        };
        let (running, result) = self.command(text, |connection| {
            on_each!(connection, inner => AnsiTransactionManager::commit_transaction(inner))
        });
        let session = self.session();
        if is_outermost {
            match &result {
                Ok(()) => session.count_commit(),
                // A failed COMMIT is a rollback, by the server or by diesel.
                Err(_) => session.count_rollback(),
            }
        }
        match result {
            Ok(()) => {
                let levels = &mut session.transaction.levels;
                *levels = levels.saturating_sub(1);
                if *levels == 0 {
                    session.forget_levels_above(0, false);
                }
                Ok(())
            }
            Err(error) => {
                let failure = match running.has_failed_before() {
                    true => Failure::Ended(self.aborted()),
                    false => Failure::Commit(error),
                };
                // diesel may have rolled back to the savepoint, so this level is gone, and the transaction goes on.
                let depth = self.transaction_depth();
                if depth > 0 && depth < expected {
                    self.forget_levels_above(levels.saturating_sub(1), false);
                }
                Err(failure)
            }
        }
    }

    /// Rolls back the present transaction, or to the last savepoint.
    fn roll_back(&mut self) -> Result<(), DieselError> {
        let is_outermost = self.transaction_depth() == 1;
        let text = if is_outermost {
            "ROLLBACK"
        } else {
            "ROLLBACK TO SAVEPOINT"
        };
        let (_, result) = self.command(text, |connection| {
            on_each!(connection, inner => AnsiTransactionManager::rollback_transaction(inner))
        });
        if is_outermost {
            self.session().count_rollback();
        }
        result
    }

    /// Rolls back all transactions above the driver's `depth`. If a rollback fails, gives the connection up.
    pub(crate) fn roll_back_to(&mut self, depth: u32) {
        self.session().take_row_failure();
        let transaction = &self.session().transaction;
        let (levels, base) = (transaction.levels, transaction.base);
        let level = depth.saturating_sub(base);
        // A transaction that has ended by itself leaves nothing to roll back.
        let has_ended = levels > level && self.has_ended();
        if has_ended {
            self.session().keep_first_failure(level);
        }
        while self.transaction_depth() > depth {
            if let Err(error) = self.roll_back() {
                // SQLite had ended the transaction, and diesel has noticed it now.
                if self.backend() == Backend::Sqlite && self.transaction_depth() == 0 {
                    break;
                }
                if !self.is_lost() {
                    let error = ServerError::from(error);
                    log::warn!(
                        "a transaction could not be rolled back, so its connection is closed: {error}"
                    );
                }
                self.session().forget_levels_above(level, has_ended);
                return self.terminate();
            }
        }
        self.forget_levels_above(level, has_ended);
        // A statement on the driver's connection may have begun another transaction in place of the ended one.
        if has_ended
            && level == 0
            && std::mem::take(&mut self.session().transaction.has_raw)
            && !self.roll_back_raw()
        {
            self.terminate();
        }
    }

    /// Forgets levels that were rolled back. diesel ignores that a savepoint of a failed transaction is gone; then the
    /// levels below have failed too.
    fn forget_levels_above(&mut self, level: u32, has_ended: bool) {
        if self.is_failed_transaction() {
            self.session().keep_first_failure(level);
        }
        self.session().forget_levels_above(level, has_ended);
    }

    /// Ends a session whose state or next answer is unknown. Nothing of the transaction is committed, and each later
    /// statement fails, on PostgreSQL also those on the driver's connection.
    pub(crate) fn terminate(&mut self) {
        self.session().terminate();
        #[cfg(feature = "postgres")]
        if self.backend() == Backend::Postgres {
            // The first answers may belong to earlier statements. After the end of the session, the driver refuses to
            // send.
            for _ in 0..GIVE_UP_ATTEMPTS {
                let ended = self.run(
                    "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())",
                );
                if ended.is_err_and(|error| is_closed(&error)) {
                    return;
                }
            }
            // Not every role may end its session. A failed transaction also refuses each statement.
            let _ = self.run("BEGIN; SELECT 1 / 0");
        }
    }

    /// Checks after a failure that answers belong to their statements. If not, gives the connection up.
    #[cfg(feature = "postgres")]
    pub(crate) fn check_in_sync(&mut self) {
        if let Err(error) = self.run("SELECT 1")
            && meaning(&error) == Meaning::Lost
        {
            if !is_closed(&error) {
                log::warn!(
                    "a connection was closed because its answers belonged to earlier statements"
                );
            }
            self.terminate();
        }
    }

    /// Returns the begin of a transaction, followed by the statements that set its timeouts.
    fn with_limits(&mut self, begin: &str) -> String {
        match &self.session().limits {
            none if none.is_empty() => begin.to_owned(),
            limits => format!("{begin};{limits}"),
        }
    }

    /// Runs a statement in its own transaction if timeouts must be set for it and it can run in a transaction.
    pub(crate) fn with_transaction_timeouts<R>(
        &mut self,
        parsed: &ParsedStatement,
        work: impl FnOnce(&mut Self) -> Result<R, DbError>,
    ) -> Result<R, DbError> {
        let has_limits = !self.session().limits.is_empty();
        if !has_limits || !parsed.is_preparable || self.is_in_transaction() {
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

    /// Rolls back a transaction that a statement of the user has begun, if one is open.
    pub(super) fn roll_back_raw(&mut self) -> bool {
        match (self.run("ROLLBACK"), self.backend()) {
            (Ok(()), _) => true,
            (Err(DieselError::DatabaseError(_, information)), Backend::Sqlite) => {
                information.message().contains("no transaction is active")
            }
            (Err(_), _) => false,
        }
    }

    /// Rolls back a transaction that diesel does not know. A cancellation can hit the first attempt. If the second one
    /// fails too, gives the connection up, so that the next caller does not get a failed transaction.
    pub(crate) fn undo(&mut self, sql: &str) {
        if self.run(sql).is_err() && self.run(sql).is_err() {
            self.terminate();
        }
    }
}

/// Begins a transaction with `begin`, runs `work`, and commits or rolls back.
pub(crate) fn transact<C, T, E>(
    connection: &mut C,
    begin: impl FnOnce(&mut Connection) -> Result<(), DieselError>,
    work: impl FnOnce(&mut C) -> Result<T, E>,
) -> Result<T, Failure<E>>
where
    C: BorrowMut<Connection>,
{
    let inner: &mut Connection = connection.borrow_mut();
    // Within a transaction that has ended, the driver's depth is 0 already.
    let depth = inner
        .session()
        .transaction
        .depth()
        .max(inner.transaction_depth());
    if inner.is_lost() {
        return Err(Failure::Begin(DieselError::BrokenTransactionManager));
    }
    begin(inner).map_err(Failure::Begin)?;
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| work(connection)));
    let inner: &mut Connection = connection.borrow_mut();
    match outcome {
        Ok(Ok(value)) => match inner.commit() {
            Ok(()) => Ok(value),
            Err(failure) => {
                inner.roll_back_to(depth);
                Err(failure)
            }
        },
        Ok(Err(error)) => {
            inner.roll_back_to(depth);
            Err(Failure::Work(error))
        }
        Err(payload) => {
            inner.roll_back_to(depth);
            panic::resume_unwind(payload)
        }
    }
}

/// The number of attempts to end a session that is out of step. Each attempt reads at least one answer, and one or two
/// are surplus.
#[cfg(feature = "postgres")]
const GIVE_UP_ATTEMPTS: usize = 5;

/// Returns whether the driver reports a closed connection. An error without a text means that an answer lacks its
/// result.
#[cfg(feature = "postgres")]
fn is_closed(error: &DieselError) -> bool {
    let has_text = match error {
        DieselError::DatabaseError(_, information) => !information.message().trim().is_empty(),
        _ => true,
    };
    has_text && meaning(error) == Meaning::Lost
}

/// diesel's transaction manager of a [`Connection`], for generic code that begins and ends transactions by itself.
///
/// On SQLite, it begins the outermost transaction with `BEGIN IMMEDIATE`. It refuses to commit a transaction that has
/// failed.
#[derive(Debug)]
pub struct MultiTransactionManager;

impl<C> TransactionManager<C> for MultiTransactionManager
where
    C: diesel::Connection + BorrowMut<Connection>,
{
    type TransactionStateData = AnsiTransactionManager;

    fn begin_transaction(connection: &mut C) -> QueryResult<()> {
        connection.borrow_mut().begin()
    }

    fn rollback_transaction(connection: &mut C) -> QueryResult<()> {
        let connection: &mut Connection = connection.borrow_mut();
        match connection.session().transaction.levels {
            0 => Err(DieselError::NotInTransaction),
            _ => {
                let depth = connection.session().transaction.depth();
                connection.roll_back_to(depth - 1);
                match connection.is_lost() {
                    true => Err(DieselError::BrokenTransactionManager),
                    false => Ok(()),
                }
            }
        }
    }

    fn commit_transaction(connection: &mut C) -> QueryResult<()> {
        let connection: &mut Connection = connection.borrow_mut();
        match connection.session().transaction.levels {
            0 => Err(DieselError::NotInTransaction),
            _ => {
                let depth = connection.session().transaction.depth();
                connection.commit::<DieselError>().map_err(|failure| {
                    connection.roll_back_to(depth - 1);
                    failure.into_diesel()
                })
            }
        }
    }

    fn transaction_manager_status_mut(connection: &mut C) -> &mut TransactionManagerStatus {
        let connection: &mut Connection = connection.borrow_mut();
        on_each!(connection, inner => AnsiTransactionManager::transaction_manager_status_mut(inner))
    }

    fn transaction<F, T, E>(connection: &mut C, work: F) -> Result<T, E>
    where
        F: FnOnce(&mut C) -> Result<T, E>,
        E: From<DieselError>,
    {
        transact(connection, Connection::begin, work).map_err(Failure::into_diesel)
    }
}
