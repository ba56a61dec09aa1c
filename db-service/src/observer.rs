//! Watches what diesel does on a connection: counts, echoes, and sees transactions begun behind its back.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::result::Error as DieselError;

use crate::backend::Backend;
use crate::config::DatabaseConfig;
use crate::server_error::{Meaning, meaning};
use crate::statement::Casts;
use crate::statistics::Statistics;
use crate::traces::{self, Traces};

/// How a statement of our own, whose text was scanned already, is to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    pub(crate) traces: Traces,
    /// Whether it counts as a query of the user's.
    pub(crate) counts: bool,
}

thread_local! {
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
}

/// Runs `work`, whose statements are `known`, so that their text need not be written out and scanned.
pub(crate) fn with_known<R>(known: Known, work: impl FnOnce() -> R) -> R {
    struct Restore(Option<Known>);
    impl Drop for Restore {
        fn drop(&mut self) {
            KNOWN.set(self.0);
        }
    }
    let outer = KNOWN.get();
    // Who counts a whole as one does not want its parts counted.
    let counts = known.counts && outer.is_none_or(|outer| outer.counts);
    let _restore = Restore(KNOWN.replace(Some(Known { counts, ..known })));
    work()
}

pub(crate) struct Observer {
    backend: Backend,
    echo: bool,
    /// From which time on a statement is logged.
    slow_after: Option<Duration>,
    began: Option<Instant>,
    statistics: Arc<Statistics>,
    /// Whether a statement has begun a transaction that diesel knows nothing of.
    pub(crate) raw_transaction: bool,
    /// Whether a statement has left something on the session, such as a setting or a temporary table.
    pub(crate) is_marked: bool,
    /// What text is cast to in the statements that were asked about.
    pub(crate) casts: HashMap<String, Casts>,
    /// How many statements were prepared and not forgotten.
    pub(crate) prepared: u32,
    /// Whether a statement has failed since the transaction began.
    pub(crate) has_failed: bool,
    /// Whether the transaction gave way to another, or could not begin for its sake.
    pub(crate) has_conflicted: bool,
    /// Whether the server was found to be gone.
    pub(crate) is_lost: bool,
    /// The transaction command that diesel has announced and not yet sent.
    command: Option<Command>,
    in_transaction: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Command {
    Begin,
    Commit,
    RollBack,
    /// Anything about a savepoint.
    Nested,
}

impl Observer {
    pub(crate) fn new(
        backend: Backend,
        config: &DatabaseConfig,
        statistics: Arc<Statistics>,
    ) -> Self {
        Observer {
            backend,
            echo: config.echo_sql,
            slow_after: config.slow_query_threshold,
            began: None,
            statistics,
            raw_transaction: false,
            casts: HashMap::new(),
            prepared: 0,
            is_marked: false,
            has_failed: false,
            has_conflicted: false,
            is_lost: false,
            command: None,
            in_transaction: false,
        }
    }

    fn started(&mut self, query: &dyn std::fmt::Display) {
        let known = KNOWN.get();
        self.began = self.slow_after.map(|_| Instant::now());
        if self.echo {
            log::info!("{}", text_of(query));
        }
        if self.command.is_some() {
            return;
        }
        let traces = match known {
            Some(known) => known.traces,
            None => traces::of(&query.to_string(), self.backend),
        };
        self.raw_transaction |= traces.transaction;
        self.is_marked |= traces.session;
    }

    fn tell_if_slow(&mut self, query: &dyn std::fmt::Display) {
        let (Some(threshold), Some(began)) = (self.slow_after, self.began.take()) else {
            return;
        };
        let took = began.elapsed();
        if took >= threshold {
            log::warn!("a statement took {took:.1?}: {}", text_of(query));
        }
    }

    fn finished(&mut self, error: Option<&DieselError>) {
        let succeeded = error.is_none();
        self.has_failed |= !succeeded;
        let meaning = error.map(meaning);
        self.is_lost |= meaning == Some(Meaning::Lost);
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
            None if KNOWN.get().is_none_or(|known| known.counts) => {
                let counter = if succeeded {
                    &self.statistics.successful_queries
                } else {
                    &self.statistics.failed_queries
                };
                counter.increment();
            }
            None => {}
        }
    }

    /// Whatever ends a transaction without committing it rolls it back, the end of the connection too.
    fn forget_transaction(&mut self) {
        if std::mem::take(&mut self.in_transaction) {
            self.statistics.transactions_rolled_back.increment();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.forget_transaction();
    }
}

impl Instrumentation for Observer {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        let command =
            |depth: u32, command| Some(if depth == 1 { command } else { Command::Nested });
        match event {
            InstrumentationEvent::StartQuery { query, .. } => self.started(&query),
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.tell_if_slow(&query);
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
            InstrumentationEvent::CacheQuery { .. } => self.prepared += 1,
            _ => {}
        }
    }
}

/// The text of a query without what diesel writes behind it: the values of its parameters.
fn text_of(query: &dyn std::fmt::Display) -> String {
    let mut text = query.to_string();
    if let Some(binds) = text.find(" -- binds: ") {
        text.truncate(binds);
    }
    text
}
