//! Shutdown: each service shuts down after its dependents.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{
    self, Attempt, AttemptGuard, ContainerId, Context, Engine, Provided, Slot, StartRun,
    Supervision,
};
use crate::error::{Error, Reason};
use crate::init::finish;
use crate::invoke::{Driver, JobResult, WorkerPool, shut_down_instance};
use crate::panics::catch_panic;
use crate::service::{DEFAULT_SHUTDOWN_TIMEOUT, Descriptor, Instance};
use crate::sync::lock;
use crate::telemetry;
use crate::text_table::Table;

/// Options of [`shutdown_all_with`](crate::Registry::shutdown_all_with).
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
    /// Returns the default options. Each method states its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum time for each service, after which its dependencies shut down without waiting for it. Default:
    /// 10 s.
    ///
    /// `shutdown_timeout` in a service's `#[service(…)]` overrides it.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum number of services that shut down in parallel, not counting those that exceeded their timeout.
    /// Default: 16.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

/// The outcome of each service's shutdown, in the order in which they ended. Prints as a table.
#[derive(Debug, Clone, Default)]
pub struct ShutdownReport {
    services: Vec<ServiceShutdown>,
    took: Duration,
}

impl ShutdownReport {
    /// Returns the services that were ready or initializing.
    pub fn services(&self) -> &[ServiceShutdown] {
        &self.services
    }

    /// Returns the duration of the whole shutdown.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Returns whether all services shut down in time and without an error.
    pub fn is_clean(&self) -> bool {
        self.services
            .iter()
            .all(|service| service.outcome == ShutdownOutcome::Done)
    }
}

/// The outcome of one service's shutdown.
#[derive(Debug, Clone)]
pub struct ServiceShutdown {
    service: &'static Descriptor,
    outcome: ShutdownOutcome,
    took: Duration,
}

impl ServiceShutdown {
    /// Returns the name of the struct, with as many modules as it takes to tell services of one name apart.
    pub fn name(&self) -> &'static str {
        self.service.name()
    }

    /// Returns the name of the struct with its crate and modules.
    pub fn path(&self) -> &'static str {
        self.service.path
    }

    /// Returns the outcome.
    pub fn outcome(&self) -> &ShutdownOutcome {
        &self.outcome
    }

    /// Returns the duration of `shutdown`, the end of the background thread included. After a timeout, returns the time
    /// waited.
    pub fn took(&self) -> Duration {
        self.took
    }
}

/// The outcome of a service's shutdown.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShutdownOutcome {
    /// The service shut down in time and without an error.
    Done,
    /// `shutdown` returned an error or panicked, or no thread could be started for it, with this message.
    Failed(String),
    /// `shutdown` exceeded its timeout and may still be running.
    Overran,
    /// The service was still initializing after its timeout. If the initialization ends, the service is shut down then.
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

/// The services to shut down, and their state afterwards.
pub(crate) enum ShutdownScope<'a> {
    /// All services. They cannot start again.
    All,
    /// The services that a failed start has started, unless another service depends on them. Afterwards they are
    /// uninitialized and can start again.
    StartedBy(&'a Arc<StartRun>),
}

/// Shuts down a container, or the services that a failed start had initialized in it.
pub(crate) fn shut_down(
    context: &Context,
    scope: ShutdownScope<'_>,
    options: &ShutdownOptions,
    driver: &Driver,
) -> ShutdownReport {
    let started_at = Instant::now();
    let container = context.container;
    let mut shutdown = Shutdown {
        context,
        container,
        ended: VecDeque::new(),
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
    // Shutdowns run one after the other. A second one finds no service left, and returns after the first one.
    let _shutdown_lock = lock(&shutdown_lock);
    shutdown.run();
    if let Some(container_state) = engine::lock().container_mut(container) {
        container_state.remove_stopped();
    }
    shutdown.report.took = started_at.elapsed();
    shutdown.report
}

/// Returns whether a shutdown of the container has something to wait for.
pub(crate) fn has_something_to_shut_down(container: ContainerId) -> bool {
    let engine = engine::lock();
    let entries = engine
        .container(container)
        .into_iter()
        .flat_map(|container| container.entries());
    entries
        .into_iter()
        .any(|(service, entry)| match entry.slot {
            Slot::Idle | Slot::ShutDown => false,
            Slot::Ready(_) => entry.background.is_some() || !service.has_default_shutdown(),
            Slot::Initializing(_) | Slot::Stopping { .. } => true,
        })
}

struct Shutdown<'a> {
    context: &'a Context,
    container: ContainerId,
    /// Services without anything to shut down, which need no thread.
    ended: VecDeque<&'static Descriptor>,
    scope: ShutdownScope<'a>,
    options: &'a ShutdownOptions,
    driver: &'a Driver,
    pool: WorkerPool<Task, Result<(), String>>,
    report: ShutdownReport,
}

/// The message of the error or panic, if `shutdown` failed.
type ShutdownResult = JobResult<Result<(), String>>;

#[derive(Clone, Copy)]
enum Task {
    Stop(&'static Descriptor),
    /// Waits for an attempt that began before the shutdown.
    AwaitAttempt(&'static Descriptor),
}

/// A service whose shutdown has begun.
struct StoppingService {
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    background: Option<Arc<Supervision>>,
    /// Whether the instance is kept for the next start, because `main` provided it.
    is_kept: bool,
}

impl StoppingService {
    /// Returns whether there is nothing left to shut down.
    fn is_done(&self) -> bool {
        self.background.is_none() && (self.is_kept || self.service.has_default_shutdown())
    }
}

impl Shutdown<'_> {
    fn run(&mut self) {
        let attempts = match self.scope {
            ShutdownScope::All => in_flight(&engine::lock(), self.container),
            ShutdownScope::StartedBy(_) => Vec::new(),
        };
        for attempt in attempts {
            self.await_attempt(attempt);
        }
        self.stop_unused();
        loop {
            while let Some((task, took, result)) = self.next() {
                self.record(task, took, result);
            }
            // Services that depend on each other have no valid order: the last one to start is the first to stop.
            let Some(last) = self.take_last_started() else {
                break;
            };
            self.submit(last);
        }
    }

    /// Waits until a task has ended. Returns `None` if none is left.
    fn next(&mut self) -> Option<(Task, Duration, ShutdownResult)> {
        match self.ended.pop_front() {
            Some(service) => {
                let result = JobResult::Done(Ok(()));
                Some((Task::Stop(service), Duration::ZERO, result))
            }
            None => self.pool.next(),
        }
    }

    fn await_attempt(&mut self, attempt: Arc<Attempt>) {
        let (service, driver) = (attempt.service, self.driver.clone());
        let timeout = self.timeout(service);
        self.pool
            .submit(Task::AwaitAttempt(service), timeout, move || {
                if let Some(unpolled) = attempt.take_unpolled() {
                    // No task polls it, so no caller waits for it.
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

    fn record(&mut self, task: Task, took: Duration, result: ShutdownResult) {
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

    /// Removes the dependencies of a service that has stopped or timed out. Returns those without remaining dependents.
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
                    ShutdownScope::StartedBy(_),
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

    /// Begins the shutdown of all services without dependents.
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
        if matches!(self.scope, ShutdownScope::StartedBy(_)) {
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
        let container = engine.container_mut(self.container)?;
        let entry = container.get_mut(service);
        if let ShutdownScope::StartedBy(start) = &self.scope
            && !entry
                .start
                .as_ref()
                .is_some_and(|other| Arc::ptr_eq(start, other))
        {
            return None;
        }
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
            is_kept: provided && matches!(self.scope, ShutdownScope::StartedBy(_)),
        })
    }

    fn submit(&mut self, stopping: Option<StoppingService>) {
        let Some(stopping) = stopping else {
            return;
        };
        if stopping.is_done() {
            let _ = catch_panic(|| {
                telemetry::stopping(stopping.service);
                telemetry::stopped(stopping.service, Duration::ZERO, None);
            });
            self.ended.push_back(stopping.service);
            return;
        }
        let (context, driver) = (self.context.clone(), self.driver.clone());
        let timeout = self.timeout(stopping.service);
        self.pool
            .submit(Task::Stop(stopping.service), timeout, move || {
                let _context = context.enter();
                let container = context.container;
                let _mark_finished = MarkFinished(container, stopping.service);
                if let Some(background) = &stopping.background {
                    background.join();
                }
                if stopping.is_kept {
                    return Ok(());
                }
                shut_down_instance(container, stopping.service, stopping.instance, &driver)
            });
    }

    fn timeout(&self, service: &'static Descriptor) -> Duration {
        let engine = engine::lock();
        let container = engine.container(self.container);
        let policy = container.map_or(&service.policy, |container| container.policy(service));
        policy.shutdown_timeout.unwrap_or(self.options.timeout)
    }
}

/// Records the end of a service's shutdown when it is dropped, also after a timeout.
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
    Error::new(service.name(), Reason::ShutDown)
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
    // In the order of their begin, so that a repeated run is deterministic, as the model checker requires.
    attempts.sort_by_key(|attempt| attempt.id);
    attempts
}
