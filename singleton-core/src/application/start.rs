//! Start: many services in parallel, each as soon as its dependencies are ready.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::shutdown::{ShutdownOptions, ShutdownReport, ShutdownScope, shut_down};
use super::start_report::{ServiceStart, StartError, StartOutcome, StartReport};
use crate::engine::{
    self, Attempt, Container, Context, Origin, Outcome, ServiceMap, Slot, StartRun, current_attempt,
};
use crate::error::{Error, Reason};
use crate::init::{get_or_init, get_or_init_async, record_cycle};
use crate::invoke::{Driver, ensure_setup, step_panicked};
use crate::panics::catch_panic;
use crate::service::{Descriptor, Retry};
use crate::threads;

/// The time between two looks at the progress of a start: at first a few times the cost of a service that does nothing.
const MIN_WATCH_TIME: Duration = Duration::from_micros(50);
/// The maximum of that time, which doubles while the start makes progress.
const MAX_WATCH_TIME: Duration = Duration::from_millis(1);

/// Options of [`start_all_with`](crate::Registry::start_all_with).
#[derive(Debug, Clone)]
#[must_use]
pub struct StartOptions {
    threads: usize,
}

impl Default for StartOptions {
    fn default() -> Self {
        StartOptions { threads: 8 }
    }
}

impl StartOptions {
    /// Returns the default options. Each method states its default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the maximum number of services that initialize in parallel, the calling thread's one included. Default: 8.
    ///
    /// Most services wait for other systems while they start, so more threads than cores make sense.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}

/// Starts the services and their dependencies. If one fails, shuts down the services that this call has started.
pub(crate) fn start(
    context: &Context,
    services: Vec<&'static Descriptor>,
    options: &StartOptions,
    driver: &Driver,
) -> Result<StartReport, StartError> {
    let started_at = Instant::now();
    // First of all, because the `#[setup]` function may bind services to trait objects.
    let setup = ensure_setup(services.first().copied()).err();
    let run = Arc::new(StartRun::new(context.clone(), take_back_late));
    let start = Arc::new(Start {
        run: Arc::clone(&run),
        dependent: current_attempt(),
        plan: Mutex::new(Plan::new(context, services)),
        caller: Condvar::new(),
        monitor: Condvar::new(),
        threads: options.threads,
        driver: driver.clone(),
    });
    if setup.is_none() {
        start.run_on_caller();
    }
    let report = {
        let mut plan = start.lock();
        if !plan.is_success() {
            let is_part = |attempt: &Attempt| plan.has_begun(attempt);
            engine::lock().fail_start(&run, is_part);
        }
        plan.report(started_at)
    };
    if setup.is_none() && report.is_success() {
        return Ok(report);
    }
    let taken_back = take_back(&run, driver);
    Err(StartError::new(report, setup, taken_back))
}

fn take_back(run: &Arc<StartRun>, driver: &Driver) -> ShutdownReport {
    shut_down(
        &run.context,
        ShutdownScope::StartedBy(run),
        &ShutdownOptions::default(),
        driver,
    )
}

/// Shuts down what a failed start could not take back, because one of its attempts was still running.
fn take_back_late(run: &Arc<StartRun>) {
    take_back(run, &Driver::Here);
}

/// A start, shared by its threads.
///
/// The calling thread initializes services one after the other. A monitor adds a worker when no service has finished
/// for a while although others could begin: a second thread would only slow down services that take no time. A worker
/// ends when no service can begin, so the start does not wait for idle threads.
struct Start {
    run: Arc<StartRun>,
    /// The attempt that the start is part of, if an `initialize` starts services.
    dependent: Option<Arc<Attempt>>,
    plan: Mutex<Plan>,
    /// Notified when the caller should continue: a service can begin, or all have finished.
    caller: Condvar,
    /// Notified when the monitor should look at the plan: a service can begin, or all have finished.
    monitor: Condvar,
    threads: usize,
    driver: Driver,
}

impl Start {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the calling thread until all services have finished.
    fn run_on_caller(self: &Arc<Self>) {
        loop {
            self.run_worker();
            let mut plan = self.lock();
            plan.is_caller_idle = true;
            while plan.is_caller_idle && plan.remaining > 0 {
                plan = self
                    .caller
                    .wait(plan)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            plan.is_caller_idle = false;
            if plan.remaining == 0 {
                return;
            }
        }
    }

    /// Initializes services until none can begin.
    fn run_worker(self: &Arc<Self>) {
        while let Some((position, next)) = self.begin_next() {
            let service = next.service;
            let started_at = next.is_timed.then(Instant::now);
            let result = catch_panic(|| self.get_or_init(service, next.retry))
                .unwrap_or_else(|message| Err(step_panicked(service, message)));
            let timing = started_at.map(|started_at| (started_at, started_at.elapsed()));
            self.finish(position, result, timing);
        }
    }

    /// Begins the next service, if one can begin.
    fn begin_next(self: &Arc<Self>) -> Option<(usize, Next)> {
        let mut plan = self.lock();
        if self.driver.is_gone() {
            plan.cancel();
            self.notify(&plan);
        }
        // The monitor may have started a thread too many before the last one began.
        if plan.running >= self.threads {
            return None;
        }
        let position = plan.begin_next()?;
        let node = &plan.nodes[position];
        let next = Next {
            service: node.service,
            is_timed: node.is_timed,
            retry: node.retry,
        };
        if !plan.ready.is_empty() && !plan.is_monitored && self.threads > 1 {
            plan.is_monitored = true;
            drop(plan);
            self.spawn_monitor();
        }
        Some((position, next))
    }

    fn finish(&self, position: usize, result: Outcome, timing: Option<(Instant, Duration)>) {
        let mut plan = self.lock();
        let node = &mut plan.nodes[position];
        let outcome = match result {
            Ok(_) if node.was_ready => StartOutcome::AlreadyReady,
            Ok(_) => StartOutcome::Started,
            Err(error) => StartOutcome::Failed(error),
        };
        node.timing = timing;
        plan.running -= 1;
        plan.finished += 1;
        plan.finish(position, outcome);
        self.notify(&plan);
    }

    /// Wakes the caller at the end, and the monitor if it waits for a service that can begin.
    fn notify(&self, plan: &Plan) {
        if plan.remaining == 0 {
            self.caller.notify_one();
        }
        if plan.is_monitor_idle && (plan.remaining == 0 || !plan.ready.is_empty()) {
            self.monitor.notify_one();
        }
    }

    /// Adds a worker whenever no service has finished for some time although others could begin.
    fn watch(self: &Arc<Self>) {
        let mut plan = self.lock();
        let mut watch_time = MIN_WATCH_TIME;
        while plan.remaining > 0 {
            if plan.ready.is_empty() {
                plan.is_monitor_idle = true;
                plan = self
                    .monitor
                    .wait(plan)
                    .unwrap_or_else(PoisonError::into_inner);
                plan.is_monitor_idle = false;
                continue;
            }
            let finished = plan.finished;
            let waited = self.monitor.wait_timeout(plan, watch_time);
            plan = waited.unwrap_or_else(PoisonError::into_inner).0;
            let is_stalled = plan.finished == finished && !plan.ready.is_empty();
            watch_time = if is_stalled {
                plan = self.add_worker(plan);
                MIN_WATCH_TIME
            } else {
                (2 * watch_time).min(MAX_WATCH_TIME)
            };
        }
    }

    /// Wakes the caller if it is idle, and otherwise starts a thread, up to the maximum.
    fn add_worker<'a>(self: &'a Arc<Self>, mut plan: MutexGuard<'a, Plan>) -> MutexGuard<'a, Plan> {
        if plan.is_caller_idle {
            plan.is_caller_idle = false;
            self.caller.notify_one();
        } else if plan.running < self.threads {
            drop(plan);
            let start = Arc::clone(self);
            // If the system cannot start a thread, the existing ones continue.
            let _ = threads::spawn("start", move || {
                let _context = start.run.context.enter();
                start.run_worker();
            });
            plan = self.lock();
        }
        plan
    }

    fn spawn_monitor(self: &Arc<Self>) {
        let start = Arc::clone(self);
        // If the system cannot start a thread, the caller initializes all services.
        let _ = threads::spawn("start", move || start.watch());
    }

    fn get_or_init(&self, service: &'static Descriptor, retry: Option<Retry>) -> Outcome {
        let dependent = self.dependent.as_ref();
        let container = self.run.context.container;
        let origin = Origin {
            retry,
            start: Some(Arc::clone(&self.run)),
            is_indirect: false,
        };
        let outcome = if service.asynchronous {
            let cancelled = || Err(Error::new(service.name(), Reason::ShutDown));
            let future = get_or_init_async(container, service, dependent.cloned(), origin);
            self.driver.block_on(future).unwrap_or_else(cancelled)
        } else {
            get_or_init(container, service, dependent, &origin)
        };
        if let Some(dependent) = dependent {
            record_cycle(dependent, &outcome);
        }
        outcome
    }
}

/// A service that begins.
struct Next {
    service: &'static Descriptor,
    is_timed: bool,
    retry: Option<Retry>,
}

/// One service of a plan.
struct Node {
    service: &'static Descriptor,
    was_ready: bool,
    /// Whether the start measures the time. The engine measures each `initialize`, but an asynchronous service, or one
    /// with an `init_timeout`, may spend time elsewhere.
    is_timed: bool,
    /// The retries of the service, or the most patient ones of its dependents.
    retry: Option<Retry>,
    has_own_retry: bool,
    is_begun: bool,
    /// The number of required services that have not finished.
    missing: usize,
    /// The service's part of the plan's `requirements`.
    requirements: Range<usize>,
    /// The service's part of the plan's `dependents`.
    dependents: Range<usize>,
    outcome: Option<StartOutcome>,
    /// The begin and the duration of the initialization, if the engine may not have measured it.
    timing: Option<(Instant, Duration)>,
}

/// The services to start, and the progress of the start.
struct Plan {
    context: Context,
    /// The id of the first attempt after the plan was made.
    first_attempt: u64,
    /// The services in topological order, unless there is a cycle.
    nodes: Vec<Node>,
    requirements: Vec<usize>,
    dependents: Vec<usize>,
    /// The nodes that can begin: all their dependencies have finished.
    ready: VecDeque<usize>,
    remaining: usize,
    running: usize,
    /// The number of nodes that were begun and have finished.
    finished: usize,
    /// Whether the caller waits until it is needed or all nodes have finished.
    is_caller_idle: bool,
    /// Whether there is a monitor.
    is_monitored: bool,
    /// Whether the monitor waits until a node can begin.
    is_monitor_idle: bool,
}

impl Plan {
    fn new(context: &Context, services: Vec<&'static Descriptor>) -> Self {
        let engine = engine::lock();
        let first_attempt = engine.last_id() + 1;
        let Discovery {
            mut nodes,
            required,
            positions,
        } = Discovery::new(engine.container(context.container), services);
        let position = |service: &&'static Descriptor| positions.get(service).copied();
        let requirements: Vec<usize> = required.iter().filter_map(position).collect();
        let mut dependent_count = vec![0; nodes.len()];
        for required in &requirements {
            dependent_count[*required] += 1;
        }
        let mut dependents = vec![0; requirements.len()];
        let mut end = 0;
        for (node, count) in nodes.iter_mut().zip(dependent_count) {
            node.dependents = end..end;
            end += count;
        }
        for position in 0..nodes.len() {
            for required in nodes[position].requirements.clone() {
                let next = &mut nodes[requirements[required]].dependents.end;
                dependents[*next] = position;
                *next += 1;
            }
        }
        // Dependents come after their dependencies.
        for position in (0..nodes.len()).rev() {
            let retry = nodes[position].retry;
            for required in nodes[position].requirements.clone() {
                let dependency = &mut nodes[requirements[required]];
                if !dependency.has_own_retry {
                    dependency.retry = Retry::most_patient(dependency.retry, retry);
                }
            }
        }
        let ready = (0..nodes.len()).filter(|position| nodes[*position].missing == 0);
        Plan {
            context: context.clone(),
            first_attempt,
            ready: ready.collect(),
            remaining: nodes.len(),
            nodes,
            requirements,
            dependents,
            running: 0,
            finished: 0,
            is_caller_idle: false,
            is_monitored: false,
            is_monitor_idle: false,
        }
    }

    /// Returns the next node to begin, if there is one.
    fn begin_next(&mut self) -> Option<usize> {
        let is_unfinished = |node: &Node| node.outcome.is_none();
        let next = self.ready.pop_front().or_else(|| {
            // If nothing runs, the rest is a cycle, which trait objects can close. Beginning it returns the error.
            let is_stuck = self.running == 0;
            self.nodes
                .iter()
                .position(is_unfinished)
                .filter(|_| is_stuck)
        })?;
        self.running += 1;
        self.nodes[next].is_begun = true;
        Some(next)
    }

    /// Skips all nodes that have not begun.
    fn cancel(&mut self) {
        self.ready.clear();
        for node in &mut self.nodes {
            if !node.is_begun && node.outcome.is_none() {
                let because_of = "the task that started it was cancelled";
                node.outcome = Some(StartOutcome::Skipped { because_of });
                self.remaining -= 1;
            }
        }
    }

    fn is_success(&self) -> bool {
        let is_ready = |outcome: &StartOutcome| {
            matches!(outcome, StartOutcome::Started | StartOutcome::AlreadyReady)
        };
        self.nodes
            .iter()
            .all(|node| node.outcome.as_ref().is_some_and(is_ready))
    }

    /// Returns whether the attempt began after the plan was made, for one of its services.
    fn has_begun(&self, attempt: &Attempt) -> bool {
        attempt.id >= self.first_attempt
            && self
                .nodes
                .iter()
                .any(|node| node.service == attempt.service)
    }

    /// Records the outcome of a node. Its dependents become ready if it was their last dependency, or are skipped if it
    /// failed.
    fn finish(&mut self, position: usize, outcome: StartOutcome) {
        let mut ended = vec![(position, outcome)];
        while let Some((position, outcome)) = ended.pop() {
            if self.nodes[position].outcome.is_some() {
                continue;
            }
            self.remaining -= 1;
            let failed_service = match &outcome {
                StartOutcome::Started | StartOutcome::AlreadyReady => None,
                StartOutcome::Failed(_) => Some(self.nodes[position].service.name()),
                StartOutcome::Skipped { because_of } => Some(*because_of),
            };
            self.nodes[position].outcome = Some(outcome);
            for dependent in self.nodes[position].dependents.clone() {
                let dependent = self.dependents[dependent];
                let node = &mut self.nodes[dependent];
                node.missing -= 1;
                match failed_service {
                    Some(because_of) if node.outcome.is_none() => {
                        ended.push((dependent, StartOutcome::Skipped { because_of }));
                    }
                    None if node.missing == 0 && node.outcome.is_none() => {
                        self.ready.push_back(dependent);
                    }
                    _ => {}
                }
            }
        }
    }

    /// Returns the report of a finished plan.
    fn report(&mut self, started_at: Instant) -> StartReport {
        let engine = engine::lock();
        let container = engine.container(self.context.container);
        let timing = |service| container.and_then(|container| container.get(service)?.timing);
        let services = std::mem::take(&mut self.nodes).into_iter().map(|node| {
            let timing = timing(node.service).filter(|timing| timing.started_at >= started_at);
            let measured = timing.map(|timing| (timing.started_at, timing.own_time));
            let (since, own) = measured
                .or(node.timing)
                .unwrap_or((started_at, Duration::ZERO));
            ServiceStart {
                service: node.service,
                requirements: node.requirements,
                waited: since.saturating_duration_since(started_at),
                own,
                // Nodes without an outcome were not begun, because the set-up failed.
                outcome: node.outcome.unwrap_or(StartOutcome::Skipped {
                    because_of: "setup",
                }),
            }
        });
        let requirements = std::mem::take(&mut self.requirements);
        StartReport::new(services.collect(), requirements, started_at.elapsed())
    }
}

/// The services to start and all their dependencies.
struct Discovery {
    /// The services in topological order.
    nodes: Vec<Node>,
    /// The required services of all nodes. Each node has its part of the list.
    required: Vec<&'static Descriptor>,
    /// The positions of the services in `nodes`.
    positions: ServiceMap<usize>,
}

impl Discovery {
    fn new(container: Option<&Container>, services: Vec<&'static Descriptor>) -> Self {
        let mut found = Discovery {
            nodes: Vec::with_capacity(services.len()),
            required: Vec::new(),
            positions: ServiceMap::default(),
        };
        // The path from a requested service to one of its dependencies, with the number of visited dependencies of
        // each.
        let mut path: Vec<(Node, usize)> = Vec::new();
        for service in services {
            path.extend(found.visit(container, service));
            while let Some((node, seen)) = path.last_mut() {
                let next = node.requirements.start + *seen;
                if next < node.requirements.end {
                    *seen += 1;
                    path.extend(found.visit(container, found.required[next]));
                } else if let Some((node, _)) = path.pop() {
                    let position = found.nodes.len();
                    *found.positions.cell(node.service) = Some((node.service, position));
                    found.nodes.push(node);
                }
            }
        }
        found
    }

    /// Creates the node of a service on its first visit. A second visit, also on a cycle of trait objects, returns
    /// `None`.
    fn visit(
        &mut self,
        container: Option<&Container>,
        service: &'static Descriptor,
    ) -> Option<(Node, usize)> {
        let cell = self.positions.cell(service);
        if cell.is_some() {
            return None;
        }
        *cell = Some((service, usize::MAX));
        let entry = container.and_then(|container| container.get(service));
        let policy = container.map_or(&service.policy, |container| container.policy(service));
        let first = self.required.len();
        self.required
            .extend(Container::requirements_of(service, entry));
        let node = Node {
            service,
            was_ready: entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_))),
            is_timed: service.asynchronous || policy.init_timeout.is_some(),
            retry: policy.retry,
            has_own_retry: policy.retry.is_some(),
            is_begun: false,
            missing: self.required.len() - first,
            requirements: first..self.required.len(),
            dependents: 0..0,
            outcome: None,
            timing: None,
        };
        Some((node, 0))
    }
}
