//! Watches what diesel does on a connection: counts, echoes, and sees transactions begun behind its back.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::result::Error as DieselError;

use super::prepared::{CastCache, Prepared};
use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::error::{Meaning, compare, meaning, statement_text, without_binds};
use crate::sql::{SideEffects, side_effects};
use crate::statistics::Call;
use crate::statistics::Statistics;
#[cfg(feature = "postgres")]
use crate::watchdog::WatchedConnection;
use singleton_core::__private::Escaped;

/// How a statement of our own, whose text was scanned already, is to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StatementContext {
    pub(crate) side_effects: SideEffects,
    /// Whether it counts as a query of the user's.
    pub(crate) counts: bool,
    /// Whether it is measured, by who knows its text and its rows.
    pub(crate) is_measured: bool,
}

impl StatementContext {
    /// Statements that are ours and not the user's.
    pub(crate) const OURS: StatementContext = StatementContext {
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

/// Runs code of the user's in the middle of a statement of which all is known: what it executes on its part is not that statement.
pub(crate) fn without_context<R>(work: impl FnOnce() -> R) -> R {
    let _restore = Restore(KNOWN.take());
    work()
}

/// Puts back what was known before.
struct Restore(Option<StatementContext>);

impl Drop for Restore {
    fn drop(&mut self) {
        KNOWN.set(self.0);
    }
}

/// Runs `work`, whose statements are `known`, so that their text need not be written out and scanned.
pub(crate) fn with_context<R>(known: StatementContext, work: impl FnOnce() -> R) -> R {
    let outer = KNOWN.get();
    // Who counts a whole as one does not want its parts counted.
    let known = StatementContext {
        side_effects: known.side_effects,
        counts: known.counts && outer.is_none_or(|outer| outer.counts),
        is_measured: known.is_measured && is_measured(),
    };
    let _restore = Restore(KNOWN.replace(Some(known)));
    work()
}

/// Tells whether what runs next is the user's.
pub(crate) fn is_measured() -> bool {
    KNOWN.get().is_none_or(|known| known.is_measured)
}

pub(crate) struct ConnectionInstrumentation {
    backend: Backend,
    echo: bool,
    echo_parameters: bool,
    /// From which time on a statement is logged.
    slow_after: Option<Duration>,
    began: Option<Instant>,
    /// The text of the statement that runs, where it is to be measured here.
    text: Option<String>,
    statistics: Arc<Statistics>,
    /// Whether a statement has begun a transaction that diesel knows nothing of.
    pub(crate) raw_transaction: bool,
    /// Whether a statement has left something on the session, such as a setting or a temporary table.
    pub(crate) is_dirty: bool,
    /// What text is cast to in the statements that were asked about.
    pub(crate) casts: CastCache,
    /// The statements that were prepared and not forgotten.
    pub(crate) prepared: Prepared,
    /// Whether a statement has failed since the transaction began.
    pub(crate) has_failed: bool,
    /// Whether the transaction gave way to another, or could not begin for its sake.
    pub(crate) has_conflicted: bool,
    /// Whether the server was found to be gone.
    pub(crate) is_lost: bool,
    /// The transaction command that diesel has announced and not yet sent.
    command: Option<Command>,
    in_transaction: bool,
    /// What is set at the beginning of each transaction.
    pub(crate) limits: String,
    /// Whether what runs is diesel's own question about a type, in the middle of another statement.
    is_lookup: bool,
    /// Ends the wait for an answer, if that has a limit.
    #[cfg(feature = "postgres")]
    watched: Option<WatchedConnection>,
    /// How long was waited in vain.
    pub(crate) gave_up_after: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Begin,
    Commit,
    RollBack,
    /// Anything about a savepoint.
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
            began: None,
            text: None,
            statistics,
            raw_transaction: false,
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
            gave_up_after: None,
            is_lookup: false,
        }
    }

    #[cfg(feature = "postgres")]
    pub(crate) fn watched(mut self, watched: Option<WatchedConnection>) -> Self {
        self.watched = watched;
        self
    }

    /// Sees to it that the wait for an answer ends.
    fn waits(&mut self) {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &mut self.watched {
            watched.begin();
        }
    }

    /// Notes that the answer is there, or never will be.
    pub(crate) fn waits_no_more(&mut self) {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &mut self.watched
            && watched.end()
        {
            let limit = watched.limit();
            self.gave_up_after = Some(limit);
            self.is_lost = true;
            log::warn!("the server has not answered within {limit:?}: the connection was closed");
        }
    }

    /// Whether an answer is waited for, or was and came too late.
    pub(crate) fn is_waiting(&self) -> bool {
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            return watched.is_waiting();
        }
        false
    }

    /// Notes that the connection is of no use any more, and closes it where its sockets are known.
    pub(crate) fn give_up(&mut self) {
        self.is_lost = true;
        #[cfg(feature = "postgres")]
        if let Some(watched) = &self.watched {
            watched.cut();
        }
    }

    /// Whether diesel asks for the identifier of a type while it binds the values of a statement that it has announced already.
    fn is_lookup(&self, query: &dyn std::fmt::Display) -> bool {
        if !self.is_waiting() {
            return false;
        }
        let text = query.to_string();
        text.starts_with("SELECT \"pg_type\".\"oid\", \"pg_type\".\"typarray\" FROM")
    }

    fn started(&mut self, query: &dyn std::fmt::Display) {
        self.is_lookup = self.is_lookup(query);
        // An earlier statement may have failed before it was sent.
        self.waits_no_more();
        self.waits();
        if self.is_lookup {
            return;
        }
        let known = KNOWN.get();
        self.text = None;
        self.began = known
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
        self.raw_transaction |= side_effects.transaction;
        self.is_dirty |= side_effects.session;
    }

    /// Measures a statement of which nothing was known, and tells of any that was slow.
    fn measure(&mut self, query: &dyn std::fmt::Display, failed: bool) {
        let Some(took) = self.began.take().map(|began| began.elapsed()) else {
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

    /// Notes a call of a statement of the user's.
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
        self.waits_no_more();
        let succeeded = error.is_none();
        self.has_failed |= !succeeded;
        let meaning = error.map(meaning);
        self.is_lost |= meaning == Some(Meaning::Lost);
        // It may lead to a primary that has become a standby; another connection finds the new one.
        self.is_dirty |= meaning == Some(Meaning::ReadOnly) && self.backend == Backend::Postgres;
        let is_begin = self.command == Some(Command::Begin);
        self.has_conflicted &= !is_begin;
        self.has_conflicted |= match meaning {
            Some(Meaning::Conflict | Meaning::Deadlock) => true,
            // Elsewhere than on SQLite, or later, it is for the user to say what a lock is worth waiting for.
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
            // What could not be committed is rolled back, by the server or by diesel.
            Some(Command::RollBack | Command::Commit) => self.forget_transaction(),
            Some(Command::Nested) => {}
            None => self.count(succeeded),
        }
    }

    /// Counts a query, unless it is part of what is counted as a whole.
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

    /// Whatever ends a transaction without committing it rolls it back, the end of the connection too.
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
                self.waits_no_more();
                if error.is_none() {
                    self.waits();
                }
            }
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.measure(&query, error.is_some());
                if let Some(error) = error {
                    compare(error, &query);
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
/// Logs a query as it begins, with the values of its parameters only where they are asked for.
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
