//! The state of a connection's session: what runs, what was left behind, and whether the connection is usable.

use std::panic::{self, AssertUnwindSafe, Location};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use diesel::connection::{
    AnsiTransactionManager, Instrumentation, TransactionManager, TransactionManagerStatus,
    ValidTransactionManagerStatus,
};
use diesel::result::Error as DieselError;
use parking_lot::Mutex;

use super::attempt::Attempt;
use super::instrumentation::DirectStatement;
use super::known_statements::KnownStatements;
use super::transaction_state::{FirstFailure, TransactionState, copy};
use super::{Closing, Connection, on_each};
use crate::backend::Backend;
use crate::config::{DatabaseConfig, ResetOnReturn};
use crate::error::{DbError, Meaning, ServerError, meaning, statement_text};
use crate::sql::SideEffects;
use crate::statistics::Statistics;
#[cfg(feature = "sqlite")]
use crate::statistics::{Call, StatementEntry};
#[cfg(feature = "postgres")]
use crate::watchdog::{AnswerTimeout, WatchedConnection};
use singleton_core::__private::Escaped;

/// The source location of a call of the user.
pub(crate) type Caller = &'static Location<'static>;

/// The state of a session. It is kept in the driver's connection, as its instrumentation.
pub(crate) struct Session {
    pub(super) observed: Arc<Observed>,
    /// The statements that the connection knows.
    pub(super) statements: KnownStatements,
    pub(super) transaction: TransactionState,
    /// The attempt of a transaction that may be repeated.
    pub(super) attempt: Option<Attempt>,
    /// Whether the last statement's failure does not count yet, because the statement may be repeated.
    pub(super) has_uncounted_failure: bool,
    /// Ends waits when the pool closes.
    pub(super) closing: Arc<Closing>,
    /// For whom statements run.
    purpose: Purpose,
    /// The source location of the call that this crate's own statements belong to.
    caller: Option<Caller>,
    /// Whether this crate accounts for the running statement itself, so that diesel's events about it are ignored.
    pub(super) is_announced: bool,
    /// The statement that the caller executes on the driver's connection.
    pub(super) direct: DirectStatement,
    /// Whether session state was changed, such as a setting or a temporary table.
    pub(super) is_dirty: bool,
    /// Whether session state may have been changed.
    pub(super) is_unsure: bool,
    /// When the state is reset.
    pub(super) reset_on_return: ResetOnReturn,
    /// The state of this connection to SQLite when it was new, if it is compared.
    pub(super) clean_state: Option<String>,
    /// Whether the connection is lost.
    pub(super) is_lost: bool,
    /// The timeout after which the connection was closed.
    timed_out_after: Option<Duration>,
    /// The statements that set the timeouts of each transaction.
    pub(super) limits: String,
    /// The statements that set the timeouts of a session.
    pub(super) session_limits: String,
    /// The instrumentation that the user has set.
    pub(super) user_instrumentation: Option<Box<dyn Instrumentation>>,
    /// The connection's deadline for answers, with `DB_SOCKET_TIMEOUT`.
    #[cfg(feature = "postgres")]
    watched: Option<WatchedConnection>,
}

/// The part of a session that is shared with the rows that a caller still reads.
pub(crate) struct Observed {
    pub(super) backend: Backend,
    pub(super) echo: bool,
    pub(super) echo_parameters: bool,
    /// The duration from which a statement is logged as slow.
    slow_after: Option<Duration>,
    pub(super) statistics: Arc<Statistics>,
    /// Whether the caller reads the rows of a statement, so that diesel's events about it are ignored.
    pub(super) is_reading: AtomicBool,
    /// Whether that statement is still being started.
    pub(super) is_loading: AtomicBool,
    /// The failure of a statement whose rows were being read. The session takes it over with the next statement.
    row_failure: Mutex<Option<DieselError>>,
}

/// For whom statements run. A later variant includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// For the user. Each statement counts as a query.
    User,
    /// As parts of a call that counts as one query.
    PartOfCall,
    /// For this crate. They neither count nor appear in the statistics.
    Internal,
}

/// A statement that runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Running {
    side_effects: SideEffects,
    /// Whether the transaction had failed before, so that PostgreSQL refuses the statement.
    has_failed_before: bool,
    at: Option<Caller>,
    /// The position of its error in the caller's text, if it has failed and the position is known.
    position: Option<usize>,
}

impl Observed {
    /// Counts a query of the user.
    pub(super) fn count(&self, succeeded: bool) {
        let counter = if succeeded {
            &self.statistics.successful_queries
        } else {
            &self.statistics.failed_queries
        };
        counter.increment();
    }

    /// Records a call of a statement whose rows were read, and logs it if it was slow.
    #[cfg(feature = "sqlite")]
    pub(super) fn measured(&self, entry: &StatementEntry, text: &str, call: Call) {
        entry.record(call);
        self.log_if_slow(text, call.took);
    }

    pub(super) fn log_if_slow(&self, text: &str, took: Duration) {
        if self.slow_after.is_some_and(|threshold| took >= threshold) {
            log::warn!("a statement took {took:.1?}: {}", Escaped(text));
        }
    }

    /// Logs a statement when it begins, with its parameter values if `DB_ECHO_PARAMETERS` is set.
    pub(super) fn echo(&self, query: &dyn std::fmt::Display) {
        if self.echo_parameters {
            log::info!("{}", Escaped(query));
        } else {
            log::info!("{}", Escaped(statement_text(query)));
        }
    }

    /// Stores the failure of a statement whose rows are being read.
    #[cfg(feature = "sqlite")]
    pub(super) fn fail_while_reading(&self, error: &DieselError) {
        *self.row_failure.lock() = copy(error);
    }
}

/// The settings of a session.
#[derive(Default)]
pub(crate) struct SessionSettings {
    echo: bool,
    echo_parameters: bool,
    slow_after: Option<Duration>,
    statement_cache_size: u32,
    limits: String,
    session_limits: String,
    reset_on_return: ResetOnReturn,
}

impl SessionSettings {
    pub(crate) fn new(config: &DatabaseConfig) -> Self {
        SessionSettings {
            echo: config.echo_sql,
            echo_parameters: config.echo_parameters,
            slow_after: config.slow_query_threshold,
            statement_cache_size: config.statement_cache_size,
            limits: limits(config, "SET LOCAL", config.statement_cache_size == 0),
            session_limits: limits(config, "SET", config.statement_cache_size > 0),
            reset_on_return: config.reset_on_return,
        }
    }
}

/// Returns the statements that set PostgreSQL's timeouts, if they are set in this way. Without a statement cache, each
/// transaction may run in another server session, so each sets its timeouts.
fn limits(config: &DatabaseConfig, set: &str, is_used: bool) -> String {
    match config.url.backend() {
        #[cfg(feature = "postgres")]
        Backend::Postgres if is_used => config.postgres.limits(set),
        _ => {
            let _ = (set, is_used);
            String::new()
        }
    }
}

impl Session {
    pub(crate) fn new(
        backend: Backend,
        settings: SessionSettings,
        statistics: Arc<Statistics>,
        closing: Arc<Closing>,
    ) -> Self {
        Session {
            observed: Arc::new(Observed {
                backend,
                echo: settings.echo,
                echo_parameters: settings.echo_parameters,
                slow_after: settings.slow_after,
                statistics,
                is_reading: AtomicBool::new(false),
                is_loading: AtomicBool::new(false),
                row_failure: Mutex::new(None),
            }),
            statements: KnownStatements::new(settings.statement_cache_size),
            transaction: TransactionState::default(),
            attempt: None,
            has_uncounted_failure: false,
            closing,
            purpose: Purpose::User,
            caller: None,
            is_announced: false,
            direct: DirectStatement::default(),
            is_dirty: false,
            is_unsure: false,
            reset_on_return: settings.reset_on_return,
            clean_state: None,
            is_lost: false,
            timed_out_after: None,
            limits: settings.limits,
            session_limits: settings.session_limits,
            user_instrumentation: None,
            #[cfg(feature = "postgres")]
            watched: None,
        }
    }

    /// Returns the statements that set the timeouts of a session.
    #[cfg(feature = "postgres")]
    pub(super) fn session_limits(&self) -> &str {
        &self.session_limits
    }

    /// Returns the session of a connection whose instrumentation the caller has replaced, at this depth of transactions
    /// of the driver. Its state is unknown, so the connection is closed when it returns.
    fn unknown(backend: Backend, depth: u32) -> Self {
        let settings = SessionSettings::default();
        let mut session = Session::new(backend, settings, Arc::default(), Arc::default());
        session.is_dirty = true;
        // A statement may have failed meanwhile, or have begun a transaction.
        session.transaction = TransactionState {
            levels: depth,
            has_failed: true,
            must_ask: backend == Backend::Sqlite,
            has_raw: depth == 0,
            ..TransactionState::default()
        };
        session
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn watched(mut self, watched: Option<WatchedConnection>) -> Self {
        self.watched = watched;
        self
    }

    /// Returns the timeout of answers, for code that runs in the middle of a statement.
    #[cfg(feature = "postgres")]
    pub(crate) fn answer_timeout(&self) -> AnswerTimeout {
        let watched = self.watched.as_ref();
        watched.map_or_else(AnswerTimeout::default, WatchedConnection::answer_timeout)
    }

    pub(super) fn counts(&self) -> bool {
        self.purpose == Purpose::User
    }

    pub(super) fn is_internal(&self) -> bool {
        self.purpose == Purpose::Internal
    }

    /// Starts the timeout of the server's answer.
    pub(super) fn await_answer(&mut self) {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &mut self.watched {
            watched.begin();
        }
    }

    /// Ends the timeout of the server's answer: the answer is complete, or will not come.
    pub(super) fn end_wait(&mut self) {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &mut self.watched
            && watched.end()
        {
            let limit = watched.limit();
            self.timed_out_after = Some(limit);
            self.is_lost = true;
            log::warn!("the server has not answered within {limit:?}: the connection was closed");
        }
    }

    /// Returns whether an answer is pending, or came after the timeout.
    pub(super) fn is_waiting(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            return watched.is_waiting();
        }
        false
    }

    /// Marks the connection as lost, and closes it if a relay holds its sockets.
    pub(super) fn terminate(&mut self) {
        self.is_lost = true;
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            watched.cut();
        }
    }

    /// Forgets what holds only until the connection returns to the pool.
    pub(super) fn end_checkout(&mut self) {
        self.purpose = Purpose::User;
        self.end_attempt(false);
        self.user_instrumentation = None;
        self.take_row_failure();
        self.note_interruption();
    }

    /// Returns whether the connection is in order and in no transaction of this crate, so that nothing need be checked
    /// before a statement.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_lost && self.transaction.levels == 0
    }

    /// Notes a statement that is about to run on an idle connection.
    pub(super) fn start_idle(&mut self, side_effects: SideEffects, at: Option<Caller>) -> Running {
        self.take_row_failure();
        self.start(side_effects);
        Running {
            side_effects,
            has_failed_before: false,
            at,
            position: None,
        }
    }

    /// Notes a statement that is about to run.
    fn start(&mut self, side_effects: SideEffects) {
        // An earlier statement may have failed without being sent.
        self.end_wait();
        self.await_answer();
        self.note_forgotten_rows();
        self.note_interruption();
        self.is_announced = true;
        self.is_dirty |= side_effects.session;
        self.is_unsure |= side_effects.is_unsure;
    }

    /// Notes the end of a statement.
    pub(super) fn finish(&mut self, running: &Running, error: Option<&DieselError>) {
        self.is_announced = false;
        self.end_wait();
        self.transaction.is_aborted = false;
        self.note_transaction(running.side_effects, error.is_some());
        if let Some(error) = error {
            self.fail(error, running);
        }
    }

    /// Notes what a text has done to a transaction that diesel does not know.
    pub(super) fn note_transaction(&mut self, side_effects: SideEffects, failed: bool) {
        if side_effects.redefines || side_effects.session {
            self.observed.statistics.redefinitions.increment();
        }
        if self.transaction.levels > 0 {
            self.transaction.has_begun_again |= side_effects.begin;
            return;
        }
        match side_effects.transaction {
            Some(true) => self.transaction.has_raw = true,
            // Of several statements, the one after the begin may have failed.
            _ if failed && side_effects.begin => self.transaction.has_raw = true,
            // The one that ends it may have failed too.
            Some(false) if !failed => self.transaction.has_raw = false,
            _ => {}
        }
    }

    /// Notes the failure of a statement.
    fn fail(&mut self, error: &DieselError, running: &Running) {
        let meaning = meaning(error);
        self.is_lost |= meaning == Meaning::Lost;
        // The server may be a former primary. A new connection finds the new primary.
        self.is_dirty |= meaning == Meaning::ReadOnly && self.observed.backend == Backend::Postgres;
        self.transaction.has_conflicted |= matches!(
            meaning,
            Meaning::Conflict | Meaning::Deadlock | Meaning::StalePlan
        );
        if meaning == Meaning::StalePlan {
            self.statements.has_stale_plan = true;
        }
        let transaction = &mut self.transaction;
        transaction.has_failed = true;
        transaction.is_aborted = matches!(error, DieselError::DatabaseError(..));
        if transaction.levels == 0 || running.has_failed_before {
            return;
        }
        transaction.must_ask |= self.observed.backend == Backend::Sqlite;
        if let Some(error) = copy(error) {
            transaction.first_failure = Some(FirstFailure {
                error: ServerError::from_copy(running.position, error),
                at: running.at,
                level: transaction.levels,
            });
        }
    }

    /// Returns the failure of the transaction, if there was one.
    #[cfg(feature = "postgres")]
    pub(super) fn first_failure(&self) -> (bool, Option<FirstFailure>) {
        let transaction = &self.transaction;
        (transaction.has_failed, transaction.first_failure.clone())
    }

    /// Forgets failures since [`first_failure`](Session::first_failure), which were rolled back.
    #[cfg(feature = "postgres")]
    pub(super) fn restore_first_failure(&mut self, failure: (bool, Option<FirstFailure>)) {
        (self.transaction.has_failed, self.transaction.first_failure) = failure;
    }

    /// Returns whether PostgreSQL refuses statements, as far as its answers show. diesel does not notice a statement
    /// that could not be prepared.
    pub(super) fn is_aborted(&self) -> bool {
        let transaction = &self.transaction;
        transaction.is_aborted
            && transaction.first_failure.is_some()
            && self.observed.backend == Backend::Postgres
    }

    /// Notes that a statement was not sent, so it shows nothing about a failed transaction.
    pub(super) fn not_sent(&mut self, running: &Running) {
        self.transaction.is_aborted |= running.has_failed_before;
    }

    /// Notes the end of a statement that the caller has executed on the driver's connection.
    pub(super) fn note_direct(&mut self, error: Option<&DieselError>) {
        let running = Running::unannounced(self.is_aborted());
        self.transaction.is_aborted = false;
        if let Some(error) = error {
            self.fail(error, &running);
        }
    }

    /// Notes if the caller has forgotten the rows of an earlier statement, with [`std::mem::forget`]: rows borrow the
    /// connection, so they should be gone when it is used again. On SQLite, the statement runs on and keeps its
    /// snapshot, so the connection is closed when it returns.
    pub(super) fn note_forgotten_rows(&mut self) {
        self.is_dirty |= self.observed.is_reading.swap(false, Ordering::Relaxed);
    }

    /// Notes if a panic has interrupted the last statement, so that its effects are unknown. The connection is closed when
    /// it returns.
    pub(super) fn note_interruption(&mut self) {
        self.is_dirty |= std::mem::take(&mut self.is_announced);
    }

    /// Takes over the failure of a statement whose rows were read.
    pub(super) fn take_row_failure(&mut self) {
        self.note_forgotten_rows();
        let failure = self.observed.row_failure.lock().take();
        if let Some(error) = failure {
            self.fail(&error, &Running::unannounced(false));
        }
    }

    /// Keeps the first failure for `level`: it has ended the transaction of all levels.
    pub(super) fn keep_first_failure(&mut self, level: u32) {
        if let Some(failure) = &mut self.transaction.first_failure {
            failure.level = failure.level.min(level);
        }
    }

    /// Forgets what happened in levels above `level`, which were rolled back, or which had ended before.
    pub(super) fn forget_levels_above(&mut self, level: u32, has_ended: bool) {
        let transaction = &mut self.transaction;
        transaction.levels = transaction.levels.min(level);
        if transaction
            .first_failure
            .as_ref()
            .is_some_and(|failure| failure.level > level)
        {
            transaction.first_failure = None;
        }
        if transaction.levels == 0 {
            transaction.must_ask = false;
            transaction.was_ended = false;
            // The next reset rolls back what may be open.
            transaction.has_raw |= std::mem::take(&mut transaction.has_begun_again) && has_ended;
        }
    }

    /// Counts a rollback. Each end without a commit, the end of the connection included, is one.
    pub(super) fn count_rollback(&mut self) {
        if std::mem::take(&mut self.transaction.is_counted) {
            self.observed
                .statistics
                .transactions_rolled_back
                .increment();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.count_rollback();
    }
}

impl Connection {
    /// Returns the state of the session.
    pub(crate) fn session(&mut self) -> &mut Session {
        const INSTALLED: &str = "the session was installed above";
        let backend = self.backend();
        let instrumentation = on_each!(self, inner => diesel::Connection::instrumentation(inner));
        // The caller may have set another instrumentation on the driver's connection.
        if instrumentation.downcast_ref::<Session>().is_none() {
            let session = Session::unknown(backend, self.transaction_depth());
            on_each!(self, inner => diesel::Connection::set_instrumentation(inner, session));
        }
        on_each!(self, inner => diesel::Connection::instrumentation(inner))
            .downcast_mut()
            .expect(INSTALLED)
    }

    /// Sets the purpose of all statements until the connection returns to the pool.
    pub(crate) fn set_purpose_until_return(&mut self, purpose: Purpose) {
        self.session().purpose = purpose;
    }

    /// Runs `work` for a purpose that includes the present one.
    pub(crate) fn with_purpose<R>(
        &mut self,
        purpose: Purpose,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let caller = self.session().caller;
        self.on_behalf_of(caller, purpose, work)
    }

    /// Runs `work` for a purpose that includes the present one. Its statements belong to the call at `caller`, or to the
    /// one that is running already.
    pub(crate) fn on_behalf_of<R>(
        &mut self,
        caller: Option<Caller>,
        purpose: Purpose,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let session = self.session();
        let outer = (session.purpose, session.caller);
        session.purpose = outer.0.max(purpose);
        session.caller = outer.1.or(caller);
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(self)));
        let session = self.session();
        (session.purpose, session.caller) = outer;
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Runs `work`, whose statements are this crate's own.
    pub(crate) fn internally<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        self.with_purpose(Purpose::Internal, work)
    }

    /// Returns the driver's depth of transactions and savepoints.
    pub(crate) fn transaction_depth(&mut self) -> u32 {
        let status =
            on_each!(self, inner => AnsiTransactionManager::transaction_manager_status_mut(inner));
        status
            .transaction_depth()
            .ok()
            .flatten()
            .map_or(0, |depth| depth.get())
    }

    /// Returns whether the connection is in a transaction, of this crate or of the user.
    pub(crate) fn is_in_transaction(&mut self) -> bool {
        self.transaction_depth() > 0 || self.session().transaction.has_raw
    }

    /// Returns whether the connection is lost.
    pub(crate) fn is_lost(&mut self) -> bool {
        self.session().is_lost
    }

    /// Returns whether the last transaction was rolled back because of a conflict.
    pub(crate) fn has_conflicted(&mut self) -> bool {
        self.session().transaction.has_conflicted
    }

    /// Returns an error if the connection is lost, or if its transaction has ended before the closure that it belongs
    /// to.
    pub(crate) fn check_usable(&mut self) -> Result<(), DbError> {
        let session = self.session();
        session.take_row_failure();
        if session.is_idle() {
            return Ok(());
        }
        if session.is_lost {
            let error = DieselError::BrokenTransactionManager;
            return Err(self.classify_timeout(DbError::ConnectionLost(error.into())));
        }
        if self.has_ended() {
            return Err(self.aborted());
        }
        Ok(())
    }

    /// Returns whether the transaction has ended before the closure that it belongs to.
    pub(super) fn has_ended(&mut self) -> bool {
        let transaction = &mut self.session().transaction;
        let (base, levels) = (transaction.base, transaction.levels);
        let was_ended = transaction.was_ended;
        if std::mem::take(&mut transaction.must_ask) {
            self.ask_for_transaction();
        }
        let has_ended = was_ended || self.transaction_depth() < base + levels;
        if has_ended {
            let session = self.session();
            session.count_rollback();
            // A statement on the driver's connection may begin another one.
            session.transaction.was_ended = true;
        }
        has_ended
    }

    /// Compares the driver's depth with the state of a SQLite connection.
    ///
    /// SQLite ends a transaction by itself after some errors. diesel asks whether it has, but only after a failed
    /// batch, and then sets its depth to 0. So this is a batch that fails and does nothing else.
    fn ask_for_transaction(&mut self) {
        #[cfg(feature = "sqlite")]
        if self.backend() == Backend::Sqlite {
            let running = self.start(SideEffects::default(), None);
            #[allow(irrefutable_let_patterns, reason = "SQLite may be the only backend")]
            if let Connection::Sqlite(inner) = self {
                let sql = "ROLLBACK TO SAVEPOINT db_service_no_such_savepoint";
                let _ = diesel::connection::SimpleConnection::batch_execute(inner, sql);
            }
            self.session().finish(&running, None);
        }
    }

    pub(super) fn has_first_failure(&mut self) -> bool {
        self.session().transaction.first_failure.is_some()
    }

    /// Returns the error for a statement of a transaction that has failed or ended.
    pub(super) fn aborted(&mut self) -> DbError {
        match self.session().transaction.first_failure.clone() {
            Some(FirstFailure { error, at, .. }) => {
                DbError::TransactionAborted { first: error, at }
            }
            None => DbError::EndsTransaction,
        }
    }

    /// Returns [`DbError::NoAnswer`] in place of [`DbError::ConnectionLost`] if the connection was closed after a
    /// timeout.
    pub(crate) fn classify_timeout(&mut self, error: DbError) -> DbError {
        match (error, self.session().timed_out_after) {
            (DbError::ConnectionLost(source), Some(limit)) => DbError::NoAnswer { limit, source },
            (error, _) => error,
        }
    }

    /// Notes a statement that is about to run.
    pub(crate) fn start(&mut self, side_effects: SideEffects, at: Option<Caller>) -> Running {
        let transaction = &self.session().transaction;
        let has_failed_before = transaction.levels > 0
            && transaction.first_failure.is_some()
            && (self.session().is_aborted() || self.is_failed_transaction());
        let session = self.session();
        session.start(side_effects);
        Running {
            side_effects,
            has_failed_before,
            at: session.caller.or(at),
            position: None,
        }
    }

    /// Returns whether the transaction has failed on PostgreSQL, as libpq reports it.
    pub(super) fn is_failed_transaction(&mut self) -> bool {
        let status =
            on_each!(self, inner => AnsiTransactionManager::transaction_manager_status_mut(inner));
        matches!(
            status,
            TransactionManagerStatus::Valid(ValidTransactionManagerStatus {
                in_transaction: Some(transaction),
                ..
            }) if transaction.requires_rollback_maybe_up_to_top_level
        )
    }

    /// Notes the failure of a statement, and returns the error that the caller gets.
    pub(super) fn failed(&mut self, running: &Running, error: DieselError) -> DieselError {
        self.session().finish(running, Some(&error));
        // SQLite is asked at once, before a statement on the driver's connection can begin another transaction.
        if self.session().transaction.must_ask {
            self.has_ended();
        }
        if running.has_failed_before {
            return self.aborted().into();
        }
        match meaning(&error) {
            Meaning::StalePlan => DbError::at(running.position, error).into(),
            _ => error,
        }
    }
}

impl Running {
    /// Returns a statement that this crate has not started.
    fn unannounced(has_failed_before: bool) -> Self {
        Running {
            side_effects: SideEffects::default(),
            has_failed_before,
            at: None,
            position: None,
        }
    }

    /// Adds the position of the statement's error in the caller's text.
    pub(super) fn failed_at(self, position: Option<usize>) -> Self {
        Running { position, ..self }
    }

    /// Returns whether the transaction had failed before the statement.
    pub(super) fn has_failed_before(&self) -> bool {
        self.has_failed_before
    }
}
