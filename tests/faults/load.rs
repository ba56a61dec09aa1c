//! The load: sixteen threads that write and read alternately, and record the results.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use db_service::DbError;
use singleton_core::ServiceContext;

use crate::number_table::{self, Queries, WriteMethod};
use crate::observations::{CallStatistics, Observations};

const THREADS: i64 = 16;

/// The size of each thread's range of numbers.
const NUMBERS_PER_THREAD: i64 = 1_000_000;

/// The size of a load's range of numbers.
pub(crate) const NUMBERS_PER_LOAD: i64 = THREADS * NUMBERS_PER_THREAD;

/// A running load. Dropping it asks the threads to end, and does not wait for them.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    observations: Mutex<Observations>,
    changed: Condvar,
    fault_ended: Mutex<Option<Instant>>,
    is_stopped: AtomicBool,
    panics: AtomicBool,
}

impl Load {
    /// Starts the threads in the current scope, and waits until more than 500 writes and 500 reads have succeeded.
    ///
    /// The threads write numbers of the range that begins at `first` and has [`NUMBERS_PER_LOAD`] numbers.
    pub(crate) fn start(first: i64, queries: Queries) -> anyhow::Result<Self> {
        let scope = ServiceContext::current();
        let shared = Arc::new(Shared::default());
        let start = |thread: i64| {
            let worker = Worker {
                shared: Arc::clone(&shared),
                next: first + thread * NUMBERS_PER_THREAD,
                queries,
                to_repeat: None,
                last_acknowledged: None,
            };
            let thread = thread::Builder::new().spawn(scope.wrap(move || worker.run()));
            thread.context("could not start a thread of the load")
        };
        let threads = (0..THREADS).map(start).collect::<Result<_, _>>()?;
        let load = Load { shared, threads };
        let is_running = |observations: &Observations| {
            observations.numbers.acknowledged.len() > 500 && observations.reads.calls > 500
        };
        load.wait_until(is_running, "the load to start")?;
        Ok(load)
    }

    /// Sets whether one in ten writes panics inside its transaction. The initial value is false.
    pub(crate) fn set_panics(&self, panics: bool) {
        self.shared.panics.store(panics, Ordering::Relaxed);
    }

    /// Records that the fault ends now, and waits until a write and a read have succeeded and 500 more calls have
    /// ended.
    pub(crate) fn recover(&self) -> anyhow::Result<()> {
        *lock(&self.shared.fault_ended) = Some(Instant::now());
        self.wait_until(
            Observations::has_recovered,
            "writes and reads to succeed again",
        )?;
        let calls = lock(&self.shared.observations).calls();
        let continues = |observations: &Observations| observations.calls() > calls + 500;
        self.wait_until(continues, "the load to continue")
    }

    /// Ends each thread after its current call, and returns the results of all calls.
    pub(crate) fn stop(mut self) -> anyhow::Result<Observations> {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            ensure!(thread.join().is_ok(), "a thread of the load panicked");
        }
        Ok(std::mem::take(&mut lock(&self.shared.observations)))
    }

    fn wait_until(
        &self,
        condition: impl Fn(&Observations) -> bool,
        what: &str,
    ) -> anyhow::Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(30);
        let observations = lock(&self.shared.observations);
        let result =
            self.shared
                .changed
                .wait_timeout_while(observations, TIMEOUT, |observations| {
                    !condition(observations)
                });
        let (observations, timeout) = result.unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !timeout.timed_out(),
            "timed out after {TIMEOUT:?} waiting for {what}; writes: {:?}, reads: {:?}",
            observations.writes,
            observations.reads
        );
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// One thread of the load.
struct Worker {
    shared: Arc<Shared>,
    next: i64,
    queries: Queries,
    /// The number whose write failed with a retryable error.
    to_repeat: Option<i64>,
    last_acknowledged: Option<i64>,
}

impl Worker {
    fn run(mut self) {
        while !self.shared.is_stopped.load(Ordering::Relaxed) {
            self.write();
            self.read();
        }
        if let Some(number) = self.to_repeat {
            lock(&self.shared.observations).numbers.failed.push(number);
        }
    }

    fn write(&mut self) {
        let number = self.to_repeat.take().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let method = match number % 10 {
            1 if self.shared.panics.load(Ordering::Relaxed) => WriteMethod::PanickingTransaction,
            odd if odd % 2 == 1 => WriteMethod::Transaction,
            _ => WriteMethod::Statement,
        };
        let queries = self.queries;
        let call = Call::run(|| number_table::write(number, method, queries));
        let mut observations = lock(&self.shared.observations);
        self.shared.record(&mut observations.writes, &call);
        match call.result {
            Ok(Ok(())) => {
                self.last_acknowledged = Some(number);
                observations.numbers.acknowledged.push(number);
            }
            Ok(Err(error)) => {
                observations.writes.add_error(&error);
                match error {
                    error if error.is_retryable() => self.to_repeat = Some(number),
                    error if is_outcome_unknown(&error, method) => {
                        observations.numbers.unknown.push(number);
                    }
                    _ => observations.numbers.failed.push(number),
                }
            }
            Err(_) => {
                observations.writes.add_panic();
                observations.numbers.failed.push(number);
            }
        }
    }

    fn read(&mut self) {
        let Some(number) = self.last_acknowledged else {
            return;
        };
        let queries = self.queries;
        let call = Call::run(|| number_table::contains(number, queries));
        let mut observations = lock(&self.shared.observations);
        self.shared.record(&mut observations.reads, &call);
        match call.result {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => observations.missing += 1,
            Ok(Err(error)) => observations.reads.add_error(&error),
            Err(_) => observations.reads.add_panic(),
        }
    }
}

/// A finished call, measured from outside.
struct Call<T> {
    started: Instant,
    ended: Instant,
    /// The outer `Err` is a panic that has unwound through the call.
    result: thread::Result<Result<T, DbError>>,
}

impl<T> Call<T> {
    fn run(call: impl FnOnce() -> Result<T, DbError>) -> Self {
        let started = Instant::now();
        let result = panic::catch_unwind(AssertUnwindSafe(call));
        Call {
            started,
            ended: Instant::now(),
            result,
        }
    }
}

impl Shared {
    fn record<T>(&self, statistics: &mut CallStatistics, call: &Call<T>) {
        statistics.calls += 1;
        statistics.longest = statistics.longest.max(call.ended - call.started);
        if matches!(call.result, Ok(Ok(_)))
            && statistics.recovery.is_none()
            && let Some(fault_ended) = *lock(&self.fault_ended)
        {
            statistics.recovery = call.ended.checked_duration_since(fault_ended);
        }
        self.changed.notify_all();
    }
}

/// Returns whether a failed write may have been done. The server rolls back a transaction whose connection is lost
/// before its `COMMIT`, so its outcome is known.
fn is_outcome_unknown(error: &DbError, method: WriteMethod) -> bool {
    match error {
        DbError::OutcomeUnknown(_) => true,
        DbError::ConnectionLost(_) | DbError::NoAnswer { .. } => method == WriteMethod::Statement,
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
