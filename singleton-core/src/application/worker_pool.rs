//! A bounded pool of threads for jobs with timeouts. A thread whose job times out is abandoned and replaced.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::panics::catch_panic;

type Job = Box<dyn FnOnce() + Send>;
type JobFn<R> = Box<dyn FnOnce() -> R + Send>;

/// The result of a job.
pub(crate) enum JobResult<R> {
    Done(R),
    /// The job panicked with this message.
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
    /// The stack size of the threads. A size beyond the address space makes each spawn fail.
    #[cfg(test)]
    stack_size: Option<usize>,
    result: Sender<(u64, Result<R, String>)>,
    results: Receiver<(u64, Result<R, String>)>,
}

impl<K, R: Send + 'static> WorkerPool<K, R> {
    /// Creates a pool of at most `threads` threads with that name, not counting abandoned ones. If the system cannot
    /// start a thread, the caller runs the jobs.
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
            #[cfg(test)]
            stack_size: None,
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
            if cfg!(loom) || !self.dispatch() {
                return self.run_on_caller();
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

    /// Passes pending jobs to threads. Returns whether a job is running.
    fn dispatch(&mut self) -> bool {
        while self.running.len() < self.threads {
            if self.pending.is_empty() {
                break;
            }
            if self.idle == 0 && self.spawn_worker().is_err() {
                break;
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
        !self.running.is_empty()
    }

    fn spawn_worker(&mut self) -> std::io::Result<()> {
        let queue = Arc::clone(&self.queue);
        let builder = thread::Builder::new().name(self.name.to_owned());
        #[cfg(test)]
        let builder = match self.stack_size {
            Some(size) => builder.stack_size(size),
            None => builder,
        };
        builder.spawn(move || {
            // Ends when the pool, which holds the sender, is dropped.
            while let Ok(job) = next_job(&queue) {
                job();
            }
        })?;
        self.idle += 1;
        Ok(())
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
    fn caller_runs_jobs_if_no_thread_can_be_spawned() {
        let mut pool = WorkerPool::new("pool", 3);
        pool.stack_size = Some(1 << 46);
        let caller = thread::current().id();
        pool.submit(1, LONG, move || thread::current().id() == caller);
        pool.submit(2, LONG, || panic!("out of order"));
        assert!(matches!(pool.next(), Some((1, _, JobResult::Done(true)))));
        assert!(matches!(pool.next(), Some((2, _, JobResult::Failed(_)))));
        assert!(pool.next().is_none());
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
