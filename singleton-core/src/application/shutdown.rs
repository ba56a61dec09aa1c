//! The end: every service is shut down once nobody holds on to it any more.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::worker_pool::{Crew, Ended};
use crate::engine::{self, Attempt, Engine, Provided, RealmId, Running, Slot, Supervision};
use crate::error::Error;
use crate::init::conclude;
use crate::invoke::{Driver, shut_down_instance};
use crate::panics::contain;
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
pub(crate) enum Extent<'a> {
    /// All of them, for good.
    Realm,
    /// These, as far as no other service holds on to them; afterwards they are as if nobody had asked for them.
    Only(&'a HashSet<&'static Descriptor>),
}

/// Shuts down a realm, or what a start that failed had started in it.
pub(crate) fn shut_down(
    realm: RealmId,
    extent: Extent<'_>,
    options: &ShutdownOptions,
    driver: &Driver,
) -> ShutdownReport {
    let began = Instant::now();
    let mut shutdown = Shutdown {
        realm,
        extent,
        options,
        driver,
        crew: Crew::new("shutdown", options.threads),
        report: ShutdownReport::default(),
    };
    let turn = {
        let mut engine = engine::lock();
        let Some(known) = engine.realm_mut(realm) else {
            return shutdown.report;
        };
        if matches!(shutdown.extent, Extent::Realm) {
            known.closing.request();
            known.link_requirements();
        }
        Arc::clone(&known.shutting_down)
    };
    // One after the other: who comes second finds nothing left, and returns when there is nothing.
    let _turn = lock(&turn);
    shutdown.run();
    if let Some(known) = engine::lock().realm_mut(realm) {
        known.forget_stopped();
    }
    shutdown.report.took = began.elapsed();
    shutdown.report
}

struct Shutdown<'a> {
    realm: RealmId,
    extent: Extent<'a>,
    options: &'a ShutdownOptions,
    driver: &'a Driver,
    crew: Crew<Task, Result<(), String>>,
    report: ShutdownReport,
}

#[derive(Clone, Copy)]
enum Task {
    Stop(&'static Descriptor),
    /// Waits until an attempt has ended that had begun before.
    Settle(&'static Descriptor),
}

/// A service that was taken out of its realm to be shut down.
struct Taken {
    service: &'static Descriptor,
    instance: &'static dyn Instance,
    background: Option<Arc<Supervision>>,
    /// Whether it is used again: a value from `main`, which a start that failed gives back as it is.
    is_kept: bool,
}

impl Shutdown<'_> {
    fn run(&mut self) {
        let attempts = match self.extent {
            Extent::Realm => in_flight(&engine::lock(), self.realm),
            Extent::Only(_) => Vec::new(),
        };
        for attempt in attempts {
            self.settle(attempt);
        }
        self.take_all();
        loop {
            while let Some((task, took, ended)) = self.crew.next() {
                self.ended(task, took, ended);
            }
            // Services that hold on to each other, which no order can satisfy: the last to start goes first.
            let Some(last) = self.take_last() else {
                break;
            };
            self.submit(last);
        }
    }

    fn settle(&mut self, attempt: Arc<Attempt>) {
        let (service, driver) = (attempt.service, self.driver.clone());
        let limit = self.limit(service);
        self.crew.submit(Task::Settle(service), limit, move || {
            if let Some(forsaken) = attempt.take_forsaken() {
                // Nobody carries it on, so nobody wants it.
                let _ = contain(|| {
                    let _running = Running::enter(&attempt);
                    drop(forsaken);
                });
                conclude(&attempt, Err(gone(service)));
            } else if let Some(future) = attempt.future() {
                driver.block_on(future);
            } else {
                attempt.wait_until(None);
            }
            Ok(())
        });
    }

    fn ended(&mut self, task: Task, took: Duration, ended: Ended<Result<(), String>>) {
        let (service, settled) = match task {
            Task::Stop(service) => (service, false),
            Task::Settle(service) => (service, true),
        };
        let outcome = match ended {
            Ended::Done(Ok(())) if settled => return self.take_all(),
            Ended::Done(Ok(())) => ShutdownOutcome::Done,
            Ended::Done(Err(message)) | Ended::Failed(message) => ShutdownOutcome::Failed(message),
            Ended::Overran if settled => ShutdownOutcome::StillInitializing,
            Ended::Overran => {
                let limit = self.limit(service);
                let _ = contain(|| telemetry::overran(service, limit));
                ShutdownOutcome::Overran
            }
        };
        let overran = matches!(outcome, ShutdownOutcome::Overran);
        self.report.services.push(ServiceShutdown {
            service,
            outcome,
            took,
        });
        let freed = self.let_go(service, overran);
        for service in freed {
            let taken = self.take(&mut engine::lock(), service, false);
            self.submit(taken);
        }
    }

    /// Lets the service that has stopped, or has overrun, hold on to nothing any more; gives whom nobody holds on to now.
    fn let_go(&self, service: &'static Descriptor, overran: bool) -> Vec<&'static Descriptor> {
        let (ended, freed) = {
            let mut engine = engine::lock();
            let Some(realm) = engine.realm_mut(self.realm) else {
                return Vec::new();
            };
            let entry = realm.get_mut(service);
            entry.background = None;
            let mut ended = None;
            match (&self.extent, &entry.slot) {
                (
                    Extent::Only(_),
                    Slot::Stopping {
                        attempt,
                        instance,
                        over,
                    },
                ) => {
                    let attempt = Arc::clone(attempt);
                    let anew = *over || !overran;
                    let outcome = if anew {
                        Ok(*instance)
                    } else {
                        Err(gone(service))
                    };
                    attempt.end(&outcome);
                    if anew {
                        entry.slot = Slot::Idle;
                    }
                    ended = Some(attempt);
                }
                _ => entry.slot = Slot::ShutDown,
            }
            (ended, realm.let_go(service))
        };
        if let Some(attempt) = ended {
            attempt.wake();
        }
        freed
    }

    /// Takes whatever nobody holds on to.
    fn take_all(&mut self) {
        let taken: Vec<_> = {
            let mut engine = engine::lock();
            let started = engine.realm(self.realm).map(|realm| realm.started.clone());
            let last_first = started.into_iter().flatten().rev();
            last_first
                .filter_map(|service| self.take(&mut engine, service, false))
                .collect()
        };
        for taken in taken {
            self.submit(Some(taken));
        }
    }

    fn take_last(&self) -> Option<Option<Taken>> {
        if matches!(self.extent, Extent::Only(_)) {
            return None;
        }
        let mut engine = engine::lock();
        let started = engine.realm(self.realm)?.started.clone();
        let mut last_first = started.into_iter().rev();
        last_first.find_map(|service| self.take(&mut engine, service, true).map(Some))
    }

    fn take(
        &self,
        engine: &mut Engine,
        service: &'static Descriptor,
        although_used: bool,
    ) -> Option<Taken> {
        if matches!(self.extent, Extent::Only(only) if !only.contains(service)) {
            return None;
        }
        let realm = engine.realm_mut(self.realm)?;
        let entry = realm.get_mut(service);
        let Slot::Ready(instance) = entry.slot else {
            return None;
        };
        if entry.users > 0 && !although_used {
            return None;
        }
        let background = entry.background.clone();
        let provided = matches!(entry.provided, Some(Provided::Instance(_)));
        engine.begin_stopping(self.realm, service, instance);
        Some(Taken {
            service,
            instance,
            background,
            is_kept: provided && matches!(self.extent, Extent::Only(_)),
        })
    }

    fn submit(&mut self, taken: Option<Taken>) {
        let Some(taken) = taken else {
            return;
        };
        let (realm, driver) = (self.realm, self.driver.clone());
        let limit = self.limit(taken.service);
        self.crew.submit(Task::Stop(taken.service), limit, move || {
            let _entered = engine::enter(realm);
            let _over = Over(realm, taken.service);
            if let Some(background) = &taken.background {
                background.join();
            }
            if taken.is_kept {
                return Ok(());
            }
            shut_down_instance(taken.service, taken.instance, &driver)
        });
    }

    fn limit(&self, service: &Descriptor) -> Duration {
        let own = service.policy.shutdown_timeout;
        own.unwrap_or(self.options.timeout)
    }
}

/// Notes that the work of stopping a service is over, also if it overran.
struct Over(RealmId, &'static Descriptor);

impl Drop for Over {
    fn drop(&mut self) {
        let mut engine = engine::lock();
        let Some(realm) = engine.realm_mut(self.0) else {
            return;
        };
        let entry = realm.get_mut(self.1);
        if let Slot::Stopping { attempt, over, .. } = &mut entry.slot {
            *over = true;
            if attempt.outcome.get().is_some() {
                entry.slot = Slot::Idle;
            }
        }
    }
}

fn gone(service: &Descriptor) -> Error {
    Error::ShutDown {
        service: service.name,
    }
}

fn in_flight(engine: &Engine, realm: RealmId) -> Vec<Arc<Attempt>> {
    let entries = engine
        .realm(realm)
        .into_iter()
        .flat_map(|realm| realm.entries());
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
