//! The services of one set of instances, with their states and dependencies.

use std::any::Any;
use std::collections::{HashMap, HashSet, VecDeque, hash_map};
use std::ffi::OsString;
use std::sync::Arc;

use super::attempt::{Attempt, Timing};
use super::current::Context;
use super::scope_state::ScopeState;
use super::start_run::StartRun;
use super::supervision::{HealthCheck, Supervision};
use crate::error::Error;
use crate::service::{Descriptor, Instance, ServicePolicy, Stop};
use crate::sync::Mutex;

/// The id of a container. Ids are not reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ContainerId(pub(super) u64);

impl ContainerId {
    /// The process's instances, outside all test scopes.
    pub(crate) const PROCESS: ContainerId = ContainerId(0);
}

#[derive(Default)]
pub(crate) enum Slot {
    #[default]
    Idle,
    Initializing(Arc<Attempt>),
    Ready(&'static dyn Instance),
    /// `shutdown` runs, or the background thread is ending.
    Stopping {
        /// Ends when the service can start again, or with an error after a timeout.
        attempt: Arc<Attempt>,
        instance: &'static dyn Instance,
        /// Whether the shutdown has ended after its timeout.
        finished: bool,
    },
    ShutDown,
}

/// The replacement of `initialize`.
#[derive(Clone, Copy)]
pub(crate) enum Provided {
    Instance(&'static dyn Instance),
    /// Another service, and the function that casts its instance to this service's trait.
    Service(&'static Descriptor, &'static Cast),
}

pub(crate) type Cast =
    dyn Fn(&'static (dyn Any + Send + Sync)) -> Option<Box<dyn Instance>> + Send + Sync;

/// One service in one container.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) slot: Slot,
    pub(crate) provided: Option<Provided>,
    /// The services that this one requires or used during its initialization, without duplicates. They shut down after
    /// it.
    pub(crate) dependencies: Vec<&'static Descriptor>,
    /// The number of services that have this one among their dependencies.
    pub(crate) dependents: usize,
    pub(crate) timing: Option<Timing>,
    /// The error of the last attempt, if it failed.
    pub(crate) failure: Option<Box<Error>>,
    pub(crate) check: Option<Arc<HealthCheck>>,
    pub(crate) background: Option<Arc<Supervision>>,
    /// Whether an attempt has begun.
    pub(crate) was_used: bool,
    /// The policy, if `configure` has changed it.
    pub(crate) policy: Option<Box<ServicePolicy>>,
    /// The start that has started the service.
    pub(crate) start: Option<Arc<StartRun>>,
}

pub(crate) struct Container {
    pub(super) id: ContainerId,
    /// The state that the scope's threads read without the engine's lock. `None` for the process.
    pub(super) scope: Option<Arc<ScopeState>>,
    entries: ServiceMap<Entry>,
    /// Services in the order in which they became ready.
    pub(crate) started: Vec<&'static Descriptor>,
    /// The undeclared uses that were logged.
    reported_uses: HashSet<(&'static Descriptor, &'static Descriptor)>,
    /// Requested when no service may start anymore.
    pub(crate) closing: Arc<Stop>,
    /// Held while services are shut down.
    pub(crate) shutdown_lock: Arc<Mutex<()>>,
    /// Environment variables that replace the process's. `None` stands for a variable that is not set.
    pub(crate) environment: HashMap<OsString, Option<OsString>>,
}

impl Container {
    pub(crate) fn new(
        id: ContainerId,
        scope: Option<Arc<ScopeState>>,
        environment: HashMap<OsString, Option<OsString>>,
    ) -> Self {
        Container {
            id,
            scope,
            entries: ServiceMap::default(),
            started: Vec::new(),
            reported_uses: HashSet::new(),
            closing: Arc::new(Stop::new()),
            shutdown_lock: Arc::new(Mutex::new(())),
            environment,
        }
    }

    /// Returns the context in which code sees this container.
    pub(crate) fn context(&self) -> Context {
        match &self.scope {
            Some(scope) => Context::of_scope(self.id, Arc::clone(scope)),
            None => Context::PROCESS,
        }
    }

    /// Returns the service's policy: the attribute's, or what `configure` has made of it.
    pub(crate) fn policy(&self, service: &'static Descriptor) -> &ServicePolicy {
        let configured = self.get(service).and_then(|entry| entry.policy.as_deref());
        configured.unwrap_or(&service.policy)
    }

    /// Returns whether an application starts the service at once: it is eager or runs in the background.
    pub(crate) fn starts_with_application(&self, service: &'static Descriptor) -> bool {
        self.policy(service).eager || service.run.is_some()
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

    /// Returns the required services: those that `#[requires]` lists, and for a trait object the service bound to it.
    pub(crate) fn requirements(
        &self,
        service: &'static Descriptor,
    ) -> impl Iterator<Item = &'static Descriptor> + use<> {
        Self::requirements_of(service, self.get(service))
    }

    /// Returns the required services, given the service's entry.
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

    /// Returns whether only a task can run the attempt: the service or one of its missing dependencies is asynchronous.
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

    /// Returns the missing dependencies of an attempt and theirs, each after its own dependencies.
    pub(crate) fn missing_in_order(&self, attempt: &Attempt) -> Vec<&'static Descriptor> {
        let mut order = Vec::new();
        let mut seen = HashSet::from([attempt.service]);
        // The path from the attempt's service to one of its dependencies, with the unvisited requirements of each.
        let mut path = vec![(
            None,
            attempt.missing.iter().rev().copied().collect::<Vec<_>>(),
        )];
        while let Some((service, unvisited)) = path.last_mut() {
            if let Some(next) = unvisited.pop() {
                if seen.insert(next) && (service.is_none() || !self.is_ready(next)) {
                    let mut requirements: Vec<_> = self.requirements(next).collect();
                    requirements.reverse();
                    path.push((Some(next), requirements));
                }
            } else {
                order.extend(*service);
                path.pop();
            }
        }
        order
    }

    /// Returns the services on a path of requirements from one service to another, both excluded, or nothing if there
    /// is no such path or a direct requirement.
    pub(crate) fn between(
        &self,
        dependent: &'static Descriptor,
        dependency: &'static Descriptor,
    ) -> Vec<&'static Descriptor> {
        let mut found_by = HashMap::from([(dependent, dependent)]);
        let mut pending = VecDeque::from([dependent]);
        while let Some(service) = pending.pop_front() {
            for requirement in self.requirements(service) {
                if requirement == dependency {
                    let mut path = Vec::new();
                    let mut step = service;
                    while step != dependent {
                        path.push(step);
                        step = found_by[step];
                    }
                    path.reverse();
                    return path;
                }
                if let hash_map::Entry::Vacant(unseen) = found_by.entry(requirement) {
                    unseen.insert(service);
                    pending.push_back(requirement);
                }
            }
        }
        Vec::new()
    }

    fn is_ready(&self, service: &Descriptor) -> bool {
        self.get(service)
            .is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)))
    }

    /// Marks the service as ready.
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

    /// Adds `dependency` to the dependencies of `dependent` if it is ready.
    pub(crate) fn add_dependency(
        &mut self,
        dependent: &'static Descriptor,
        dependency: &'static Descriptor,
    ) {
        if !self.is_ready(dependency)
            || dependent == dependency
            || self.get_mut(dependent).dependencies.contains(&dependency)
        {
            return;
        }
        self.get_mut(dependent).dependencies.push(dependency);
        self.get_mut(dependency).dependents += 1;
    }

    /// Adds the required services that are ready to the dependencies of `dependent`, which has none yet. Returns the
    /// others.
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

    /// Removes all dependencies of the service. Returns those without remaining dependents.
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

    /// Records that `dependent` uses `dependency`. Returns whether this is the first such use and `dependency` is not
    /// ready.
    pub(crate) fn is_first_undeclared_use(
        &mut self,
        dependent: &'static Descriptor,
        dependency: &'static Descriptor,
    ) -> bool {
        !self.is_ready(dependency) && self.reported_uses.insert((dependent, dependency))
    }

    /// Adds the dependencies of instances that were provided for a scope. Such an instance is ready before the services
    /// that it requires, so its dependencies are known only now.
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

    /// Removes services that were shut down from the list of started ones.
    pub(crate) fn remove_stopped(&mut self) {
        let entries = &self.entries;
        let is_ready = |service: &Descriptor| {
            let entry = entries.get(service);
            entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)))
        };
        self.started.retain(|service| is_ready(service));
    }
}

/// A map from services to values, indexed by the services' numbers.
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

    /// Returns the service's cell, which may be empty.
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
