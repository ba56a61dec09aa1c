//! Starting many services at once, each as soon as what it requires is ready.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::attempt::{Attempt, Outcome};
use crate::context::{contain, innermost};
use crate::descriptor::{ByService, Descriptor};
use crate::driver::Driver;
use crate::engine::{self, RealmId};
use crate::error::Error;
use crate::fault;
use crate::realm::Slot;
use crate::service_info::State;
use crate::shutdown::{Extent, ShutdownOptions, shut_down};
use crate::start_error::StartError;
use crate::start_report::{ServiceStart, StartOutcome, StartReport};
use crate::{asynchronous, initialization, setup};

/// How long a thread watches before it joins in: a few times what a service costs that does nothing.
const PATIENCE: Duration = Duration::from_micros(50);

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
    let setup = setup::ensure(services.first().map_or("the start", |service| service.name)).err();
    let mut plan = Plan::new(realm, services);
    if setup.is_none() {
        plan = plan.carry_out(options, driver);
    }
    if !plan.is_success() {
        plan.abandon();
    }
    let report = StartReport::new(plan.services(began), began.elapsed());
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

struct Node {
    service: &'static Descriptor,
    was_ready: bool,
    /// Requirements that have not ended.
    missing: usize,
    requirements: Vec<usize>,
    dependents: Vec<usize>,
    outcome: Option<StartOutcome>,
    is_begun: bool,
    began: Instant,
    took: Duration,
}

struct Plan {
    realm: RealmId,
    /// Attempts from here on began after the plan was made.
    first_attempt: u64,
    nodes: Vec<Node>,
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
    fn new(realm: RealmId, mut pending: Vec<&'static Descriptor>) -> Self {
        let engine = engine::lock();
        let requirements = |service: &'static Descriptor| -> Vec<_> {
            match engine.realm(realm) {
                Some(realm) => realm.requirements(service).collect(),
                None => service.requirements().collect(),
            }
        };
        let mut positions = ByService::default();
        let mut found = Vec::with_capacity(pending.len());
        while let Some(service) = pending.pop() {
            if positions.contains_key(service) {
                continue;
            }
            positions.insert(service, found.len());
            let required = requirements(service);
            pending.extend(&required);
            found.push((service, required));
        }
        let now = Instant::now();
        let mut nodes: Vec<Node> = found
            .into_iter()
            .map(|(service, required)| Node {
                service,
                was_ready: engine.state(realm, service) == State::Ready,
                missing: required.len(),
                requirements: required
                    .iter()
                    .map(|required| positions[required])
                    .collect(),
                dependents: Vec::new(),
                outcome: None,
                is_begun: false,
                began: now,
                took: Duration::ZERO,
            })
            .collect();
        for position in 0..nodes.len() {
            for required in nodes[position].requirements.clone() {
                nodes[required].dependents.push(position);
            }
        }
        let ready = (0..nodes.len()).filter(|position| nodes[*position].missing == 0);
        Plan {
            realm,
            first_attempt: engine.last_id() + 1,
            ready: ready.collect(),
            left: nodes.len(),
            nodes,
            running: 0,
            ended: 0,
            watching: 0,
            workers: 1,
            idle: 0,
        }
    }

    /// Works through the plan on the calling thread and as many others as find something to do.
    fn carry_out(self, options: &StartOptions, driver: &Driver) -> Plan {
        let shared = Shared {
            realm: self.realm,
            user: innermost(),
            plan: Mutex::new(self),
            changed: Condvar::new(),
            threads: options.threads,
            driver,
        };
        thread::scope(|scope| shared.work(scope, false));
        shared
            .plan
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
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
        let dependents = std::mem::take(&mut self.nodes[position].dependents);
        for dependent in dependents {
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

    fn services(self, began: Instant) -> Vec<ServiceStart> {
        let engine = engine::lock();
        let realm = engine.realm(self.realm);
        let timing = |service| realm.and_then(|realm| realm.get(service)?.timing);
        self.nodes
            .into_iter()
            .map(|node| {
                let timing = timing(node.service).filter(|timing| timing.began >= began);
                let (since, own) = match timing {
                    Some(timing) => (timing.began, timing.own),
                    None => (node.began, node.took),
                };
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
            })
            .collect()
    }
}

struct Shared<'a> {
    realm: RealmId,
    /// The attempt that the start is part of, if an `initialize` starts services.
    user: Option<Arc<Attempt>>,
    plan: Mutex<Plan>,
    changed: Condvar,
    threads: usize,
    driver: &'a Driver,
}

impl Shared<'_> {
    fn lock(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work<'scope, 'env>(&'env self, scope: &'scope thread::Scope<'scope, 'env>, helps: bool) {
        let _entered = (engine::current_realm() != self.realm).then(|| engine::enter(self.realm));
        let mut plan = self.lock();
        let mut waited = helps;
        while plan.left > 0 {
            if waited && !plan.ready.is_empty() {
                // Where services take no time at all a second thread would only be in the way.
                let ended = plan.ended;
                plan.watching += 1;
                let watched = self.changed.wait_timeout(plan, PATIENCE);
                plan = watched.unwrap_or_else(PoisonError::into_inner).0;
                plan.watching -= 1;
                waited = plan.ended != ended;
                continue;
            }
            if self.driver.is_gone() {
                plan.cancel();
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
            waited = false;
            let service = plan.nodes[position].service;
            let call = !plan.ready.is_empty() && plan.watching == 0;
            let hire = call && plan.idle == 0 && plan.workers < self.threads;
            plan.workers += usize::from(hire);
            let wake = call && plan.idle > 0;
            drop(plan);
            if wake {
                self.changed.notify_one();
            }
            if hire && !self.hire(scope) {
                self.lock().workers -= 1;
            }

            let began = Instant::now();
            let obtained = contain(|| self.obtain(service))
                .unwrap_or_else(|message| Err(fault::panicked(service, message)));
            plan = self.lock();
            let node = &mut plan.nodes[position];
            let outcome = match obtained {
                Ok(_) if node.was_ready => StartOutcome::AlreadyReady,
                Ok(_) => StartOutcome::Started,
                Err(error) => StartOutcome::Failed(error),
            };
            node.began = began;
            node.took = began.elapsed();
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
    fn hire<'scope, 'env>(&'env self, scope: &'scope thread::Scope<'scope, 'env>) -> bool {
        thread::Builder::new()
            .name("start".to_owned())
            .spawn_scoped(scope, || self.work(scope, true))
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
            let future = asynchronous::obtain(self.realm, service, user.cloned());
            self.driver.block_on(future).unwrap_or_else(cancelled)
        } else {
            initialization::obtain(self.realm, service, user)
        };
        if let Some(user) = user {
            initialization::remember_cycle(user, &outcome);
        }
        outcome
    }
}
