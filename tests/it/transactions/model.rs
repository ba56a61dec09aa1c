//! Random programs of statements and transactions, compared with a model of what the database must store.
//!
//! A program runs on one connection and in the model at the same time. Each step must succeed on the connection exactly
//! if it does in the model. After each outermost transaction, and at the end, another connection must see the model's
//! rows, and the next caller of the pool must get a connection without an open transaction.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `FUZZ_INPUTS` | the number of programs per backend | 600 |
//! | `FUZZ_SEED` | the seed of the programs | a fixed one |

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};

use db_service::{Connection, DatabaseService, DbError, TransactionOptions, params};
use diesel::connection::{SimpleConnection, TransactionManager};
use diesel::prelude::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestError, TestRunner};
use singleton_core::ServiceContext;
use tests::TestDatabase;

use super::commit_and_rollback::{INSERT, create_table, n, numbers};

on_both_backends!(
    random_programs_store_what_the_model_stores,
    batch_that_fails_after_its_begin_leaves_no_transaction,
    rollback_past_the_savepoint_of_a_nested_closure_fails_all_of_the_transaction,
    failure_that_ends_the_transaction_is_known_in_all_levels,
);

diesel::table! {
    t (n) {
        n -> Integer,
    }
}

type Manager = <Connection as diesel::Connection>::TransactionManager;

/// A step of a program.
#[derive(Debug, Clone)]
enum Step {
    /// One command. If it fails and `propagates`, the closure returns the error.
    Run {
        call: Call,
        command: Command,
        propagates: bool,
    },
    Batch {
        commands: Vec<Command>,
        propagates: bool,
    },
    /// A text on the driver's connection, which executes also a `COMMIT` inside a closure.
    Driver { commands: Vec<Command> },
    /// `execute_many` with two rows.
    Many { fails: bool, propagates: bool },
    Transaction {
        via: Via,
        steps: Vec<Step>,
        end: End,
        propagates: bool,
        /// Whether the level above catches a panic.
        catches: bool,
    },
    /// Returns the connection to the pool and checks it out again. Only outside closures.
    Return,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    ExecuteQuery,
    Diesel,
    BatchExecute,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Command {
    /// Inserts a fresh number.
    Insert,
    Duplicate,
    SyntaxError,
    DivisionByZero,
    /// `INSERT OR ROLLBACK` of a duplicate.
    OrRollback,
    Begin,
    Commit,
    CommitAndChain,
    Rollback,
    Prepare,
    Savepoint(char),
    RollbackTo(char),
    Release(char),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Via {
    Own,
    Trait,
    Options,
    /// `begin_transaction`, and `commit_transaction` or `rollback_transaction`.
    Manager,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    Ok,
    Err,
    Panic,
}

/// A planned panic.
struct Planned;

/// The database and the connection, as they must behave.
struct Model {
    is_postgres: bool,
    committed: BTreeSet<i64>,
    open: Option<Open>,
    /// The number of closures.
    levels: u32,
    /// Whether the transaction has ended before its closure.
    has_ended: bool,
    /// Whether the driver's connection has executed a text with a `COMMIT` or `ROLLBACK` inside a closure.
    was_ended_directly: bool,
    /// Whether a rollback to a savepoint was impossible, so that the connection was given up.
    is_lost: bool,
    /// Whether the connection may be lost or not. It depends on whether diesel has noticed that the transaction failed.
    is_unsure: bool,
    next: i64,
    commits: u64,
    rollbacks: u64,
}

/// An open transaction.
#[derive(Debug, Clone)]
struct Open {
    rows: BTreeSet<i64>,
    savepoints: Vec<(String, BTreeSet<i64>)>,
    is_aborted: bool,
    /// Whether it ends with the text (PostgreSQL) or with its first savepoint (SQLite).
    is_implicit: bool,
}

impl Command {
    fn text(self, next: &mut i64) -> String {
        match self {
            Command::Insert => {
                *next += 1;
                format!("INSERT INTO t VALUES ({next})")
            }
            Command::Duplicate => "INSERT INTO t VALUES (0)".to_owned(),
            Command::SyntaxError => "SELEC 1".to_owned(),
            Command::DivisionByZero => "SELECT 1 / 0".to_owned(),
            Command::OrRollback => "INSERT OR ROLLBACK INTO t VALUES (0)".to_owned(),
            Command::Begin => "BEGIN".to_owned(),
            Command::Commit => "COMMIT".to_owned(),
            Command::CommitAndChain => "COMMIT AND CHAIN".to_owned(),
            Command::Rollback => "ROLLBACK".to_owned(),
            Command::Prepare => "PREPARE TRANSACTION 'x'".to_owned(),
            Command::Savepoint(name) => format!("SAVEPOINT {name}"),
            Command::RollbackTo(name) => format!("ROLLBACK TO {name}"),
            Command::Release(name) => format!("RELEASE {name}"),
        }
    }

    fn ends_transaction(self) -> bool {
        matches!(
            self,
            Command::Commit | Command::CommitAndChain | Command::Rollback | Command::Prepare
        )
    }
}

impl Open {
    fn new(rows: &BTreeSet<i64>, is_implicit: bool) -> Self {
        Open {
            rows: rows.clone(),
            savepoints: Vec::new(),
            is_aborted: false,
            is_implicit,
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.savepoints.iter().rposition(|(other, _)| other == name)
    }
}

impl Model {
    /// Executes a text in the database. Returns whether it succeeds. `first` is the first number that it inserts.
    fn execute(&mut self, commands: &[Command], first: i64) -> bool {
        let mut number = first;
        let is_valid =
            |command: &Command| !matches!(command, Command::SyntaxError | Command::OrRollback);
        if self.is_postgres {
            // The server parses the whole text before it executes the first statement.
            if !commands.iter().all(is_valid) {
                return self.fail_on_postgres();
            }
            for &command in commands {
                // A text without a transaction is one.
                let committed = &self.committed;
                self.open.get_or_insert_with(|| Open::new(committed, true));
                if !self.on_postgres(command, &mut number) {
                    return self.fail_on_postgres();
                }
            }
            if self.open.as_ref().is_some_and(|open| open.is_implicit) {
                self.commit();
            }
            return true;
        }
        commands
            .iter()
            .all(|&command| self.on_sqlite(command, &mut number))
    }

    fn fail_on_postgres(&mut self) -> bool {
        match &mut self.open {
            Some(open) if !open.is_implicit => open.is_aborted = true,
            _ => self.open = None,
        }
        false
    }

    fn commit(&mut self) {
        if let Some(open) = self.open.take() {
            self.committed = open.rows;
        }
    }

    fn on_postgres(&mut self, command: Command, number: &mut i64) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        match command {
            Command::Commit | Command::Rollback => {
                if open.is_aborted || command == Command::Rollback {
                    self.open = None;
                } else {
                    self.commit();
                }
                return true;
            }
            Command::CommitAndChain if !open.is_implicit => {
                if open.is_aborted {
                    self.open = None;
                } else {
                    self.commit();
                }
                self.open = Some(Open::new(&self.committed, false));
                return true;
            }
            Command::RollbackTo(name) if !open.is_implicit => {
                return open.roll_back_to(&name.to_string());
            }
            _ if open.is_aborted => return false,
            _ => {}
        }
        match command {
            Command::Insert => {
                *number += 1;
                open.rows.insert(*number)
            }
            Command::Begin => {
                open.is_implicit = false;
                true
            }
            Command::Savepoint(name) if !open.is_implicit => {
                open.savepoints.push((name.to_string(), open.rows.clone()));
                true
            }
            Command::Release(name) if !open.is_implicit => open.release(&name.to_string()),
            _ => false,
        }
    }

    fn on_sqlite(&mut self, command: Command, number: &mut i64) -> bool {
        match (command, &mut self.open) {
            (Command::Insert, open) => {
                *number += 1;
                match open {
                    Some(open) => open.rows.insert(*number),
                    None => self.committed.insert(*number),
                }
            }
            (Command::OrRollback, open) => {
                *open = None;
                false
            }
            (Command::Begin, open @ None) => {
                *open = Some(Open::new(&self.committed, false));
                true
            }
            (Command::Commit, Some(_)) => {
                self.commit();
                true
            }
            (Command::Rollback, open @ Some(_)) => {
                *open = None;
                true
            }
            (Command::Savepoint(name), open) => {
                let open = open.get_or_insert_with(|| Open::new(&self.committed, true));
                open.savepoints.push((name.to_string(), open.rows.clone()));
                true
            }
            (Command::RollbackTo(name), Some(open)) => open.roll_back_to(&name.to_string()),
            (Command::Release(name), Some(open)) => {
                let released = open.release(&name.to_string());
                if released && open.is_implicit && open.savepoints.is_empty() {
                    self.commit();
                }
                released
            }
            _ => false,
        }
    }

    /// Executes a text of the user on the connection.
    fn run(&mut self, commands: &[Command], first: i64) -> Expected {
        if self.is_lost {
            return Expected::Err;
        }
        if self.levels > 0 {
            if self.was_ended_directly {
                return Expected::Refused;
            }
            if self.has_ended {
                return Expected::Aborted;
            }
            if commands.iter().any(|command| command.ends_transaction()) {
                return Expected::Ends;
            }
        }
        let was_aborted = self.is_aborted();
        let succeeded = self.execute(commands, first);
        self.has_ended |= self.levels > 0 && self.open.is_none();
        match succeeded {
            true => Expected::Ok,
            // A rollback to a missing savepoint, or a second failure after a rollback in the same text.
            false if self.levels > 0 && was_aborted && commands.len() == 1 => Expected::Aborted,
            false => Expected::Err,
        }
    }

    /// Executes a text on the driver's connection.
    fn run_on_driver(&mut self, commands: &[Command], first: i64) -> bool {
        let succeeded = self.execute(commands, first);
        let has_end = commands.iter().any(|command| command.ends_transaction());
        self.was_ended_directly |= self.levels > 0 && has_end;
        self.has_ended |= self.levels > 0 && (has_end || self.open.is_none());
        succeeded
    }

    fn is_aborted(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_aborted)
    }

    fn many(&mut self, fails: bool, first: i64) -> Expected {
        let was_aborted = self.levels > 0 && (self.has_ended || self.is_aborted());
        if self.was_ended_directly {
            return Expected::Refused;
        }
        if !self.begin(Via::Own) {
            return match was_aborted && !self.is_lost {
                true => Expected::Aborted,
                false => Expected::Err,
            };
        }
        let second = match fails {
            true => Command::Duplicate,
            false => Command::Insert,
        };
        let inserted = self.execute(&[Command::Insert, second], first);
        match inserted {
            true => match self.end_ok() {
                true => Expected::Ok,
                false => Expected::Err,
            },
            false => {
                self.end_err();
                Expected::Err
            }
        }
    }

    /// Returns whether a transaction begins.
    fn begin(&mut self, via: Via) -> bool {
        if self.is_lost || self.has_ended {
            return false;
        }
        if self.levels == 0 {
            if self.open.is_some() {
                return false;
            }
            self.open = Some(Open::new(&self.committed, false));
        } else {
            let name = self.savepoint();
            match &mut self.open {
                Some(open) if !open.is_aborted && via != Via::Options => {
                    open.savepoints.push((name, open.rows.clone()));
                }
                _ => return false,
            }
        }
        self.levels += 1;
        true
    }

    /// Returns the name of the savepoint that the next level creates.
    fn savepoint(&self) -> String {
        format!("diesel_savepoint_{}", self.levels)
    }

    /// Ends a closure that returned `Ok`. Returns whether the transaction succeeds.
    fn end_ok(&mut self) -> bool {
        if self.is_lost || self.has_ended {
            self.end_err();
            return false;
        }
        if self.levels == 1 {
            if self.is_aborted() {
                self.end_err();
                return false;
            }
            self.levels = 0;
            self.commits += 1;
            self.commit();
            return true;
        }
        if self.is_aborted() {
            self.end_err();
            return false;
        }
        self.levels -= 1;
        let name = self.savepoint();
        let is_postgres = self.is_postgres;
        let Some(open) = &mut self.open else {
            return false;
        };
        if open.release(&name) {
            return true;
        }
        if is_postgres {
            open.is_aborted = true;
        } else {
            self.is_lost = true;
            self.open = None;
        }
        false
    }

    /// Ends a closure that did not return `Ok`.
    fn end_err(&mut self) {
        self.levels -= 1;
        if self.levels == 0 {
            self.open = None;
            self.has_ended = false;
            self.was_ended_directly = false;
            self.rollbacks += 1;
            return;
        }
        if self.is_lost {
            return;
        }
        let name = self.savepoint();
        if let Some(open) = &mut self.open
            && !open.roll_back_to(&name)
        {
            if open.is_aborted {
                self.is_unsure = true;
            }
            self.is_lost = true;
            self.open = None;
        }
    }

    fn return_connection(&mut self) {
        self.open = None;
        self.is_lost = false;
    }
}

impl Open {
    fn roll_back_to(&mut self, name: &str) -> bool {
        let Some(position) = self.position(name) else {
            return false;
        };
        self.savepoints.truncate(position + 1);
        self.rows = self.savepoints[position].1.clone();
        self.is_aborted = false;
        true
    }

    fn release(&mut self, name: &str) -> bool {
        let Some(position) = self.position(name) else {
            return false;
        };
        self.savepoints.truncate(position);
        true
    }
}

/// The expected result of a statement.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    Ok,
    /// An error of the server, or a lost connection.
    Err,
    /// [`DbError::EndsTransaction`]
    Ends,
    /// [`DbError::TransactionAborted`]
    Aborted,
    /// Any error, without an effect.
    Refused,
}

impl Expected {
    fn is(self, result: &Result<(), DbError>) -> bool {
        match result {
            Ok(()) => self == Expected::Ok,
            Err(_) if self == Expected::Refused => true,
            Err(DbError::EndsTransaction) => self == Expected::Ends,
            Err(DbError::TransactionAborted { .. }) => self == Expected::Aborted,
            Err(_) => self == Expected::Err,
        }
    }
}

/// A running program.
struct Run<'a> {
    model: Model,
    observer: &'a ServiceContext,
    mismatches: Vec<String>,
}

impl Run<'_> {
    fn compare(&mut self, what: &dyn std::fmt::Debug, is_equal: bool, details: String) {
        if !is_equal && !self.model.is_unsure {
            self.mismatches.push(format!("{what:?}: {details}"));
        }
    }

    fn compare_rows(&mut self) {
        let stored: BTreeSet<i64> = self.observer.sync_scope(numbers).into_iter().collect();
        let expected = &self.model.committed;
        let details = format!("stored {stored:?}, expected {expected:?}");
        let is_equal = stored == *expected;
        self.compare(&"the stored rows", is_equal, details);
    }

    /// Runs steps until one of them fails and propagates its error.
    fn steps(&mut self, connection: &mut Connection, steps: &[Step]) -> Result<(), DbError> {
        for step in steps {
            let (result, propagates) = match step {
                Step::Run {
                    call,
                    command,
                    propagates,
                } => (self.run(connection, *call, *command), *propagates),
                Step::Batch {
                    commands,
                    propagates,
                } => (self.batch(connection, commands), *propagates),
                Step::Driver { commands } => {
                    self.driver(connection, commands);
                    (Ok(()), false)
                }
                Step::Many { fails, propagates } => (self.many(connection, *fails), *propagates),
                Step::Transaction {
                    propagates,
                    catches,
                    ..
                } => {
                    let run = || self.transaction(connection, step);
                    let result = match panic::catch_unwind(AssertUnwindSafe(run)) {
                        Ok(result) => result,
                        Err(payload) if *catches && payload.is::<Planned>() => Ok(()),
                        Err(payload) => panic::resume_unwind(payload),
                    };
                    (result, *propagates)
                }
                Step::Return => (Ok(()), false),
            };
            if propagates {
                result?;
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        connection: &mut Connection,
        call: Call,
        command: Command,
    ) -> Result<(), DbError> {
        let first = self.model.next;
        let text = command.text(&mut self.model.next);
        let expected = self.model.run(&[command], first);
        let result = match call {
            Call::ExecuteQuery => connection.execute_query(&text, params! {}).map(drop),
            Call::BatchExecute => connection.batch_execute(&text).map_err(DbError::from),
            Call::Diesel if command == Command::Insert => diesel::insert_into(t::table)
                .values(t::n.eq(first as i32 + 1))
                .execute(connection)
                .map(drop)
                .map_err(DbError::from),
            Call::Diesel => diesel::sql_query(&text)
                .execute(connection)
                .map(drop)
                .map_err(DbError::from),
        };
        let details = format!("{result:?}, expected {expected:?}");
        self.compare(&(call, command), expected.is(&result), details);
        result
    }

    fn batch(&mut self, connection: &mut Connection, commands: &[Command]) -> Result<(), DbError> {
        let first = self.model.next;
        let texts: Vec<String> = commands
            .iter()
            .map(|command| command.text(&mut self.model.next))
            .collect();
        let expected = self.model.run(commands, first);
        let result = connection
            .batch_execute(&texts.join("; "))
            .map_err(DbError::from);
        let details = format!("{result:?}, expected {expected:?}");
        // A text that leaves a failed transaction and fails again returns either error.
        let is_equal = expected.is(&result)
            || expected == Expected::Err
                && matches!(result, Err(DbError::TransactionAborted { .. }));
        self.compare(&commands, is_equal, details);
        result
    }

    fn driver(&mut self, connection: &mut Connection, commands: &[Command]) {
        // After its end, nothing protects the closure from statements on the driver's connection.
        if self.model.has_ended || self.model.is_lost || self.model.is_unsure {
            return;
        }
        let first = self.model.next;
        let texts: Vec<String> = commands
            .iter()
            .map(|command| command.text(&mut self.model.next))
            .collect();
        let expected = self.model.run_on_driver(commands, first);
        let text = texts.join("; ");
        let result = match connection {
            Connection::Postgres(inner) => inner.batch_execute(&text),
            Connection::Sqlite(inner) => inner.batch_execute(&text),
        };
        let details = format!("{result:?}, expected success: {expected}");
        self.compare(&("driver", commands), result.is_ok() == expected, details);
    }

    fn many(&mut self, connection: &mut Connection, fails: bool) -> Result<(), DbError> {
        let first = self.model.next;
        self.model.next += 2;
        let expected = self.model.many(fails, first);
        let second = if fails { 0 } else { first as i32 + 2 };
        let rows = [n(first as i32 + 1), n(second)];
        let result = connection.execute_many(INSERT, &rows).map(drop);
        let details = format!("{result:?}, expected {expected:?}");
        self.compare(&"execute_many", expected.is(&result), details);
        result
    }

    fn transaction(&mut self, connection: &mut Connection, step: &Step) -> Result<(), DbError> {
        let Step::Transaction {
            via, steps, end, ..
        } = step
        else {
            return Ok(());
        };
        let begins = self.model.begin(*via);
        let mut outcome = None;
        let mut work = |connection: &mut Connection| {
            if !begins {
                outcome = Some(End::Ok);
                return Err(DbError::NoRow);
            }
            // Steps that panic leave this.
            outcome = Some(End::Panic);
            let result = self.steps(connection, steps);
            outcome = Some(if result.is_ok() { *end } else { End::Err });
            result?;
            match end {
                End::Ok => Ok(()),
                End::Err => Err(DbError::NoRow),
                End::Panic => panic::resume_unwind(Box::new(Planned)),
            }
        };
        let result = panic::catch_unwind(AssertUnwindSafe(|| match via {
            Via::Own => connection.transaction(&mut work),
            Via::Trait => diesel::Connection::transaction(connection, &mut work),
            Via::Options => connection.transaction_with(&TransactionOptions::default(), &mut work),
            Via::Manager => {
                <Manager as TransactionManager<Connection>>::begin_transaction(connection)?;
                match panic::catch_unwind(AssertUnwindSafe(|| work(connection))) {
                    Ok(Ok(())) => Ok(
                        <Manager as TransactionManager<Connection>>::commit_transaction(
                            connection,
                        )?,
                    ),
                    Ok(Err(error)) => {
                        let _ = <Manager as TransactionManager<Connection>>::rollback_transaction(
                            connection,
                        );
                        Err(error)
                    }
                    Err(payload) => {
                        let _ = <Manager as TransactionManager<Connection>>::rollback_transaction(
                            connection,
                        );
                        panic::resume_unwind(payload)
                    }
                }
            }
        }));
        let expected = match (begins, outcome) {
            (true, Some(End::Ok)) => match self.model.end_ok() {
                true => End::Ok,
                false => End::Err,
            },
            (true, Some(other)) => {
                self.model.end_err();
                other
            }
            (true, None) => {
                self.mismatches.push(format!("{via:?} did not begin"));
                return Ok(());
            }
            (false, _) => End::Err,
        };
        let found = match &result {
            Ok(Ok(())) => End::Ok,
            Ok(Err(_)) => End::Err,
            Err(_) => End::Panic,
        };
        let error = result.as_ref().ok().map(|result| format!("{result:?}"));
        let has_run = outcome.is_some();
        let details =
            format!("a transaction ended with {found:?} ({error:?}), expected {expected:?}");
        self.compare(via, found == expected && has_run == begins, details);
        if self.model.levels == 0 {
            self.compare_rows();
        }
        result.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }
}

/// Runs a program. Returns the differences from the model.
fn differences(is_postgres: bool, observer: &ServiceContext, program: &[Step]) -> Vec<String> {
    let status = || DatabaseService::get_pool_status().unwrap();
    let before = status();
    let mut run = Run {
        model: Model {
            is_postgres,
            committed: BTreeSet::from([0]),
            open: None,
            levels: 0,
            has_ended: false,
            was_ended_directly: false,
            is_lost: false,
            is_unsure: false,
            next: 0,
            commits: 0,
            rollbacks: 0,
        },
        observer,
        mismatches: Vec::new(),
    };
    for part in program.split(|step| matches!(step, Step::Return)) {
        let mut connection = DatabaseService::connection().unwrap();
        for step in part {
            let one = std::slice::from_ref(step);
            let result = panic::catch_unwind(AssertUnwindSafe(|| run.steps(&mut connection, one)));
            if let Err(payload) = result
                && !payload.is::<Planned>()
            {
                panic::resume_unwind(payload);
            }
        }
        drop(connection);
        run.model.return_connection();
        run.compare_rows();
    }
    // In an open transaction, this row would not be committed.
    DatabaseService::execute_query(INSERT, n(1_000_000)).unwrap();
    run.model.committed.insert(1_000_000);
    run.compare_rows();
    let after = status();
    let found = (
        after.transactions_committed - before.transactions_committed,
        after.transactions_rolled_back - before.transactions_rolled_back,
    );
    let expected = (run.model.commits, run.model.rollbacks);
    let details = format!("{found:?}, expected {expected:?}");
    run.compare(&"the counted ends", found == expected, details);
    DatabaseService::execute_query("DELETE FROM t WHERE n > 0", params! {}).unwrap();
    run.mismatches
}

/// Runs `test` in a scope whose pool has one connection, with a scope of another pool.
fn with_observer(database: &TestDatabase, test: impl FnOnce(bool, &ServiceContext)) {
    database.scope().run(|| {
        let observer = ServiceContext::current();
        let scope = database.scope_with(|config| (config.pool_size, config.max_overflow) = (1, 0));
        scope.run(|| {
            DatabaseService::execute_query("DROP TABLE IF EXISTS t", params! {}).unwrap();
            create_table();
            DatabaseService::execute_query(INSERT, n(0)).unwrap();
            test(database.url().starts_with("postgres"), &observer);
        });
    });
}

fn command(is_postgres: bool, is_nested: bool) -> BoxedStrategy<Command> {
    let name = || prop_oneof![Just('a'), Just('b')];
    let own = match is_postgres {
        true => prop_oneof![Just(Command::DivisionByZero), Just(Command::CommitAndChain)].boxed(),
        false => Just(Command::OrRollback).boxed(),
    };
    // Outside a transaction, `PREPARE TRANSACTION` depends on the server's settings.
    let prepare = match is_nested {
        true => Command::Prepare,
        false => Command::Insert,
    };
    prop_oneof![
        8 => Just(Command::Insert),
        2 => Just(Command::Duplicate),
        1 => Just(Command::SyntaxError),
        2 => own,
        2 => Just(Command::Begin),
        2 => Just(Command::Commit),
        1 => Just(Command::Rollback),
        1 => Just(prepare),
        2 => name().prop_map(Command::Savepoint),
        2 => name().prop_map(Command::RollbackTo),
        1 => name().prop_map(Command::Release),
    ]
    .boxed()
}

fn plain_step(is_postgres: bool, is_nested: bool) -> BoxedStrategy<Step> {
    let call = prop_oneof![
        Just(Call::ExecuteQuery),
        Just(Call::Diesel),
        Just(Call::BatchExecute)
    ];
    let propagates = || prop::bool::weighted(0.25);
    let run = (call, command(is_postgres, is_nested), propagates()).prop_map(
        |(call, command, propagates)| Step::Run {
            call,
            command,
            propagates,
        },
    );
    let batch = (vec(command(is_postgres, is_nested), 1..4), propagates()).prop_map(
        |(commands, propagates)| Step::Batch {
            commands,
            propagates,
        },
    );
    let many = (any::<bool>(), propagates())
        .prop_map(|(fails, propagates)| Step::Many { fails, propagates });
    // The outcome of `PREPARE TRANSACTION` depends on the server's settings.
    let driver =
        vec(command(is_postgres, false), 1..4).prop_map(|commands| Step::Driver { commands });
    prop_oneof![6 => run, 3 => batch, 1 => many, 1 => driver].boxed()
}

fn transaction(steps: BoxedStrategy<Step>) -> impl Strategy<Value = Step> {
    let via = prop_oneof![
        3 => Just(Via::Own),
        2 => Just(Via::Trait),
        1 => Just(Via::Options),
        2 => Just(Via::Manager)
    ];
    let end = prop_oneof![4 => Just(End::Ok), 2 => Just(End::Err), 1 => Just(End::Panic)];
    (
        via,
        vec(steps, 0..6),
        end,
        prop::bool::weighted(0.25),
        any::<bool>(),
    )
        .prop_map(|(via, steps, end, propagates, catches)| Step::Transaction {
            via,
            steps,
            end,
            propagates,
            catches,
        })
}

fn programs(is_postgres: bool) -> impl Strategy<Value = Vec<Step>> {
    let nested =
        plain_step(is_postgres, true).prop_recursive(3, 24, 6, |steps| transaction(steps).boxed());
    let step = prop_oneof![
        3 => plain_step(is_postgres, false),
        4 => transaction(nested.boxed()),
        1 => Just(Step::Return),
    ];
    vec(step, 1..8)
}

fn random_programs_store_what_the_model_stores(database: &TestDatabase) {
    let number = |name| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().unwrap())
    };
    let config = ProptestConfig {
        cases: number("FUZZ_INPUTS").unwrap_or(600) as u32,
        rng_seed: RngSeed::Fixed(number("FUZZ_SEED").unwrap_or(20_261_128)),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    with_observer(database, |is_postgres, observer| {
        let result = TestRunner::new(config).run(&programs(is_postgres), |program| {
            let mismatches = differences(is_postgres, observer, &program);
            prop_assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
            Ok(())
        });
        match result {
            Ok(()) => {}
            Err(TestError::Fail(reason, program)) => panic!("{reason}\nof {program:#?}"),
            Err(error) => panic!("{error}"),
        }
    });
}

/// Asserts that a program that once failed runs as in the model.
#[track_caller]
fn assert_as_in_the_model(database: &TestDatabase, program: &[Step]) {
    with_observer(database, |is_postgres, observer| {
        let mismatches = differences(is_postgres, observer, program);
        assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    });
}

fn batch(commands: &[Command]) -> Step {
    Step::Batch {
        commands: commands.to_vec(),
        propagates: false,
    }
}

fn run(command: Command) -> Step {
    Step::Run {
        call: Call::ExecuteQuery,
        command,
        propagates: false,
    }
}

fn ok(via: Via, steps: Vec<Step>) -> Step {
    Step::Transaction {
        via,
        steps,
        end: End::Ok,
        propagates: false,
        catches: false,
    }
}

fn batch_that_fails_after_its_begin_leaves_no_transaction(database: &TestDatabase) {
    assert_as_in_the_model(
        database,
        &[batch(&[
            Command::Begin,
            Command::Duplicate,
            Command::Commit,
        ])],
    );
}

fn rollback_past_the_savepoint_of_a_nested_closure_fails_all_of_the_transaction(
    database: &TestDatabase,
) {
    for via in [Via::Own, Via::Manager] {
        let innermost = ok(via, vec![run(Command::RollbackTo('a'))]);
        let inner = [
            run(Command::Savepoint('a')),
            innermost,
            run(Command::Insert),
        ];
        let outer = vec![
            run(Command::Insert),
            ok(via, inner.into()),
            run(Command::Insert),
        ];
        assert_as_in_the_model(database, &[ok(via, outer)]);
    }
}

fn failure_that_ends_the_transaction_is_known_in_all_levels(database: &TestDatabase) {
    let end = match database.url().starts_with("postgres") {
        true => Command::DivisionByZero,
        false => Command::OrRollback,
    };
    let innermost = ok(Via::Manager, vec![run(end)]);
    let outer = vec![ok(Via::Own, vec![innermost]), run(Command::Insert)];
    assert_as_in_the_model(database, &[ok(Via::Own, outer)]);
}
