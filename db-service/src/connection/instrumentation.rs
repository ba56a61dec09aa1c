//! Observes the statements on a connection: counts, logs and measures them, and detects raw transactions and session
//! state.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::result::Error as DieselError;

use super::prepared::{CastCache, Prepared};
use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::error::{Meaning, meaning, remember_names_of_statement, statement_text, without_binds};
use crate::sql::{SideEffects, side_effects};
use crate::statistics::Call;
use crate::statistics::Statistics;
#[cfg(feature = "postgres")]
use crate::watchdog::WatchedConnection;
use singleton_core::__private::Escaped;

/// What is known of a statement that this crate executes, so that its text need not be scanned again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StatementContext {
    pub(crate) side_effects: SideEffects,
    /// Whether the statement counts as a query of the user.
    pub(crate) counts: bool,
    /// Whether the caller, which knows the text and the rows, measures the statement.
    pub(crate) is_measured: bool,
}

impl StatementContext {
    /// The context of this crate's own statements.
    pub(crate) const INTERNAL: StatementContext = StatementContext {
        side_effects: SideEffects {
            transaction: false,
            session: false,
            end: false,
        },
        counts: false,
        is_measured: false,
    };
}

thread_local! {
    static KNOWN: Cell<Option<StatementContext>> = const { Cell::new(None) };
}

/// Runs user code in the middle of a known statement. The statements that this code executes are not the known one.
pub(crate) fn without_context<R>(work: impl FnOnce() -> R) -> R {
    let _restore = Restore(KNOWN.take());
    work()
}

/// Restores the previous context when it is dropped.
struct Restore(Option<StatementContext>);

impl Drop for Restore {
    fn drop(&mut self) {
        KNOWN.set(self.0);
    }
}

/// Runs `work` with a known context, so that the texts of its statements need not be rendered and scanned.
pub(crate) fn with_context<R>(known: StatementContext, work: impl FnOnce() -> R) -> R {
    let outer = KNOWN.get();
    // If the caller counts the whole as one query, its parts are not counted.
    let known = StatementContext {
        side_effects: known.side_effects,
        counts: known.counts && outer.is_none_or(|outer| outer.counts),
        is_measured: known.is_measured && is_measured(),
    };
    let _restore = Restore(KNOWN.replace(Some(known)));
    work()
}

/// Returns whether the caller should measure the next statement.
pub(crate) fn is_measured() -> bool {
    KNOWN.get().is_none_or(|known| known.is_measured)
}

pub(crate) struct ConnectionInstrumentation {
    backend: Backend,
    echo: bool,
    echo_parameters: bool,
    /// The duration from which a statement is logged as slow.
    slow_after: Option<Duration>,
    started_at: Option<Instant>,
    /// The text of the running statement, if it is measured here.
    text: Option<String>,
    statistics: Arc<Statistics>,
    /// Whether a raw statement has begun a transaction that diesel does not know.
    pub(crate) has_raw_transaction: bool,
    /// Whether a statement has changed session state, such as a setting or a temporary table.
    pub(crate) is_dirty: bool,
    /// The parameter casts of known statements.
    pub(crate) casts: CastCache,
    /// The prepared statements.
    pub(crate) prepared: Prepared,
    /// Whether a statement of the current transaction has failed.
    pub(crate) has_failed: bool,
    /// Whether the last transaction was rolled back, or could not begin, because of a conflict with another one.
    pub(crate) has_conflicted: bool,
    /// Whether the connection is lost.
    pub(crate) is_lost: bool,
    /// The transaction command that diesel has announced and not yet sent.
    command: Option<Command>,
    in_transaction: bool,
    /// The statements that set the timeouts of each transaction.
    pub(crate) limits: String,
    /// Whether diesel's own lookup of a type runs, in the middle of another statement.
    is_lookup: bool,
    /// The connection's deadline for answers, with `DB_SOCKET_TIMEOUT`.
    #[cfg(feature = "postgres")]
    watched: Option<WatchedConnection>,
    /// The timeout after which the connection was closed.
    pub(crate) timed_out_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Begin,
    Commit,
    RollBack,
    /// A command about a savepoint.
    Nested,
}

impl ConnectionInstrumentation {
    pub(crate) fn new(
        backend: Backend,
        config: &DatabaseConfig,
        statistics: Arc<Statistics>,
    ) -> Self {
        ConnectionInstrumentation {
            backend,
            echo: config.echo_sql,
            echo_parameters: config.echo_parameters,
            slow_after: config.slow_query_threshold,
            started_at: None,
            text: None,
            statistics,
            has_raw_transaction: false,
            casts: CastCache::default(),
            prepared: Prepared::new(config.statement_cache_size),
            is_dirty: false,
            has_failed: false,
            has_conflicted: false,
            is_lost: false,
            command: None,
            in_transaction: false,
            limits: match backend {
                #[cfg(feature = "postgres")]
                Backend::Postgres if config.statement_cache_size == 0 => {
                    config.postgres.limits("SET LOCAL")
                }
                _ => String::new(),
            },
            #[cfg(feature = "postgres")]
            watched: None,
            timed_out_after: None,
            is_lookup: false,
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn watched(mut self, watched: Option<WatchedConnection>) -> Self {
        self.watched = watched;
        self
    }

    /// Starts the timeout of the server's answer.
    fn await_answer(&mut self) {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &mut self.watched {
            watched.begin();
        }
    }

    /// Ends the timeout of the server's answer: the answer is complete, or will not come.
    pub(crate) fn end_wait(&mut self) {
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
    pub(crate) fn is_waiting(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            return watched.is_waiting();
        }
        false
    }

    /// Marks the connection as lost, and closes it if a relay holds its sockets.
    pub(crate) fn terminate(&mut self) {
        self.is_lost = true;
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            watched.cut();
        }
    }

    /// Returns whether diesel looks a type up while it binds the values of a statement that it has announced.
    fn is_lookup(&self, query: &dyn std::fmt::Display) -> bool {
        if !self.is_waiting() {
            return false;
        }
        let text = query.to_string();
        text.starts_with("SELECT \"pg_type\".\"oid\", \"pg_type\".\"typarray\" FROM")
    }

    fn started(&mut self, query: &dyn std::fmt::Display) {
        self.is_lookup = self.is_lookup(query);
        // An earlier statement may have failed without being sent.
        self.end_wait();
        self.await_answer();
        if self.is_lookup {
            return;
        }
        let known = KNOWN.get();
        self.text = None;
        self.started_at = known
            .is_none_or(|known| !known.is_measured)
            .then(Instant::now);
        if self.echo {
            echo(query, self.echo_parameters);
        }
        if self.command.is_some() {
            return;
        }
        let side_effects = match known {
            Some(known) => known.side_effects,
            None => {
                let text = query.to_string();
                let side_effects = side_effects(&text, self.backend);
                self.text = Some(without_binds(text));
                side_effects
            }
        };
        self.has_raw_transaction |= side_effects.transaction;
        self.is_dirty |= side_effects.session;
    }

    /// Measures a statement without a known context, and logs a slow one.
    fn measure(&mut self, query: &dyn std::fmt::Display, failed: bool) {
        let Some(took) = self
            .started_at
            .take()
            .map(|started_at| started_at.elapsed())
        else {
            return;
        };
        match self.text.take() {
            Some(text) => {
                let rows = 0;
                self.measured(&text, Call { took, rows, failed });
            }
            None if self.is_slow(took) => log_slow_statement(&statement_text(query), took),
            None => {}
        }
    }

    /// Records a call of a user's statement.
    pub(crate) fn measured(&self, text: &str, call: Call) {
        self.statistics.statements.record(text, call);
        if self.is_slow(call.took) {
            log_slow_statement(text, call.took);
        }
    }

    fn is_slow(&self, took: Duration) -> bool {
        self.slow_after.is_some_and(|threshold| took >= threshold)
    }

    fn finished(&mut self, error: Option<&DieselError>) {
        self.end_wait();
        let succeeded = error.is_none();
        self.has_failed |= !succeeded;
        let meaning = error.map(meaning);
        self.is_lost |= meaning == Some(Meaning::Lost);
        // The server may be a former primary. A new connection finds the new primary.
        self.is_dirty |= meaning == Some(Meaning::ReadOnly) && self.backend == Backend::Postgres;
        let is_begin = self.command == Some(Command::Begin);
        self.has_conflicted &= !is_begin;
        self.has_conflicted |= match meaning {
            Some(Meaning::Conflict | Meaning::Deadlock) => true,
            // Only a `BEGIN` that could not lock is a conflict. A lock timeout of another statement is the user's own
            // setting.
            Some(Meaning::LockTimeout) => is_begin,
            _ => false,
        };
        match self.command.take() {
            Some(Command::Begin) => {
                self.forget_transaction();
                self.in_transaction = succeeded;
                self.has_failed = false;
            }
            Some(Command::Commit) if succeeded => {
                self.in_transaction = false;
                self.statistics.transactions_committed.increment();
            }
            // A failed COMMIT is a rollback, by the server or by diesel.
            Some(Command::RollBack | Command::Commit) => self.forget_transaction(),
            Some(Command::Nested) => {}
            None => self.count(succeeded),
        }
    }

    /// Counts a query, unless it is part of a call that counts as one.
    pub(crate) fn count(&self, succeeded: bool) {
        if KNOWN.get().is_none_or(|known| known.counts) {
            let counter = if succeeded {
                &self.statistics.successful_queries
            } else {
                &self.statistics.failed_queries
            };
            counter.increment();
        }
    }

    /// Clears the transaction's state. Each end without a commit, the end of the connection included, is a rollback.
    fn forget_transaction(&mut self) {
        if std::mem::take(&mut self.in_transaction) {
            self.statistics.transactions_rolled_back.increment();
        }
    }
}

impl Drop for ConnectionInstrumentation {
    fn drop(&mut self) {
        self.forget_transaction();
    }
}

impl Instrumentation for ConnectionInstrumentation {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let command =
            |depth: u32, command| Some(if depth == 1 { command } else { Command::Nested });
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.started(&query),
            InstrumentationEvent::FinishQuery { error, .. } if self.is_lookup => {
                self.is_lookup = false;
                self.end_wait();
                if error.is_none() {
                    self.await_answer();
                }
            }
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.measure(&query, error.is_some());
                if let Some(error) = error {
                    remember_names_of_statement(error, &query);
                }
                self.finished(error);
            }
            InstrumentationEvent::BeginTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::Begin);
            }
            InstrumentationEvent::CommitTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::Commit);
            }
            InstrumentationEvent::RollbackTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::RollBack);
            }
            InstrumentationEvent::CacheQuery { sql, .. } => self.prepared.add(sql),
            _ => {}
        }
    }
}
/// Logs a query when it begins, and its parameter values if `with_parameters` is set.
pub(crate) fn echo(query: &dyn fmt::Display, with_parameters: bool) {
    if with_parameters {
        log::info!("{}", Escaped(query));
    } else {
        log::info!("{}", Escaped(statement_text(query)));
    }
}

pub(crate) fn log_slow_statement(text: &str, took: Duration) {
    log::warn!("a statement took {took:.1?}: {}", Escaped(text));
}
