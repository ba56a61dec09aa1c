//! Starting many services at once, each as soon as what it requires is ready.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::shutdown::{Extent, ShutdownOptions, shut_down};
use super::start_report::{ServiceStart, StartError, StartOutcome, StartReport};
use crate::engine::{self, Attempt, ByService, Outcome, Realm, RealmId, Slot, innermost};
use crate::error::Error;
use crate::init::{obtain, obtain_async, remember_cycle};
use crate::invoke::{Driver, ensure_setup, step_panicked};
use crate::panics::contain;
use crate::service::Descriptor;

/// How long a thread watches before it joins in: a few times what a service costs that does nothing. It
/// looks ever more rarely, down to the other.
const PATIENCE: Duration = Duration::from_micros(50);
const LONGEST_PATIENCE: Duration = Duration::from_millis(1);

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
    realm: RealmId,
    services: Vec<&'static Descriptor>,
    options: &StartOptions,
    driver: &Driver,
) -> Result<StartReport, StartError> {
    let began = Instant::now();
    // First of all: it may choose which service takes the place of a trait object.
    let setup = ensure_setup(services.first().map_or("the start", |service| service.name)).err();
    let start = Arc::new(Start {
        realm,
        user: innermost(),
        plan: Mutex::new(Plan::new(realm, services)),
        changed: Condvar::new(),
        threads: options.threads,
        driver: driver.clone(),
    });
    if setup.is_none() {
        start.work(false);
    }
    let report = {
        let mut plan = start.lock();
        if !plan.is_success() {
            plan.abandon();
        }
        plan.report(began)
    };
    if setup.is_none() && report.is_success() {
        return Ok(report);
    }
    let started: HashSet<_> = report.started().collect();
    let taken_back = shut_down(
        realm,
        Extent::Only(&started),
        &ShutdownOptions::default(),
        driver,
    );
    Err(StartError::new(report, setup, taken_back))
}

/// A start that several threads work at; those who find nothing to do any more are not waited for.
struct Start {
    realm: RealmId,
    /// The attempt that the start is part of, if an `initialize` starts services.
    user: Option<Arc<Attempt>>,
    plan: Mutex<Plan>,
    changed: Condvar,
    threads: usize,
    driver: Driver,
}

impl Start {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(self: &Arc<Self>, helps: bool) {
        let _entered = (engine::current_realm() != self.realm).then(|| engine::enter(self.realm));
        let mut plan = self.lock();
        let (mut waited, mut patience) = (helps, PATIENCE);
        while plan.left > 0 {
            if waited && !plan.ready.is_empty() {
                // Where services take no time at all a second thread would only be in the way.
                let ended = plan.ended;
                plan.watching += 1;
                let watched = self.changed.wait_timeout(plan, patience);
                plan = watched.unwrap_or_else(PoisonError::into_inner).0;
                plan.watching -= 1;
                waited = plan.ended != ended;
                patience = (2 * patience).min(LONGEST_PATIENCE);
                continue;
            }
            if self.driver.is_gone() {
                plan.cancel();
                if plan.left == 0 {
                    break;
                }
            }
            let Some(position) = plan.take() else {
                plan.idle += 1;
                plan = self
                    .changed
                    .wait(plan)
                    .unwrap_or_else(PoisonError::into_inner);
                plan.idle -= 1;
                waited = true;
                continue;
            };
            (waited, patience) = (false, PATIENCE);
            let service = plan.nodes[position].service;
            let call = !plan.ready.is_empty() && plan.watching == 0;
            let hire = call && plan.idle == 0 && plan.workers < self.threads;
            plan.workers += usize::from(hire);
            let wake = call && plan.idle > 0;
            drop(plan);
            if wake {
                self.changed.notify_one();
            }
            if hire && !self.hire() {
                self.lock().workers -= 1;
            }

            // Whatever else fails or takes time does so in an `initialize`, which is timed itself.
            let is_timed = service.asynchronous || service.policy.init_timeout.is_some();
            let began = is_timed.then(Instant::now);
            let obtained = contain(|| self.obtain(service))
                .unwrap_or_else(|message| Err(step_panicked(service, message)));
            plan = self.lock();
            let node = &mut plan.nodes[position];
            let outcome = match obtained {
                Ok(_) if node.was_ready => StartOutcome::AlreadyReady,
                Ok(_) => StartOutcome::Started,
                Err(error) => StartOutcome::Failed(error),
            };
            node.turn = began.map(|began| (began, began.elapsed()));
            plan.running -= 1;
            plan.ended += 1;
            plan.end(position, outcome);
            if plan.ready.is_empty() && plan.running == 0 && plan.idle > 0 {
                // Whoever is idle ends, or finds the circle that is left.
                self.changed.notify_all();
            }
        }
        drop(plan);
        self.changed.notify_all();
    }

    /// A thread more, if the machine has one to spare: fewer take longer, no more.
    fn hire(self: &Arc<Self>) -> bool {
        let own = Arc::clone(self);
        thread::Builder::new()
            .name("start".to_owned())
            .spawn(move || own.work(true))
            .is_ok()
    }

    fn obtain(&self, service: &'static Descriptor) -> Outcome {
        let user = self.user.as_ref();
        let outcome = if service.asynchronous {
            let cancelled = || {
                Err(Error::ShutDown {
                    service: service.name,
                })
            };
            let future = obtain_async(self.realm, service, user.cloned());
            self.driver.block_on(future).unwrap_or_else(cancelled)
        } else {
            obtain(self.realm, service, user)
        };
        if let Some(user) = user {
            remember_cycle(user, &outcome);
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
    turn: Option<(Instant, Duration)>,
}

/// What is to start, and how far that has come.
struct Plan {
    realm: RealmId,
    /// Attempts from here on began after the plan was made.
    first_attempt: u64,
    /// Each after what it requires, as far as there is no circle.
    nodes: Vec<Node>,
    requirements: Vec<usize>,
    dependents: Vec<usize>,
    /// Nodes that lack nothing and that nobody has begun.
    ready: VecDeque<usize>,
    left: usize,
    running: usize,
    /// How many nodes were begun and have ended.
    ended: usize,
    workers: usize,
    /// Threads that wait until there is something to do.
    idle: usize,
    /// Threads that wait whether those that work get along without them.
    watching: usize,
}

impl Plan {
    fn new(realm: RealmId, services: Vec<&'static Descriptor>) -> Self {
        let engine = engine::lock();
        let first_attempt = engine.last_id() + 1;
        let Found {
            mut nodes,
            required,
            positions,
        } = Found::new(engine.realm(realm), services);
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
                let place = &mut nodes[requirements[required]].dependents.end;
                dependents[*place] = position;
                *place += 1;
            }
        }
        let ready = (0..nodes.len()).filter(|position| nodes[*position].missing == 0);
        Plan {
            realm,
            first_attempt,
            ready: ready.collect(),
            left: nodes.len(),
            nodes,
            requirements,
            dependents,
            running: 0,
            ended: 0,
            watching: 0,
            workers: 1,
            idle: 0,
        }
    }

    /// The next node to begin, if there is one.
    fn take(&mut self) -> Option<usize> {
        let unended = |node: &Node| node.outcome.is_none();
        let next = self.ready.pop_front().or_else(|| {
            // A circle, which trait objects can close: whoever begins is told so.
            let stuck = self.running == 0;
            self.nodes.iter().position(unended).filter(|_| stuck)
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
                self.left -= 1;
            }
        }
    }

    fn is_success(&self) -> bool {
        let good = |outcome: &StartOutcome| {
            matches!(outcome, StartOutcome::Started | StartOutcome::AlreadyReady)
        };
        self.nodes
            .iter()
            .all(|node| node.outcome.as_ref().is_some_and(good))
    }

    /// Gives up what is overdue, so that it does not outlive a start that failed.
    fn abandon(&self) {
        let engine = engine::lock();
        let Some(realm) = engine.realm(self.realm) else {
            return;
        };
        for (_, entry) in realm.entries() {
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
    fn end(&mut self, position: usize, outcome: StartOutcome) {
        self.left -= 1;
        let culprit = match &outcome {
            StartOutcome::Started | StartOutcome::AlreadyReady => None,
            StartOutcome::Failed(_) => Some(self.nodes[position].service.name),
            StartOutcome::Skipped { because_of } => Some(*because_of),
        };
        self.nodes[position].outcome = Some(outcome);
        for dependent in self.nodes[position].dependents.clone() {
            let dependent = self.dependents[dependent];
            let node = &mut self.nodes[dependent];
            node.missing -= 1;
            match culprit {
                Some(because_of) if node.outcome.is_none() => {
                    self.end(dependent, StartOutcome::Skipped { because_of });
                }
                None if node.missing == 0 && node.outcome.is_none() => {
                    self.ready.push_back(dependent);
                }
                _ => {}
            }
        }
    }

    /// What became of it all, when there is nothing left.
    fn report(&mut self, began: Instant) -> StartReport {
        let engine = engine::lock();
        let realm = engine.realm(self.realm);
        let timing = |service| realm.and_then(|realm| realm.get(service)?.timing);
        let services = std::mem::take(&mut self.nodes).into_iter().map(|node| {
            let timing = timing(node.service).filter(|timing| timing.began >= began);
            let turn = timing.map(|timing| (timing.began, timing.own));
            let (since, own) = turn.or(node.turn).unwrap_or((began, Duration::ZERO));
            ServiceStart {
                service: node.service,
                requirements: node.requirements,
                waited: since.saturating_duration_since(began),
                own,
                // What the plan did not get to, for the set-up failed.
                outcome: node.outcome.unwrap_or(StartOutcome::Skipped {
                    because_of: "setup",
                }),
            }
        });
        let requirements = std::mem::take(&mut self.requirements);
        StartReport::new(services.collect(), requirements, began.elapsed())
    }
}

/// The services and all that they require.
struct Found {
    /// Each after what it requires itself.
    nodes: Vec<Node>,
    /// What they require; each node knows where in the list that is for itself.
    required: Vec<&'static Descriptor>,
    /// Where in `nodes` the services are.
    positions: ByService<usize>,
}

impl Found {
    fn new(realm: Option<&Realm>, services: Vec<&'static Descriptor>) -> Self {
        let mut found = Found {
            nodes: Vec::with_capacity(services.len()),
            required: Vec::new(),
            positions: ByService::default(),
        };
        // The services from one of those asked for down to one that it requires, with how many requirements of
        // each have been seen to.
        let mut path: Vec<(Node, usize)> = Vec::new();
        for service in services {
            path.extend(found.meet(realm, service));
            while let Some((node, seen)) = path.last_mut() {
                let next = node.requirements.start + *seen;
                if next < node.requirements.end {
                    *seen += 1;
                    path.extend(found.meet(realm, found.required[next]));
                } else if let Some((node, _)) = path.pop() {
                    let position = found.nodes.len();
                    *found.positions.place(node.service) = Some((node.service, position));
                    found.nodes.push(node);
                }
            }
        }
        found
    }

    /// Makes the node of a service that is met for the first time; on a circle, which trait objects can close,
    /// nothing is found behind one that is met again.
    fn meet(
        &mut self,
        realm: Option<&Realm>,
        service: &'static Descriptor,
    ) -> Option<(Node, usize)> {
        let place = self.positions.place(service);
        if place.is_some() {
            return None;
        }
        *place = Some((service, usize::MAX));
        let entry = realm.and_then(|realm| realm.get(service));
        let first = self.required.len();
        self.required.extend(Realm::requirements_of(service, entry));
        let node = Node {
            service,
            was_ready: entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_))),
            is_begun: false,
            missing: self.required.len() - first,
            requirements: first..self.required.len(),
            dependents: 0..0,
            outcome: None,
            turn: None,
        };
        Some((node, 0))
    }
}
