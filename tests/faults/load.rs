//! The load: sixteen threads that write and read alternately, and record the results.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use db_service::DbError;
use singleton_core::testing::Scope;

use crate::ledger::{self, Write};
use crate::seen::{Experience, Seen};

const THREADS: i64 = 16;

/// The maximum number of writes of a thread.
const NUMBERS: i64 = 1_000_000;

/// The maximum number of writes of a load.
pub(crate) const ALL_NUMBERS: i64 = THREADS * NUMBERS;

/// The running threads.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    healed: Mutex<Option<Instant>>,
    is_over: AtomicBool,
    panics: AtomicBool,
}

impl Load {
    /// Starts the threads in the current scope, and waits until they have begun. Their numbers begin at `first`.
    pub(crate) fn start(first: i64) -> anyhow::Result<Self> {
        let scope = Scope::current();
        let shared = Arc::new(Shared::default());
        let start = |thread: i64| {
            let worker = Worker {
                shared: Arc::clone(&shared),
                next: first + thread * NUMBERS,
                pending: None,
                last: None,
            };
            let thread = scope.spawn(move || worker.run());
            thread.context("a thread of the load")
        };
        let threads = (0..THREADS).map(start).collect::<Result<_, _>>()?;
        let load = Load { shared, threads };
        let is_under_way =
            |seen: &Seen| seen.numbers.acknowledged.len() > 500 && seen.reads.calls > 500;
        load.wait(is_under_way, "the load to begin")?;
        Ok(load)
    }

    /// Sets whether some of the transactions panic.
    pub(crate) fn let_panic(&self, panics: bool) {
        self.shared.panics.store(panics, Ordering::Relaxed);
    }

    /// Marks the end of the fault, and waits until writes and reads have succeeded several times.
    pub(crate) fn recover(&self) -> anyhow::Result<()> {
        *lock(&self.shared.healed) = Some(Instant::now());
        self.wait(Seen::has_recovered, "writes and reads to succeed again")?;
        let calls = lock(&self.shared.seen).calls();
        let goes_on = |seen: &Seen| seen.calls() > calls + 500;
        self.wait(goes_on, "the load to go on")
    }

    /// Ends each thread after its present call.
    pub(crate) fn stop(mut self) -> anyhow::Result<Seen> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for thread in std::mem::take(&mut self.threads) {
            ensure!(thread.join().is_ok(), "a thread of the load panicked");
        }
        Ok(std::mem::take(&mut lock(&self.shared.seen)))
    }

    fn wait(&self, is_so: impl Fn(&Seen) -> bool, what: &str) -> anyhow::Result<()> {
        const LIMIT: Duration = Duration::from_secs(30);
        let seen = lock(&self.shared.seen);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(seen, LIMIT, |seen| !is_so(seen));
        let (seen, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !timeout.timed_out(),
            "timed out after {LIMIT:?} waiting for {what}; writes: {:?}, reads: {:?}",
            seen.writes,
            seen.reads
        );
        Ok(())
    }
}

impl Drop for Load {
    /// Ends the threads after an error too.
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

/// One thread, which alternates writes and reads regardless of their results.
struct Worker {
    shared: Arc<Shared>,
    next: i64,
    /// The number whose write must be retried.
    pending: Option<i64>,
    /// The last number that was acknowledged.
    last: Option<i64>,
}

impl Worker {
    fn run(mut self) {
        while !self.shared.is_over.load(Ordering::Relaxed) {
            self.write();
            self.read();
        }
        if let Some(number) = self.pending {
            lock(&self.shared.seen).numbers.refused.push(number);
        }
    }

    fn write(&mut self) {
        let number = self.pending.take().unwrap_or_else(|| {
            self.next += 1;
            self.next
        });
        let how = match number % 10 {
            1 if self.shared.panics.load(Ordering::Relaxed) => Write::InTransactionThatPanics,
            odd if odd % 2 == 1 => Write::InTransaction,
            _ => Write::Alone,
        };
        let call = Call::make(|| ledger::write(number, how));
        let mut seen = lock(&self.shared.seen);
        self.shared.note(&mut seen.writes, &call);
        match call.result {
            Ok(Ok(())) => {
                self.last = Some(number);
                seen.numbers.acknowledged.push(number);
            }
            Ok(Err(error)) => {
                seen.writes.error(&error);
                match error {
                    error if error.is_retryable() => self.pending = Some(number),
                    error if is_unknown(&error, how) => seen.numbers.unknown.push(number),
                    _ => seen.numbers.refused.push(number),
                }
            }
            Err(_) => {
                seen.writes.panic();
                seen.numbers.refused.push(number);
            }
        }
    }

    fn read(&mut self) {
        let Some(number) = self.last else {
            return;
        };
        let call = Call::make(|| ledger::read(number));
        let mut seen = lock(&self.shared.seen);
        self.shared.note(&mut seen.reads, &call);
        match call.result {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => seen.missing += 1,
            Ok(Err(error)) => seen.reads.error(&error),
            Err(_) => seen.reads.panic(),
        }
    }
}

/// A measured call.
struct Call<T> {
    began: Instant,
    ended: Instant,
    /// The outer error is a panic that passed through the call.
    result: thread::Result<Result<T, DbError>>,
}

impl<T> Call<T> {
    fn make(call: impl FnOnce() -> Result<T, DbError>) -> Self {
        let began = Instant::now();
        let result = panic::catch_unwind(AssertUnwindSafe(call));
        Call {
            began,
            ended: Instant::now(),
            result,
        }
    }
}

impl Shared {
    fn note<T>(&self, experience: &mut Experience, call: &Call<T>) {
        experience.calls += 1;
        experience.longest = experience.longest.max(call.ended - call.began);
        if matches!(call.result, Ok(Ok(_)))
            && experience.recovery.is_none()
            && let Some(healed) = *lock(&self.healed)
        {
            experience.recovery = call.ended.checked_duration_since(healed);
        }
        self.changed.notify_all();
    }
}

/// Returns whether the outcome of a write is unknown. A transaction whose connection is lost before `COMMIT` was
/// certainly rolled back.
fn is_unknown(error: &DbError, how: Write) -> bool {
    match error {
        DbError::OutcomeUnknown(_) => true,
        DbError::ConnectionLost(_) | DbError::NoAnswer { .. } => how == Write::Alone,
        _ => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
