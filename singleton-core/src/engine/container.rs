//! What is known of every service in one set of instances, and who holds on to whom.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;

use super::attempt::{Attempt, Timing};
use super::supervision::{HealthCheck, Supervision};
use crate::error::Error;
use crate::service::{Descriptor, Instance, Stop};
use crate::sync::Mutex;

/// Names a container; ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerId(pub(super) u64);

impl ContainerId {
    /// The process's own instances, outside of any test scope.
    pub(crate) const PROCESS: ContainerId = ContainerId(0);
}

#[derive(Default)]
pub(crate) enum Slot {
    #[default]
    Idle,
    Initializing(Arc<Attempt>),
    Ready(&'static dyn Instance),
    /// Its `shutdown` runs, or its thread is waited for.
    Stopping {
        /// Ends when the service can start anew, or with an error when that takes too long.
        attempt: Arc<Attempt>,
        instance: &'static dyn Instance,
        /// Whether that is over, although it took too long.
        finished: bool,
    },
    ShutDown,
}

/// What takes the place of `initialize`.
#[derive(Clone, Copy)]
pub(crate) enum Provided {
    Instance(&'static dyn Instance),
    /// Another service, which the function turns into an instance of this one.
    Service(&'static Descriptor, &'static Cast),
}

pub(crate) type Cast =
    dyn Fn(&'static (dyn Any + Send + Sync)) -> Option<Box<dyn Instance>> + Send + Sync;

/// One service in one container.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) slot: Slot,
    pub(crate) provided: Option<Provided>,
    /// What it holds on to: what it required or used while it was initialising, once each.
    pub(crate) dependencies: Vec<&'static Descriptor>,
    /// How many services hold on to it.
    pub(crate) dependents: usize,
    pub(crate) timing: Option<Timing>,
    /// Why the last attempt failed, if it did.
    pub(crate) failure: Option<Box<Error>>,
    pub(crate) check: Option<Arc<HealthCheck>>,
    pub(crate) background: Option<Arc<Supervision>>,
}

pub(crate) struct Container {
    entries: ServiceMap<Entry>,
    /// Services in the order in which they became ready.
    pub(crate) started: Vec<&'static Descriptor>,
    /// Undeclared uses that were logged already.
    reported_uses: HashSet<(&'static Descriptor, &'static Descriptor)>,
    /// Requested when nothing starts any more.
    pub(crate) closing: Arc<Stop>,
    /// Held by the one who shuts services down.
    pub(crate) shutdown_lock: Arc<Mutex<()>>,
    /// Environment variables that differ from the process's; `None` is one that is not set.
    pub(crate) environment: HashMap<OsString, Option<OsString>>,
}

impl Container {
    pub(crate) fn new(environment: HashMap<OsString, Option<OsString>>) -> Self {
        Container {
            entries: ServiceMap::default(),
            started: Vec::new(),
            reported_uses: HashSet::new(),
            closing: Arc::new(Stop::new()),
            shutdown_lock: Arc::new(Mutex::new(())),
            environment,
        }
    }

    pub(crate) fn get(&self, service: &Descriptor) -> Option<&Entry> {
        self.entries.get(service)
    }

    pub(crate) fn get_mut(&mut self, service: &'static Descriptor) -> &mut Entry {
        self.entries.get_or_default(service)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'static Descriptor, &Entry)> {
        self.entries.iter()
    }

    /// What the service requires: what it declares, and for a trait object the service bound to it.
    pub(crate) fn requirements(
        &self,
        service: &'static Descriptor,
    ) -> impl Iterator<Item = &'static Descriptor> + use<> {
        Self::requirements_of(service, self.get(service))
    }

    /// The same for one whose entry is known.
    pub(crate) fn requirements_of(
        service: &'static Descriptor,
        entry: Option<&Entry>,
    ) -> impl Iterator<Item = &'static Descriptor> + use<> {
        let bound = match entry.and_then(|entry| entry.provided) {
            Some(Provided::Service(bound, _)) => Some(bound),
            _ => None,
        };
        service.requirements().chain(bound)
    }

    /// Tells whether only a task can carry the attempt to its end: the service, or one that it lacks, is asynchronous.
    pub(crate) fn needs_task(&self, attempt: &Attempt) -> bool {
        let mut seen = HashSet::new();
        let mut pending = attempt.missing.clone();
        while let Some(service) = pending.pop() {
            if service.asynchronous {
                return true;
            }
            if seen.insert(service) {
                pending.extend(self.requirements(service));
            }
        }
        attempt.service.asynchronous
    }

    /// Notes that the service is ready.
    pub(crate) fn set_ready(
        &mut self,
        service: &'static Descriptor,
        instance: &'static dyn Instance,
    ) -> &mut Entry {
        self.started.push(service);
        let entry = self.entries.get_or_default(service);
        entry.slot = Slot::Ready(instance);
        if service.run.is_some() {
            entry.background = Some(Arc::new(Supervision::new()));
        }
        entry
    }

    /// Lets `dependent` hold on to `dependency` if that one is ready.
    pub(crate) fn add_dependency(
        &mut self,
        dependent: &'static Descriptor,
        dependency: &'static Descriptor,
    ) {
        let ready = self
            .get(dependency)
            .is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)));
        if !ready
            || dependent == dependency
            || self.get_mut(dependent).dependencies.contains(&dependency)
        {
            return;
        }
        self.get_mut(dependent).dependencies.push(dependency);
        self.get_mut(dependency).dependents += 1;
    }

    /// Lets `dependent`, which holds on to nothing yet, hold on to what it requires; gives what of it is not ready.
    pub(crate) fn add_declared_dependencies(
        &mut self,
        dependent: &'static Descriptor,
    ) -> Vec<&'static Descriptor> {
        let mut missing = Vec::new();
        let mut requirements = self.requirements(dependent).peekable();
        if requirements.peek().is_none() {
            return missing;
        }
        let mut dependencies = std::mem::take(&mut self.get_mut(dependent).dependencies);
        for requirement in requirements {
            let entry = self.get_mut(requirement);
            if matches!(entry.slot, Slot::Ready(_)) {
                entry.dependents += 1;
                dependencies.push(requirement);
            } else {
                missing.push(requirement);
            }
        }
        self.get_mut(dependent).dependencies = dependencies;
        missing
    }

    /// Lets the service hold on to nothing any more; gives those whom nobody else holds on to now.
    pub(crate) fn release_dependencies(
        &mut self,
        service: &'static Descriptor,
    ) -> Vec<&'static Descriptor> {
        let dependencies = std::mem::take(&mut self.get_mut(service).dependencies);
        dependencies
            .into_iter()
            .filter(|dependency| {
                let entry = self.get_mut(dependency);
                entry.dependents -= 1;
                entry.dependents == 0
            })
            .collect()
    }

    /// Tells whether `dependent` is seen for the first time to use `dependency` before that one is ready.
    pub(crate) fn is_first_undeclared_use(
        &mut self,
        dependent: &'static Descriptor,
        dependency: &'static Descriptor,
    ) -> bool {
        let ready = self
            .get(dependency)
            .is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)));
        !ready && self.reported_uses.insert((dependent, dependency))
    }

    /// Instances that were provided for a scope did not start after what they require: only now it
    /// is known what of it there is.
    pub(crate) fn link_provided(&mut self) {
        for position in 0..self.started.len() {
            let service = self.started[position];
            let unlinked = |entry: &Entry| {
                matches!(entry.slot, Slot::Ready(_)) && entry.dependencies.is_empty()
            };
            if self.get(service).is_some_and(unlinked) {
                self.add_declared_dependencies(service);
            }
        }
    }

    /// Forgets of what has been shut down that it had started.
    pub(crate) fn remove_stopped(&mut self) {
        let entries = &self.entries;
        let is_ready = |service: &Descriptor| {
            let entry = entries.get(service);
            entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)))
        };
        self.started.retain(|service| is_ready(service));
    }
}

/// A value for some of the services, found without a search by their numbers.
pub(crate) struct ServiceMap<V> {
    cells: Vec<Option<(&'static Descriptor, V)>>,
}

impl<V> Default for ServiceMap<V> {
    fn default() -> Self {
        ServiceMap { cells: Vec::new() }
    }
}

impl<V> ServiceMap<V> {
    pub(crate) fn get(&self, service: &Descriptor) -> Option<&V> {
        let cell = self.cells.get(service.number.get())?;
        cell.as_ref().map(|(_, value)| value)
    }

    /// The place of the service's value, where there is none yet.
    pub(crate) fn cell(
        &mut self,
        service: &'static Descriptor,
    ) -> &mut Option<(&'static Descriptor, V)> {
        let number = service.number.get();
        if number >= self.cells.len() {
            self.cells.resize_with(number + 1, || None);
        }
        &mut self.cells[number]
    }

    pub(crate) fn get_or_default(&mut self, service: &'static Descriptor) -> &mut V
    where
        V: Default,
    {
        let cell = self.cell(service);
        &mut cell.get_or_insert_with(|| (service, V::default())).1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Descriptor, &V)> {
        let known = self.cells.iter().flatten();
        known.map(|(service, value)| (*service, value))
    }
}
