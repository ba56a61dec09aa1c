//! Starting many services at once, each as soon as what it requires is ready.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::attempt::{Attempt, Outcome};
use crate::context::{contain, innermost};
use crate::descriptor::Descriptor;
use crate::driver::Driver;
use crate::engine::{self, RealmId};
use crate::error::Error;
use crate::fault;
use crate::plan::Plan;
use crate::shutdown::{Extent, shut_down};
use crate::shutdown_options::ShutdownOptions;
use crate::start_error::StartError;
use crate::start_report::{StartOutcome, StartReport};
use crate::{asynchronous, initialization, setup};

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
    let setup = setup::ensure(services.first().map_or("the start", |service| service.name)).err();
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
                .unwrap_or_else(|message| Err(fault::panicked(service, message)));
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
