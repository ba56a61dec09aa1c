//! Starting many services at once, each as soon as what it requires is ready.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::shutdown::{ShutdownOptions, ShutdownScope, shut_down};
use super::start_report::{ServiceStart, StartError, StartOutcome, StartReport};
use crate::engine::{
    self, Attempt, Container, ContainerId, Outcome, ServiceMap, Slot, current_attempt,
};
use crate::error::Error;
use crate::init::{get_or_init, get_or_init_async, record_cycle};
use crate::invoke::{Driver, ensure_setup, step_panicked};
use crate::panics::catch_panic;
use crate::service::Descriptor;

/// How long a thread watches before it joins in: a few times what a service costs that does nothing. It
/// looks ever more rarely, down to the other.
const MIN_WATCH_TIME: Duration = Duration::from_micros(50);
const MAX_WATCH_TIME: Duration = Duration::from_millis(1);

/// How [`start_all_with`](crate::Registry::start_all_with) goes about it.
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
    /// The defaults, which each of the methods states.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many services are initialised at once, the calling thread's included; 8.
    ///
    /// Most services wait for something else while they start, so more than the processor's cores make sense.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }
}

/// Starts the services and all they require; if one fails, what this call had started is shut down again.
pub(crate) fn start(
    container: ContainerId,
    services: Vec<&'static Descriptor>,
    options: &StartOptions,
    driver: &Driver,
) -> Result<StartReport, StartError> {
    let started_at = Instant::now();
    // First of all: it may choose which service takes the place of a trait object.
    let setup = ensure_setup(services.first().map_or("the start", |service| service.name)).err();
    let start = Arc::new(Start {
        container,
        dependent: current_attempt(),
        plan: Mutex::new(Plan::new(container, services)),
        changed: Condvar::new(),
        threads: options.threads,
        driver: driver.clone(),
    });
    if setup.is_none() {
        start.run_worker(false);
    }
    let report = {
        let mut plan = start.lock();
        if !plan.is_success() {
            plan.abandon_overdue();
        }
        plan.report(started_at)
    };
    if setup.is_none() && report.is_success() {
        return Ok(report);
    }
    let started: HashSet<_> = report.started().collect();
    let taken_back = shut_down(
        container,
        ShutdownScope::Only(&started),
        &ShutdownOptions::default(),
        driver,
    );
    Err(StartError::new(report, setup, taken_back))
}

/// A start that several threads work at; those who find nothing to do any more are not waited for.
struct Start {
    container: ContainerId,
    /// The attempt that the start is part of, if an `initialize` starts services.
    dependent: Option<Arc<Attempt>>,
    plan: Mutex<Plan>,
    changed: Condvar,
    threads: usize,
    driver: Driver,
}

impl Start {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_worker(self: &Arc<Self>, is_helper: bool) {
        let _container =
            (engine::current_container() != self.container).then(|| engine::enter(self.container));
        let mut plan = self.lock();
        let (mut waited, mut watch_time) = (is_helper, MIN_WATCH_TIME);
        while plan.remaining > 0 {
            if waited && !plan.ready.is_empty() {
                // Where services take no time at all a second thread would only be in the way.
                let finished = plan.finished;
                plan.watching += 1;
                let watched = self.changed.wait_timeout(plan, watch_time);
                plan = watched.unwrap_or_else(PoisonError::into_inner).0;
                plan.watching -= 1;
                waited = plan.finished != finished;
                watch_time = (2 * watch_time).min(MAX_WATCH_TIME);
                continue;
            }
            if self.driver.is_gone() {
                plan.cancel();
                if plan.remaining == 0 {
                    break;
                }
            }
            let Some(position) = plan.begin_next() else {
                plan.idle += 1;
                plan = self
                    .changed
                    .wait(plan)
                    .unwrap_or_else(PoisonError::into_inner);
                plan.idle -= 1;
                waited = true;
                continue;
            };
            (waited, watch_time) = (false, MIN_WATCH_TIME);
            let service = plan.nodes[position].service;
            let has_more_work = !plan.ready.is_empty() && plan.watching == 0;
            let needs_worker = has_more_work && plan.idle == 0 && plan.workers < self.threads;
            plan.workers += usize::from(needs_worker);
            let wakes_idle = has_more_work && plan.idle > 0;
            drop(plan);
            if wakes_idle {
                self.changed.notify_one();
            }
            if needs_worker && !self.spawn_worker() {
                self.lock().workers -= 1;
            }

            // Whatever else fails or takes time does so in an `initialize`, which is timed itself.
            let is_timed = service.asynchronous || service.policy.init_timeout.is_some();
            let started_at = is_timed.then(Instant::now);
            let obtained = catch_panic(|| self.get_or_init(service))
                .unwrap_or_else(|message| Err(step_panicked(service, message)));
            plan = self.lock();
            let node = &mut plan.nodes[position];
            let outcome = match obtained {
                Ok(_) if node.was_ready => StartOutcome::AlreadyReady,
                Ok(_) => StartOutcome::Started,
                Err(error) => StartOutcome::Failed(error),
            };
            node.timing = started_at.map(|started_at| (started_at, started_at.elapsed()));
            plan.running -= 1;
            plan.finished += 1;
            plan.finish(position, outcome);
            if plan.ready.is_empty() && plan.running == 0 && plan.idle > 0 {
                // Whoever is idle ends, or finds the cycle that is left.
                self.changed.notify_all();
            }
        }
        drop(plan);
        self.changed.notify_all();
    }

    /// A thread more, if the machine has one to spare: fewer take longer, no more.
    fn spawn_worker(self: &Arc<Self>) -> bool {
        let start = Arc::clone(self);
        thread::Builder::new()
            .name("start".to_owned())
            .spawn(move || start.run_worker(true))
            .is_ok()
    }

    fn get_or_init(&self, service: &'static Descriptor) -> Outcome {
        let dependent = self.dependent.as_ref();
        let outcome = if service.asynchronous {
            let cancelled = || {
                Err(Error::ShutDown {
                    service: service.name,
                })
            };
            let future = get_or_init_async(self.container, service, dependent.cloned());
            self.driver.block_on(future).unwrap_or_else(cancelled)
        } else {
            get_or_init(self.container, service, dependent)
        };
        if let Some(dependent) = dependent {
            record_cycle(dependent, &outcome);
        }
        outcome
    }
}

/// One service of a plan.
struct Node {
    service: &'static Descriptor,
    was_ready: bool,
    is_begun: bool,
    /// Requirements that have not ended.
    missing: usize,
    /// Where in the plan's list its requirements are.
    requirements: Range<usize>,
    /// Likewise.
    dependents: Range<usize>,
    outcome: Option<StartOutcome>,
    /// When its turn came, and how long that took, where the service itself does not tell.
    timing: Option<(Instant, Duration)>,
}

/// What is to start, and how far that has come.
struct Plan {
    container: ContainerId,
    /// Attempts from here on began after the plan was made.
    first_attempt: u64,
    /// Each after what it requires, as far as there is no cycle.
    nodes: Vec<Node>,
    requirements: Vec<usize>,
    dependents: Vec<usize>,
    /// Nodes that lack nothing and that nobody has begun.
    ready: VecDeque<usize>,
    remaining: usize,
    running: usize,
    /// How many nodes were begun and have ended.
    finished: usize,
    workers: usize,
    /// Threads that wait until there is something to do.
    idle: usize,
    /// Threads that wait whether those that work get along without them.
    watching: usize,
}

impl Plan {
    fn new(container: ContainerId, services: Vec<&'static Descriptor>) -> Self {
        let engine = engine::lock();
        let first_attempt = engine.last_id() + 1;
        let Discovery {
            mut nodes,
            required,
            positions,
        } = Discovery::new(engine.container(container), services);
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
        let ready = (0..nodes.len()).filter(|position| nodes[*position].missing == 0);
        Plan {
            container,
            first_attempt,
            ready: ready.collect(),
            remaining: nodes.len(),
            nodes,
            requirements,
            dependents,
            running: 0,
            finished: 0,
            watching: 0,
            workers: 1,
            idle: 0,
        }
    }

    /// The next node to begin, if there is one.
    fn begin_next(&mut self) -> Option<usize> {
        let is_unfinished = |node: &Node| node.outcome.is_none();
        let next = self.ready.pop_front().or_else(|| {
            // A cycle, which trait objects can close: whoever begins is told so.
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

    /// Skips whatever has not begun.
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

    /// Gives up what is overdue, so that it does not outlive a start that failed.
    fn abandon_overdue(&self) {
        let engine = engine::lock();
        let Some(container) = engine.container(self.container) else {
            return;
        };
        for (_, entry) in container.entries() {
            if let Slot::Initializing(attempt) = &entry.slot
                && attempt.id >= self.first_attempt
                && attempt.is_overdue()
                && self
                    .nodes
                    .iter()
                    .any(|node| node.service == attempt.service)
            {
                attempt.abandon(true);
            }
        }
    }

    /// Notes how a node ended: its dependents come a step nearer, or are skipped if it failed.
    fn finish(&mut self, position: usize, outcome: StartOutcome) {
        self.remaining -= 1;
        let failed_service = match &outcome {
            StartOutcome::Started | StartOutcome::AlreadyReady => None,
            StartOutcome::Failed(_) => Some(self.nodes[position].service.name),
            StartOutcome::Skipped { because_of } => Some(*because_of),
        };
        self.nodes[position].outcome = Some(outcome);
        for dependent in self.nodes[position].dependents.clone() {
            let dependent = self.dependents[dependent];
            let node = &mut self.nodes[dependent];
            node.missing -= 1;
            match failed_service {
                Some(because_of) if node.outcome.is_none() => {
                    self.finish(dependent, StartOutcome::Skipped { because_of });
                }
                None if node.missing == 0 && node.outcome.is_none() => {
                    self.ready.push_back(dependent);
                }
                _ => {}
            }
        }
    }

    /// What became of it all, when there is nothing left.
    fn report(&mut self, started_at: Instant) -> StartReport {
        let engine = engine::lock();
        let container = engine.container(self.container);
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
                // What the plan did not get to, for the set-up failed.
                outcome: node.outcome.unwrap_or(StartOutcome::Skipped {
                    because_of: "setup",
                }),
            }
        });
        let requirements = std::mem::take(&mut self.requirements);
        StartReport::new(services.collect(), requirements, started_at.elapsed())
    }
}

/// The services and all that they require.
struct Discovery {
    /// Each after what it requires itself.
    nodes: Vec<Node>,
    /// What they require; each node knows where in the list that is for itself.
    required: Vec<&'static Descriptor>,
    /// Where in `nodes` the services are.
    positions: ServiceMap<usize>,
}

impl Discovery {
    fn new(container: Option<&Container>, services: Vec<&'static Descriptor>) -> Self {
        let mut found = Discovery {
            nodes: Vec::with_capacity(services.len()),
            required: Vec::new(),
            positions: ServiceMap::default(),
        };
        // The services from one of those asked for down to one that it requires, with how many requirements of
        // each have been seen to.
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

    /// Makes the node of a service that is met for the first time; on a cycle, which trait objects can close,
    /// nothing is found behind one that is met again.
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
        let first = self.required.len();
        self.required
            .extend(Container::requirements_of(service, entry));
        let node = Node {
            service,
            was_ready: entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_))),
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
