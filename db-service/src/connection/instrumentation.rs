//! diesel's events about the statements that the caller executes on the driver's connection itself.
//!
//! This crate accounts for all statements that go through [`Connection`](super::Connection), and ignores the events
//! about them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use diesel::connection::{Instrumentation, InstrumentationEvent};
use diesel::result::Error as DieselError;

use super::known_statements::KnownQuery;
use super::session::Session;
use crate::backend::Backend;
use crate::error::{Meaning, meaning, remember_names_of_statement, without_binds};
use crate::sql::SideEffects;
use crate::statistics::Call;

/// The statement that the caller executes on the driver's connection.
#[derive(Debug, Default)]
pub(crate) struct DirectStatement {
    running: Option<(Arc<KnownQuery>, Instant)>,
    /// The transaction command that diesel has announced and not yet sent.
    command: Option<Command>,
    /// Whether diesel's own lookup of a type runs, in the middle of the statement.
    is_lookup: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    Begin,
    Commit,
    RollBack,
    /// A command about a savepoint.
    Nested,
}

impl Session {
    fn direct_start(&mut self, query: &dyn std::fmt::Display) {
        let text = without_binds(query.to_string());
        // diesel looks a type up while it binds the values of a statement that it has announced.
        self.direct.is_lookup = self.is_waiting()
            && text.starts_with("SELECT \"pg_type\".\"oid\", \"pg_type\".\"typarray\" FROM");
        // An earlier statement may have failed without being sent.
        self.end_wait();
        self.await_answer();
        if self.direct.is_lookup {
            return;
        }
        if self.observed.echo {
            self.observed.echo(query);
        }
        let known = self.known_query(&text);
        if self.direct.command.is_none() {
            self.is_dirty |= known.facts.side_effects.session;
            self.is_unsure |= known.facts.side_effects.is_unsure;
        }
        self.direct.running = Some((known, Instant::now()));
    }

    fn direct_finish(&mut self, query: &dyn std::fmt::Display, error: Option<&DieselError>) {
        self.end_wait();
        if std::mem::take(&mut self.direct.is_lookup) {
            if error.is_none() {
                self.await_answer();
            }
            return;
        }
        let Some((known, started_at)) = self.direct.running.take() else {
            return;
        };
        let command = self.direct.command.take();
        let side_effects = match command {
            Some(_) => SideEffects::default(),
            None => known.facts.side_effects,
        };
        let (took, failed) = (started_at.elapsed(), error.is_some());
        self.note_transaction(side_effects, failed);
        if side_effects.end && self.transaction.levels > 0 {
            self.transaction.was_ended = true;
            self.transaction.must_ask = self.observed.backend == Backend::Sqlite;
        }
        self.note_direct(error);
        if let Some(error) = error {
            remember_names_of_statement(error, query);
            // Only a `BEGIN` that could not lock is a conflict. A lock timeout of another statement is the user's own
            // setting.
            self.transaction.has_conflicted |=
                command == Some(Command::Begin) && meaning(error) == Meaning::LockTimeout;
        }
        if command.is_none() && !self.is_internal() {
            let rows = 0;
            self.record(&known.entry, &known.text, Call { took, rows, failed });
        } else {
            self.observed.log_if_slow(&known.text, took);
        }
        match command {
            Some(Command::Begin) => {
                self.count_rollback();
                self.transaction.is_counted = !failed;
            }
            Some(Command::Commit) if !failed => self.count_commit(),
            // A failed COMMIT is a rollback, by the server or by diesel.
            Some(Command::RollBack | Command::Commit) => self.count_rollback(),
            Some(Command::Nested) => {}
            None if self.counts() => self.count_query(!failed),
            None => {}
        }
    }

    pub(super) fn count_commit(&mut self) {
        if std::mem::take(&mut self.transaction.is_counted) {
            self.observed.statistics.transactions_committed.increment();
        }
    }
}

impl Instrumentation for Session {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        if let InstrumentationEvent::CacheQuery { sql, .. } = &event {
            self.statements.prepared.add(sql);
        }
        if matches!(event, InstrumentationEvent::StartQuery { .. })
            && !self.observed.is_loading.load(Ordering::Relaxed)
        {
            self.note_forgotten_rows();
        }
        if !self.is_announced && !self.observed.is_reading.load(Ordering::Relaxed) {
            let command =
                |depth: u32, command| Some(if depth == 1 { command } else { Command::Nested });
            match &event {
                InstrumentationEvent::StartQuery { query, .. } => self.direct_start(query),
                InstrumentationEvent::FinishQuery { query, error, .. } => {
                    self.direct_finish(query, *error);
                }
                InstrumentationEvent::BeginTransaction { depth, .. } => {
                    self.direct.command = command(depth.get(), Command::Begin);
                }
                InstrumentationEvent::CommitTransaction { depth, .. } => {
                    self.direct.command = command(depth.get(), Command::Commit);
                }
                InstrumentationEvent::RollbackTransaction { depth, .. } => {
                    self.direct.command = command(depth.get(), Command::RollBack);
                }
                _ => {}
            }
        }
        if let Some(instrumentation) = &mut self.user_instrumentation {
            instrumentation.on_connection_event(event);
        }
    }
}
