//! All containers, behind one lock that guarded calls of ready services never take.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::LazyLock;

use super::attempt::{Attempt, Outcome};
use super::container::{Container, ContainerId, Slot};
use crate::error::Error;
use crate::service::{Descriptor, Instance, State};
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Engine {
    containers: BTreeMap<ContainerId, Container>,
    /// For each attempt, by id, the attempts that it waits for: nested ones, those of other threads, those of tasks.
    wait_edges: HashMap<u64, Vec<Arc<Attempt>>>,
    /// The number of scopes that threads have entered and not left.
    entered_scopes: usize,
    last_id: u64,
}

#[cfg(not(loom))]
static ENGINE: LazyLock<Mutex<Engine>> = LazyLock::new(|| Mutex::new(Engine::new()));

#[cfg(loom)]
loom::lazy_static! {
    static ref ENGINE: Mutex<Engine> = Mutex::new(Engine::new());
}

pub(crate) fn lock() -> MutexGuard<'static, Engine> {
    crate::sync::lock(&ENGINE)
}

impl Engine {
    fn new() -> Self {
        Engine {
            containers: BTreeMap::from_iter([(
                ContainerId::PROCESS,
                Container::new(HashMap::new()),
            )]),
            wait_edges: HashMap::new(),
            entered_scopes: 0,
            last_id: 0,
        }
    }

    /// Returns the container, or `None` after the end of its scope.
    pub(crate) fn container(&self, id: ContainerId) -> Option<&Container> {
        self.containers.get(&id)
    }

    pub(crate) fn container_mut(&mut self, id: ContainerId) -> Option<&mut Container> {
        self.containers.get_mut(&id)
    }

    pub(crate) fn state(&self, id: ContainerId, service: &Descriptor) -> State {
        let Some(container) = self.container(id) else {
            return State::ShutDown;
        };
        match container.get(service).map(|entry| &entry.slot) {
            None | Some(Slot::Idle) if container.closing.is_requested() => State::ShutDown,
            None | Some(Slot::Idle) => State::Uninitialized,
            Some(Slot::Initializing(_)) => State::Initializing,
            Some(Slot::Ready(_)) => State::Ready,
            Some(Slot::Stopping { .. } | Slot::ShutDown) => State::ShutDown,
        }
    }

    /// Begins an attempt. Later callers wait for it.
    pub(crate) fn begin_attempt(
        &mut self,
        id: ContainerId,
        service: &'static Descriptor,
    ) -> Result<Arc<Attempt>, Error> {
        let next_id = self.next_id();
        match self.containers.get_mut(&id) {
            Some(container) if !container.closing.is_requested() => {
                let missing = container.add_declared_dependencies(service);
                let entry = container.get_mut(service);
                let is_provided = entry.provided.is_some();
                let attempt = Arc::new(Attempt::new(next_id, id, service, is_provided, missing));
                entry.slot = Slot::Initializing(Arc::clone(&attempt));
                Ok(attempt)
            }
            _ => Err(Error::ShutDown {
                service: service.name,
            }),
        }
    }

    /// Ends an attempt: stores the instance, or makes the service idle again.
    ///
    /// Returns `ShutDown` if the attempt was given up; then the caller must shut the instance down. Also returns the
    /// error of the previous attempt; the caller must drop it after unlocking the engine, because its destructor is
    /// user code.
    pub(crate) fn finish_attempt(
        &mut self,
        attempt: &Attempt,
        result: Outcome,
    ) -> (Outcome, Option<Box<Error>>) {
        let service = attempt.service;
        let publish = attempt.container == ContainerId::PROCESS && self.entered_scopes == 0;
        let container = self.containers.get_mut(&attempt.container).filter(|container| {
            container.get(service).is_some_and(
                |entry| matches!(&entry.slot, Slot::Initializing(current) if current.id == attempt.id),
            )
        });
        let shut_down = Error::ShutDown {
            service: service.name,
        };
        let (outcome, previous_error) = match (container, result) {
            (Some(container), Ok(instance)) if !attempt.is_abandoned() => {
                let entry = container.set_ready(service, instance);
                entry.timing = attempt.timing.get().copied();
                if publish {
                    service.publish(Some(instance));
                }
                (Ok(instance), entry.failure.take())
            }
            (Some(container), result) => {
                let error = result.err().unwrap_or(shut_down);
                container.release_dependencies(service);
                let entry = container.get_mut(service);
                entry.slot = Slot::Idle;
                entry.timing = attempt.timing.get().copied();
                let previous_error = entry.failure.replace(Box::new(error.clone()));
                (Err(error), previous_error)
            }
            (None, Ok(_)) => (Err(shut_down), None),
            (None, Err(error)) => (Err(error), None),
        };
        attempt.set_outcome(&outcome);
        (outcome, previous_error)
    }

    /// Begins the shutdown of a ready service. Callers can wait for the new attempt until the service can start again.
    pub(crate) fn begin_shutdown(
        &mut self,
        id: ContainerId,
        service: &'static Descriptor,
        instance: &'static dyn Instance,
    ) {
        let next_id = self.next_id();
        if let Some(container) = self.containers.get_mut(&id) {
            container.get_mut(service).slot = Slot::Stopping {
                attempt: Arc::new(Attempt::new(next_id, id, service, false, Vec::new())),
                instance,
                finished: false,
            };
        }
        if id == ContainerId::PROCESS {
            service.publish(None);
        }
    }

    /// Adds `dependency` to the dependencies of the service of `dependent`.
    pub(crate) fn add_dependency(&mut self, dependent: &Attempt, dependency: &'static Descriptor) {
        if let Some(container) = self.containers.get_mut(&dependent.container) {
            container.add_dependency(dependent.service, dependency);
        }
    }

    /// Records that `dependent` waits for `attempt`.
    pub(crate) fn wait_for(&mut self, dependent: &Attempt, attempt: &Arc<Attempt>) {
        let awaited = self.wait_edges.entry(dependent.id).or_default();
        awaited.push(Arc::clone(attempt));
    }

    pub(crate) fn stop_waiting(&mut self, dependent: &Attempt, attempt: &Attempt) {
        if let Some(awaited) = self.wait_edges.get_mut(&dependent.id) {
            if let Some(position) = awaited.iter().position(|awaited| awaited.id == attempt.id) {
                awaited.swap_remove(position);
            }
            if awaited.is_empty() {
                self.wait_edges.remove(&dependent.id);
            }
        }
    }

    /// Returns whether no attempt waits for another.
    #[cfg(all(test, loom))]
    pub(crate) fn has_no_waits(&self) -> bool {
        self.wait_edges.is_empty()
    }

    /// Returns an error if `attempt` already waits for `dependent`, directly or through other threads, so that waiting
    /// for it would be a cycle.
    pub(crate) fn find_cycle(&self, dependent: &Attempt, attempt: &Arc<Attempt>) -> Option<Error> {
        let service = attempt.service.name;
        if attempt.id == dependent.id {
            return Some(Error::SelfDependency { service });
        }
        let mut path = vec![attempt];
        if !self.extend_path_to(dependent, &mut path, &mut HashSet::new()) {
            return None;
        }
        let names = path.iter().map(|attempt| attempt.service.name);
        Some(Error::CircularDependency {
            path: names.chain([service]).collect(),
        })
    }

    /// Extends the path along the wait edges until it reaches `goal`. Returns whether it does.
    fn extend_path_to<'a>(
        &'a self,
        goal: &Attempt,
        path: &mut Vec<&'a Arc<Attempt>>,
        seen: &mut HashSet<u64>,
    ) -> bool {
        let Some(last) = path.last() else {
            return false;
        };
        if last.id == goal.id {
            return true;
        }
        if !seen.insert(last.id) {
            return false;
        }
        for next in self.wait_edges.get(&last.id).into_iter().flatten() {
            path.push(next);
            if self.extend_path_to(goal, path, seen) {
                return true;
            }
            path.pop();
        }
        false
    }

    /// Returns the service at the end of the chain of waits that begins with `attempt`, or its own service if it waits
    /// for none.
    pub(crate) fn end_of_wait_chain(&self, attempt: &Attempt) -> &'static Descriptor {
        let mut service = attempt.service;
        let mut id = attempt.id;
        while let Some(next) = self.wait_edges.get(&id).and_then(|awaited| awaited.first()) {
            (service, id) = (next.service, next.id);
        }
        service
    }

    /// Opens a container in which only the given instances are ready.
    pub(crate) fn open_container(
        &mut self,
        provided: Vec<(&'static Descriptor, &'static dyn Instance)>,
        environment: HashMap<OsString, Option<OsString>>,
    ) -> ContainerId {
        let id = ContainerId(self.next_id());
        let mut container = Container::new(environment);
        for (service, instance) in provided {
            // A fake is ready at once. Its background thread is not started, so the shutdown must not wait for it.
            container.set_ready(service, instance).background = None;
        }
        self.containers.insert(id, container);
        id
    }

    /// Removes and returns the container of a scope that has ended. The caller must drop it after unlocking the engine.
    #[must_use = "its contents have destructors of users"]
    pub(crate) fn remove_container(&mut self, id: ContainerId) -> Option<Container> {
        (id != ContainerId::PROCESS).then(|| self.containers.remove(&id))?
    }

    /// Sends all guarded calls to the slow path, which looks up their container.
    pub(super) fn enter_scope(&mut self) {
        self.entered_scopes += 1;
        if self.entered_scopes == 1 {
            self.publish_all(false);
        }
    }

    pub(super) fn leave_scope(&mut self) {
        self.entered_scopes -= 1;
        if self.entered_scopes == 0 {
            self.publish_all(true);
        }
    }

    fn publish_all(&self, enabled: bool) {
        let process = self.container(ContainerId::PROCESS);
        for (service, entry) in process.into_iter().flat_map(Container::entries) {
            if let Slot::Ready(instance) = entry.slot {
                service.publish(enabled.then_some(instance));
            }
        }
    }

    /// Returns the highest id assigned so far.
    pub(crate) fn last_id(&self) -> u64 {
        self.last_id
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}
