//! A bounded set of threads whose jobs have time limits; who overruns is left behind and replaced.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::panics::contain;

type Job = Box<dyn FnOnce() + Send>;
type Work<R> = Box<dyn FnOnce() -> R + Send>;

/// What became of a job.
pub(crate) enum Ended<R> {
    Done(R),
    /// It panicked with this message, or there was no thread for it.
    Failed(String),
    /// Its time is over; it may still be running.
    Overran,
}

struct Running<K> {
    id: u64,
    key: K,
    began: Instant,
    limit: Duration,
}

/// Jobs that were submitted and have not ended, each known by its key.
pub(crate) struct Crew<K, R> {
    threads: usize,
    name: &'static str,
    pending: VecDeque<(K, Duration, Work<R>)>,
    running: Vec<Running<K>>,
    idle: usize,
    last_id: u64,
    jobs: Sender<Job>,
    queue: Arc<Mutex<Receiver<Job>>>,
    /// A thread of more than there is cannot be had.
    #[cfg(test)]
    stack_size: Option<usize>,
    result: Sender<(u64, Result<R, String>)>,
    results: Receiver<(u64, Result<R, String>)>,
}

impl<K, R: Send + 'static> Crew<K, R> {
    /// Makes one of at most so many threads of that name, those left behind not counted. Where no thread can
    /// be had the caller does the jobs.
    pub(crate) fn new(name: &'static str, threads: usize) -> Self {
        let (jobs, queue) = mpsc::channel();
        let (result, results) = mpsc::channel();
        Crew {
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

    /// Adds a job; its `limit` counts from when a thread begins it.
    pub(crate) fn submit(
        &mut self,
        key: K,
        limit: Duration,
        work: impl FnOnce() -> R + Send + 'static,
    ) {
        self.pending.push_back((key, limit, Box::new(work)));
    }

    /// Waits until a job ends or overruns; none if there is no job left.
    pub(crate) fn next(&mut self) -> Option<(K, Duration, Ended<R>)> {
        loop {
            // The model checker knows no threads but its own.
            if cfg!(loom) || !self.dispatch() {
                return self.work();
            }
            let earliest = self
                .running
                .iter()
                .map(|job| job.limit.saturating_sub(job.began.elapsed()))
                .min()?;
            match self.results.recv_timeout(earliest) {
                Ok((id, result)) => {
                    self.idle += 1;
                    let Some(position) = self.running.iter().position(|job| job.id == id) else {
                        continue;
                    };
                    let job = self.running.swap_remove(position);
                    let ended = result.map_or_else(Ended::Failed, Ended::Done);
                    return Some((job.key, job.began.elapsed(), ended));
                }
                Err(RecvTimeoutError::Timeout) => {
                    let overrun = |job: &Running<K>| job.began.elapsed() >= job.limit;
                    if let Some(position) = self.running.iter().position(overrun) {
                        let job = self.running.swap_remove(position);
                        return Some((job.key, job.began.elapsed(), Ended::Overran));
                    }
                }
                // Not while we hold a sender ourselves.
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Does the next job on the calling thread, however long it takes: it cannot be left behind.
    fn work(&mut self) -> Option<(K, Duration, Ended<R>)> {
        let (key, _, work) = self.pending.pop_front()?;
        let began = Instant::now();
        let ended = contain(work).map_or_else(Ended::Failed, Ended::Done);
        Some((key, began.elapsed(), ended))
    }

    /// Gives pending jobs to threads; tells whether any of the jobs has one.
    fn dispatch(&mut self) -> bool {
        while self.running.len() < self.threads {
            if self.pending.is_empty() {
                break;
            }
            if self.idle == 0 && self.hire().is_err() {
                break;
            }
            let Some((key, limit, work)) = self.pending.pop_front() else {
                break;
            };
            self.last_id += 1;
            self.idle -= 1;
            let (id, result) = (self.last_id, self.result.clone());
            // Neither end is closed before the other: we hold the queue, too.
            let _ = self.jobs.send(Box::new(move || {
                let _ = result.send((id, contain(work)));
            }));
            self.running.push(Running {
                id,
                key,
                began: Instant::now(),
                limit,
            });
        }
        !self.running.is_empty()
    }

    fn hire(&mut self) -> std::io::Result<()> {
        let queue = Arc::clone(&self.queue);
        let thread = thread::Builder::new().name(self.name.to_owned());
        #[cfg(test)]
        let thread = match self.stack_size {
            Some(size) => thread.stack_size(size),
            None => thread,
        };
        thread.spawn(move || {
            // Ends when the crew is dropped, and with it the sender.
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
    fn a_job_that_hangs_is_left_behind_and_its_thread_replaced() {
        let mut crew = Crew::new("crew", 1);
        let (release, hang) = mpsc::channel::<()>();
        crew.submit("hangs", Duration::from_millis(20), move || {
            let _ = hang.recv();
            0
        });
        crew.submit("works", LONG, || 1);
        crew.submit("panics", LONG, || panic!("out of order"));
        assert!(matches!(crew.next(), Some(("hangs", _, Ended::Overran))));
        assert!(matches!(crew.next(), Some(("works", _, Ended::Done(1)))));
        match crew.next() {
            Some(("panics", _, Ended::Failed(message))) => assert_eq!(message, "out of order"),
            _ => panic!("a panic is a result as well"),
        }
        assert!(crew.next().is_none());
        drop(release);
    }

    #[test]
    fn where_there_is_no_thread_the_caller_does_the_jobs() {
        let mut crew = Crew::new("crew", 3);
        crew.stack_size = Some(1 << 46);
        let caller = thread::current().id();
        crew.submit(1, LONG, move || thread::current().id() == caller);
        crew.submit(2, LONG, || panic!("out of order"));
        assert!(matches!(crew.next(), Some((1, _, Ended::Done(true)))));
        assert!(matches!(crew.next(), Some((2, _, Ended::Failed(_)))));
        assert!(crew.next().is_none());
    }

    #[test]
    fn so_many_jobs_run_at_once_and_no_more() {
        let mut crew = Crew::new("crew", 3);
        let together = Arc::new(Barrier::new(3));
        for _ in 0..6 {
            let together = Arc::clone(&together);
            // With fewer threads nobody would get past this.
            crew.submit((), LONG, move || together.wait().is_leader());
        }
        let mut leaders = 0;
        while let Some(((), _, Ended::Done(leader))) = crew.next() {
            leaders += usize::from(leader);
        }
        assert_eq!(leaders, 2);
        assert_eq!(crew.idle, 3, "three threads did it all");
    }
}
