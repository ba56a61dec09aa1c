//! Watches what diesel does on a connection: counts, echoes, and sees transactions begun behind its back.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use diesel::connection::{Instrumentation, InstrumentationEvent};

use crate::backend::Backend;
use crate::scanner;
use crate::statistics::Statistics;

/// What the pool has to know of a connection when it comes back.
#[derive(Debug, Default)]
pub(crate) struct Traces {
    /// Whether a statement has begun a transaction that diesel knows nothing of.
    pub(crate) raw_transaction: AtomicBool,
}

/// How a statement of our own, whose text was scanned already, is to be taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    pub(crate) begins_transaction: bool,
    /// Whether it counts as a query of the user's.
    pub(crate) counts: bool,
}

thread_local! {
    static KNOWN: Cell<Option<Known>> = const { Cell::new(None) };
}

thread_local! {
    static FAILED: Cell<bool> = const { Cell::new(false) };
}

/// Forgets the failures that [`has_failed`] tells of.
pub(crate) fn forget_failures() {
    FAILED.set(false);
}

/// Tells whether a statement has failed on this thread, on whatever connection.
pub(crate) fn has_failed() -> bool {
    FAILED.get()
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
    statistics: Arc<Statistics>,
    traces: Arc<Traces>,
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
        echo: bool,
        statistics: Arc<Statistics>,
        traces: Arc<Traces>,
    ) -> Self {
        Observer {
            backend,
            echo,
            statistics,
            traces,
            command: None,
            in_transaction: false,
        }
    }

    fn started(&self, query: &dyn std::fmt::Display) {
        let known = KNOWN.get();
        if self.echo {
            log::info!("{}", text_of(query));
        }
        if self.command.is_some() {
            return;
        }
        let begins = match known {
            Some(known) => known.begins_transaction,
            None => scanner::begins_transaction(&text_of(query), self.backend),
        };
        if begins {
            self.traces.raw_transaction.store(true, Ordering::Relaxed);
        }
    }

    fn finished(&mut self, succeeded: bool) {
        if !succeeded {
            FAILED.set(true);
        }
        match self.command.take() {
            Some(Command::Begin) => {
                self.forget_transaction();
                self.in_transaction = succeeded;
            }
            Some(Command::Commit) if succeeded => {
                self.in_transaction = false;
                self.statistics.transactions_committed.increment();
            }
            Some(Command::RollBack) => self.forget_transaction(),
            Some(Command::Commit | Command::Nested) => {}
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
            InstrumentationEvent::FinishQuery { error, .. } => self.finished(error.is_none()),
            InstrumentationEvent::BeginTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::Begin);
            }
            InstrumentationEvent::CommitTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::Commit);
            }
            InstrumentationEvent::RollbackTransaction { depth, .. } => {
                self.command = command(depth.get(), Command::RollBack);
            }
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
