//! A bounded pool of threads for jobs with timeouts. A thread whose job times out is abandoned and replaced.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::panics::catch_panic;
use crate::threads;

/// The pause before a thread that the system has refused is requested again.
const THREAD_RETRY_PAUSE: Duration = Duration::from_millis(10);

type Job = Box<dyn FnOnce() + Send>;
type JobFn<R> = Box<dyn FnOnce() -> R + Send>;

/// The result of a job.
pub(crate) enum JobResult<R> {
    Done(R),
    /// The job panicked with this message, or did not run, because no thread could be started within its timeout.
    Failed(String),
    /// The job exceeded its timeout and may still be running.
    TimedOut,
}

struct RunningJob<K> {
    id: u64,
    key: K,
    started_at: Instant,
    timeout: Duration,
}

/// A pool of threads, and the jobs that have not ended, each with a key.
pub(crate) struct WorkerPool<K, R> {
    threads: usize,
    name: &'static str,
    pending: VecDeque<(K, Duration, JobFn<R>)>,
    running: Vec<RunningJob<K>>,
    idle: usize,
    last_id: u64,
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    result: Sender<(u64, Result<R, String>)>,
    results: Receiver<(u64, Result<R, String>)>,
}

impl<K, R: Send + 'static> WorkerPool<K, R> {
    /// Creates a pool of at most `threads` threads with that name, not counting abandoned ones.
    ///
    /// Jobs are user code without a limit of its own, so the caller never runs one. If the system refuses a thread and
    /// no other one is running, the pool asks again until the job's timeout has passed.
    pub(crate) fn new(name: &'static str, threads: usize) -> Self {
        let (jobs, queue) = mpsc::channel();
        let (result, results) = mpsc::channel();
        WorkerPool {
            threads: threads.max(1),
            name,
            pending: VecDeque::new(),
            running: Vec::new(),
            idle: 0,
            last_id: 0,
            jobs,
            queue: Arc::new(Mutex::new(queue)),
            result,
            results,
        }
    }

    /// Adds a job. Its timeout counts from the moment a thread begins it.
    pub(crate) fn submit(
        &mut self,
        key: K,
        timeout: Duration,
        work: impl FnOnce() -> R + Send + 'static,
    ) {
        self.pending.push_back((key, timeout, Box::new(work)));
    }

    /// Waits until a job ends or times out. Returns `None` if no job is left.
    pub(crate) fn next(&mut self) -> Option<(K, Duration, JobResult<R>)> {
        loop {
            // The model checker does not support other threads than its own.
            if cfg!(loom) {
                return self.run_on_caller();
            }
            if let Err(refused) = self.dispatch()
                && self.running.is_empty()
            {
                return self.give_up(&refused);
            }
            let earliest = self
                .running
                .iter()
                .map(|job| job.timeout.saturating_sub(job.started_at.elapsed()))
                .min()?;
            match self.results.recv_timeout(earliest) {
                Ok((id, result)) => {
                    self.idle += 1;
                    let Some(position) = self.running.iter().position(|job| job.id == id) else {
                        continue;
                    };
                    let job = self.running.swap_remove(position);
                    let outcome = result.map_or_else(JobResult::Failed, JobResult::Done);
                    return Some((job.key, job.started_at.elapsed(), outcome));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let timed_out = |job: &RunningJob<K>| job.started_at.elapsed() >= job.timeout;
                    if let Some(position) = self.running.iter().position(timed_out) {
                        let job = self.running.swap_remove(position);
                        return Some((job.key, job.started_at.elapsed(), JobResult::TimedOut));
                    }
                }
                // Unreachable: `self` holds a sender.
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Runs the next job on the calling thread, without a timeout.
    fn run_on_caller(&mut self) -> Option<(K, Duration, JobResult<R>)> {
        let (key, _, work) = self.pending.pop_front()?;
        let started_at = Instant::now();
        let outcome = catch_panic(work).map_or_else(JobResult::Failed, JobResult::Done);
        Some((key, started_at.elapsed(), outcome))
    }

    /// Removes the next job, for which there is no thread.
    fn give_up(&mut self, refused: &io::Error) -> Option<(K, Duration, JobResult<R>)> {
        let (key, timeout, _) = self.pending.pop_front()?;
        let message = format!("no thread to run it on: {refused}");
        Some((key, timeout, JobResult::Failed(message)))
    }

    /// Passes pending jobs to threads.
    ///
    /// # Errors
    ///
    /// Returns the system's error if a thread is needed and cannot be started. If no job is running, the system had
    /// refused it for as long as the next job's timeout.
    fn dispatch(&mut self) -> io::Result<()> {
        while self.running.len() < self.threads {
            if self.pending.is_empty() {
                break;
            }
            if self.idle == 0 {
                self.spawn_worker()?;
            }
            let Some((key, timeout, work)) = self.pending.pop_front() else {
                break;
            };
            self.last_id += 1;
            self.idle -= 1;
            let (id, result) = (self.last_id, self.result.clone());
            // Cannot fail: `self` holds the receiver too.
            let _ = self.jobs.send(Box::new(move || {
                let _ = result.send((id, catch_panic(work)));
            }));
            self.running.push(RunningJob {
                id,
                key,
                started_at: Instant::now(),
                timeout,
            });
        }
        Ok(())
    }

    fn spawn_worker(&mut self) -> io::Result<()> {
        let started_at = Instant::now();
        let timeout = self
            .pending
            .front()
            .map_or(Duration::ZERO, |(_, timeout, _)| *timeout);
        loop {
            let queue = Arc::clone(&self.queue);
            let spawned = threads::spawn(self.name, move || {
                // Ends when the pool, which holds the sender, is dropped.
                while let Ok(job) = next_job(&queue) {
                    job();
                }
            });
            match spawned {
                Ok(_) => {
                    self.idle += 1;
                    return Ok(());
                }
                // The running jobs free their threads.
                Err(error) if !self.running.is_empty() => return Err(error),
                Err(error) => {
                    let remaining = timeout.saturating_sub(started_at.elapsed());
                    if remaining.is_zero() {
                        return Err(error);
                    }
                    // The system has no signal for a free thread.
                    thread::sleep(remaining.min(THREAD_RETRY_PAUSE));
                }
            }
        }
    }
}

fn next_job(queue: &Mutex<Receiver<Job>>) -> Result<Job, mpsc::RecvError> {
    let queue = queue
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    queue.recv()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn job_that_hangs_times_out_and_its_thread_is_replaced() {
        let mut pool = WorkerPool::new("pool", 1);
        let (release, blocked) = mpsc::channel::<()>();
        pool.submit("hangs", Duration::from_millis(20), move || {
            let _ = blocked.recv();
            0
        });
        pool.submit("works", LONG, || 1);
        pool.submit("panics", LONG, || panic!("out of order"));
        assert!(matches!(
            pool.next(),
            Some(("hangs", _, JobResult::TimedOut))
        ));
        assert!(matches!(
            pool.next(),
            Some(("works", _, JobResult::Done(1)))
        ));
        match pool.next() {
            Some(("panics", _, JobResult::Failed(message))) => assert_eq!(message, "out of order"),
            _ => panic!("a panic is a result too"),
        }
        assert!(pool.next().is_none());
        drop(release);
    }

    #[test]
    fn job_without_a_thread_fails_after_its_timeout_and_never_runs_on_the_caller() {
        let mut pool = WorkerPool::new("pool", 3);
        let ran = Arc::new(AtomicBool::new(false));
        let job_ran = Arc::clone(&ran);
        pool.submit(1, Duration::from_millis(30), move || {
            job_ran.store(true, Ordering::Relaxed);
        });
        let started_at = Instant::now();
        let result = threads::faults::with(Arc::new(|_: &str| true), || pool.next());
        match result {
            Some((1, _, JobResult::Failed(message))) => {
                assert!(message.starts_with("no thread to run it on: "), "{message}");
            }
            _ => panic!("the job cannot run"),
        }
        assert!(started_at.elapsed() >= Duration::from_millis(30));
        assert!(pool.next().is_none());
        assert!(!ran.load(Ordering::Relaxed));
    }

    #[test]
    fn job_runs_as_soon_as_the_system_has_a_thread_again() {
        let mut pool = WorkerPool::new("pool", 3);
        let caller = thread::current().id();
        for key in 1..=2 {
            pool.submit(key, LONG, move || thread::current().id() == caller);
        }
        let refused = AtomicUsize::new(0);
        // Later threads are refused too, and the first one runs both jobs.
        let refuse = move |_: &str| refused.fetch_add(1, Ordering::Relaxed) != 3;
        threads::faults::with(Arc::new(refuse), || {
            assert!(matches!(pool.next(), Some((1, _, JobResult::Done(false)))));
            assert!(matches!(pool.next(), Some((2, _, JobResult::Done(false)))));
            assert!(pool.next().is_none());
        });
    }

    #[test]
    fn pool_runs_at_most_the_given_number_of_jobs_at_once() {
        let mut pool = WorkerPool::new("pool", 3);
        let barrier = Arc::new(Barrier::new(3));
        for _ in 0..6 {
            let barrier = Arc::clone(&barrier);
            // With fewer threads, no job would pass the barrier.
            pool.submit((), LONG, move || barrier.wait().is_leader());
        }
        let mut leaders = 0;
        while let Some(((), _, JobResult::Done(leader))) = pool.next() {
            leaders += usize::from(leader);
        }
        assert_eq!(leaders, 2);
        assert_eq!(pool.idle, 3, "three threads ran all jobs");
    }
}
