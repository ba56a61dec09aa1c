//! The end: every service is shut down once nobody holds on to it any more.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker_pool::{JobResult, WorkerPool};
use crate::engine::{
    self, Attempt, AttemptGuard, ContainerId, Engine, Provided, Slot, Supervision,
};
use crate::error::Error;
use crate::init::finish;
use crate::invoke::{Driver, shut_down_instance};
use crate::panics::catch_panic;
use crate::service::{DEFAULT_SHUTDOWN_TIMEOUT, Descriptor, Instance};
use crate::sync::lock;
use crate::telemetry;
use crate::text_table::Table;

/// How [`shutdown_all_with`](crate::Registry::shutdown_all_with) goes about it.
#[derive(Debug, Clone)]
#[must_use]
pub struct ShutdownOptions {
    timeout: Duration,
    threads: usize,
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        ShutdownOptions {
            timeout: DEFAULT_SHUTDOWN_TIMEOUT,
            threads: 16,
        }
    }
}

impl ShutdownOptions {
    /// The defaults, which each of the methods states.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long each service may take before the others go on without it; 10 seconds.
    ///
    /// `shutdown_timeout` of a `#[service(…)]` comes first.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many services are shut down at once, those that overran not counted; 16.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

/// What became of each service at shutdown, in the order in which they ended; prints as a table.
#[derive(Debug, Clone, Default)]
pub struct ShutdownReport {
    services: Vec<ServiceShutdown>,
    took: Duration,
}

impl ShutdownReport {
    /// The services that were ready or initialising.
    pub fn services(&self) -> &[ServiceShutdown] {
        &self.services
    }

    /// How long it took together.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Tells whether every service ended in time and without an error.
    pub fn is_clean(&self) -> bool {
        self.services
            .iter()
            .all(|service| service.outcome == ShutdownOutcome::Done)
    }
}

/// What became of one service at shutdown.
#[derive(Debug, Clone)]
pub struct ServiceShutdown {
    service: &'static Descriptor,
    outcome: ShutdownOutcome,
    took: Duration,
}

impl ServiceShutdown {
    /// The name of the struct.
    pub fn name(&self) -> &'static str {
        self.service.name
    }

    /// How it ended.
    pub fn outcome(&self) -> &ShutdownOutcome {
        &self.outcome
    }

    /// How long its `shutdown` took, the end of its thread included; if it overran, how long it was waited for.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// How a service ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownOutcome {
    /// In time and without an error.
    Done,
    /// `shutdown` returned an error or panicked.
    Failed(String),
    /// Its time was over; it may still be at it.
    Overran,
    /// It was still initialising when its time was over; if that ends after all, it is shut down then.
    StillInitializing,
}

impl fmt::Display for ShutdownOutcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShutdownOutcome::Done => formatter.write_str("done"),
            ShutdownOutcome::Failed(message) => write!(formatter, "failed: {message}"),
            ShutdownOutcome::Overran => formatter.write_str("overran"),
            ShutdownOutcome::StillInitializing => formatter.write_str("still initializing"),
        }
    }
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["service", "took", "outcome"]);
        for service in &self.services {
            table.row([
                service.name().to_owned(),
                format!("{:.1?}", service.took),
                service.outcome.to_string(),
            ]);
        }
        writeln!(formatter, "{table}shut down in {:.1?}", self.took)
    }
}

/// Which services end, and as what they are known afterwards.
pub(crate) enum ShutdownScope<'a> {
    /// All of them, for good.
    All,
    /// These, as far as no other service holds on to them; afterwards they are as if nobody had asked for them.
    Only(&'a HashSet<&'static Descriptor>),
}

/// Shuts down a container, or what a start that failed had started in it.
pub(crate) fn shut_down(
    container: ContainerId,
    scope: ShutdownScope<'_>,
    options: &ShutdownOptions,
    driver: &Driver,
) -> ShutdownReport {
    let started_at = Instant::now();
    let mut shutdown = Shutdown {
        container,
        scope,
        options,
        driver,
        pool: WorkerPool::new("shutdown", options.threads),
        report: ShutdownReport::default(),
    };
    let shutdown_lock = {
        let mut engine = engine::lock();
        let Some(container_state) = engine.container_mut(container) else {
            return shutdown.report;
        };
        if matches!(shutdown.scope, ShutdownScope::All) {
            container_state.closing.request();
            container_state.link_provided();
        }
        Arc::clone(&container_state.shutdown_lock)
    };
    // One after the other: who comes second finds nothing left, and returns when there is nothing.
    let _shutdown_lock = lock(&shutdown_lock);
    shutdown.run();
    if let Some(container_state) = engine::lock().container_mut(container) {
        container_state.remove_stopped();
    }
    shutdown.report.took = started_at.elapsed();
    shutdown.report
}

struct Shutdown<'a> {
    container: ContainerId,
    scope: ShutdownScope<'a>,
    options: &'a ShutdownOptions,
    driver: &'a Driver,
    pool: WorkerPool<Task, Result<(), String>>,
    report: ShutdownReport,
}

#[derive(Clone, Copy)]
enum Task {
    Stop(&'static Descriptor),
    /// Waits until an attempt has ended that had begun before.
    AwaitAttempt(&'static Descriptor),
}

/// A service that was taken out of its container to be shut down.
struct StoppingService {
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    background: Option<Arc<Supervision>>,
    /// Whether it is used again: a value from `main`, which a start that failed gives back as it is.
    is_kept: bool,
}

impl Shutdown<'_> {
    fn run(&mut self) {
        let attempts = match self.scope {
            ShutdownScope::All => in_flight(&engine::lock(), self.container),
            ShutdownScope::Only(_) => Vec::new(),
        };
        for attempt in attempts {
            self.await_attempt(attempt);
        }
        self.stop_unused();
        loop {
            while let Some((task, took, result)) = self.pool.next() {
                self.record(task, took, result);
            }
            // Services that hold on to each other, which no order can satisfy: the last to start goes first.
            let Some(last) = self.take_last_started() else {
                break;
            };
            self.submit(last);
        }
    }

    fn await_attempt(&mut self, attempt: Arc<Attempt>) {
        let (service, driver) = (attempt.service, self.driver.clone());
        let timeout = self.timeout(service);
        self.pool
            .submit(Task::AwaitAttempt(service), timeout, move || {
                if let Some(unpolled) = attempt.take_unpolled() {
                    // Nobody carries it on, so nobody wants it.
                    let _ = catch_panic(|| {
                        let _attempt = AttemptGuard::enter(&attempt);
                        drop(unpolled);
                    });
                    finish(&attempt, Err(shut_down_error(service)));
                } else if let Some(future) = attempt.future() {
                    driver.block_on(future);
                } else {
                    attempt.wait_until(None);
                }
                Ok(())
            });
    }

    fn record(&mut self, task: Task, took: Duration, result: JobResult<Result<(), String>>) {
        let (service, was_initializing) = match task {
            Task::Stop(service) => (service, false),
            Task::AwaitAttempt(service) => (service, true),
        };
        let outcome = match result {
            JobResult::Done(Ok(())) if was_initializing => return self.stop_unused(),
            JobResult::Done(Ok(())) => ShutdownOutcome::Done,
            JobResult::Done(Err(message)) | JobResult::Failed(message) => {
                ShutdownOutcome::Failed(message)
            }
            JobResult::TimedOut if was_initializing => ShutdownOutcome::StillInitializing,
            JobResult::TimedOut => {
                let timeout = self.timeout(service);
                let _ = catch_panic(|| telemetry::shutdown_timed_out(service, timeout));
                ShutdownOutcome::Overran
            }
        };
        let timed_out = matches!(outcome, ShutdownOutcome::Overran);
        self.report.services.push(ServiceShutdown {
            service,
            outcome,
            took,
        });
        let released = self.finish_stopping(service, timed_out);
        for service in released {
            let stopping = self.begin_stopping(&mut engine::lock(), service, false);
            self.submit(stopping);
        }
    }

    /// Lets the service that has stopped, or has overrun, hold on to nothing any more; gives whom nobody holds on to now.
    fn finish_stopping(
        &self,
        service: &'static Descriptor,
        timed_out: bool,
    ) -> Vec<&'static Descriptor> {
        let (restarted, released) = {
            let mut engine = engine::lock();
            let Some(container) = engine.container_mut(self.container) else {
                return Vec::new();
            };
            let entry = container.get_mut(service);
            entry.background = None;
            let mut restarted = None;
            match (&self.scope, &entry.slot) {
                (
                    ShutdownScope::Only(_),
                    Slot::Stopping {
                        attempt,
                        instance,
                        finished,
                    },
                ) => {
                    let attempt = Arc::clone(attempt);
                    let can_restart = *finished || !timed_out;
                    let outcome = if can_restart {
                        Ok(*instance)
                    } else {
                        Err(shut_down_error(service))
                    };
                    attempt.set_outcome(&outcome);
                    if can_restart {
                        entry.slot = Slot::Idle;
                    }
                    restarted = Some(attempt);
                }
                _ => entry.slot = Slot::ShutDown,
            }
            (restarted, container.release_dependencies(service))
        };
        if let Some(attempt) = restarted {
            attempt.wake_tasks();
        }
        released
    }

    /// Takes whatever nobody holds on to.
    fn stop_unused(&mut self) {
        let stopping: Vec<_> = {
            let mut engine = engine::lock();
            let started = engine
                .container(self.container)
                .map(|container| container.started.clone());
            let newest_first = started.into_iter().flatten().rev();
            newest_first
                .filter_map(|service| self.begin_stopping(&mut engine, service, false))
                .collect()
        };
        for stopping in stopping {
            self.submit(Some(stopping));
        }
    }

    fn take_last_started(&self) -> Option<Option<StoppingService>> {
        if matches!(self.scope, ShutdownScope::Only(_)) {
            return None;
        }
        let mut engine = engine::lock();
        let started = engine.container(self.container)?.started.clone();
        let mut newest_first = started.into_iter().rev();
        newest_first.find_map(|service| self.begin_stopping(&mut engine, service, true).map(Some))
    }

    fn begin_stopping(
        &self,
        engine: &mut Engine,
        service: &'static Descriptor,
        even_if_used: bool,
    ) -> Option<StoppingService> {
        if matches!(self.scope, ShutdownScope::Only(only) if !only.contains(service)) {
            return None;
        }
        let container = engine.container_mut(self.container)?;
        let entry = container.get_mut(service);
        let Slot::Ready(instance) = entry.slot else {
            return None;
        };
        if entry.dependents > 0 && !even_if_used {
            return None;
        }
        let background = entry.background.clone();
        let provided = matches!(entry.provided, Some(Provided::Instance(_)));
        engine.begin_shutdown(self.container, service, instance);
        Some(StoppingService {
            service,
            instance,
            background,
            is_kept: provided && matches!(self.scope, ShutdownScope::Only(_)),
        })
    }

    fn submit(&mut self, stopping: Option<StoppingService>) {
        let Some(stopping) = stopping else {
            return;
        };
        let (container, driver) = (self.container, self.driver.clone());
        let timeout = self.timeout(stopping.service);
        self.pool
            .submit(Task::Stop(stopping.service), timeout, move || {
                let _container = engine::enter(container);
                let _mark_finished = MarkFinished(container, stopping.service);
                if let Some(background) = &stopping.background {
                    background.join();
                }
                if stopping.is_kept {
                    return Ok(());
                }
                shut_down_instance(stopping.service, stopping.instance, &driver)
            });
    }

    fn timeout(&self, service: &Descriptor) -> Duration {
        let service_timeout = service.policy.shutdown_timeout;
        service_timeout.unwrap_or(self.options.timeout)
    }
}

/// Notes that the work of stopping a service is over, also if it overran.
struct MarkFinished(ContainerId, &'static Descriptor);

impl Drop for MarkFinished {
    fn drop(&mut self) {
        let mut engine = engine::lock();
        let Some(container) = engine.container_mut(self.0) else {
            return;
        };
        let entry = container.get_mut(self.1);
        if let Slot::Stopping {
            attempt, finished, ..
        } = &mut entry.slot
        {
            *finished = true;
            if attempt.outcome.get().is_some() {
                entry.slot = Slot::Idle;
            }
        }
    }
}

fn shut_down_error(service: &Descriptor) -> Error {
    Error::ShutDown {
        service: service.name,
    }
}

fn in_flight(engine: &Engine, container: ContainerId) -> Vec<Arc<Attempt>> {
    let entries = engine
        .container(container)
        .into_iter()
        .flat_map(|container| container.entries());
    let mut attempts: Vec<_> = entries
        .filter_map(|(_, entry)| match &entry.slot {
            Slot::Initializing(attempt) => Some(Arc::clone(attempt)),
            _ => None,
        })
        .collect();
    // The first to begin comes first: whoever repeats a run, as the model checker does, gets the same one.
    attempts.sort_by_key(|attempt| attempt.id);
    attempts
}
