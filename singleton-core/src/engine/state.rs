//! All containers, behind one lock that guarded calls of ready services never take.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map};
use std::ffi::OsString;
use std::sync::Arc;
#[cfg(not(loom))]
use std::sync::LazyLock;

use super::attempt::{Attempt, Origin, Outcome};
use super::container::{Container, ContainerId, Slot};
use super::current::{Context, is_shutting_down};
use super::scope_state::ScopeState;
use super::start_run::StartRun;
use crate::error::{Error, Reason};
use crate::service::{Descriptor, Instance, Retry, State, Visibility};
use crate::sync::{Mutex, MutexGuard};

pub(crate) struct Engine {
    containers: BTreeMap<ContainerId, Container>,
    /// For each attempt, by id, the attempts that it waits for: nested ones, those of other threads, those of tasks.
    wait_edges: HashMap<u64, Vec<Arc<Attempt>>>,
    /// The number of scopes that are open, or in which a thread was left behind. Meanwhile each call looks for its
    /// scope.
    hiding_scopes: usize,
    /// Whether calls outside scopes are refused.
    is_scope_required: bool,
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
                Container::new(ContainerId::PROCESS, None, HashMap::new()),
            )]),
            wait_edges: HashMap::new(),
            hiding_scopes: 0,
            is_scope_required: false,
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
        origin: Origin,
    ) -> Result<Arc<Attempt>, Error> {
        let next_id = self.next_id();
        match self.containers.get_mut(&id) {
            Some(container) if !container.closing.is_requested() => {
                let missing = container.add_declared_dependencies(service);
                let context = container.context();
                let policy = container.policy(service);
                let provided = container.get(service).and_then(|entry| entry.provided);
                let attempt = Arc::new(Attempt::new(
                    next_id,
                    context,
                    service,
                    policy,
                    provided.is_some(),
                    missing,
                    origin,
                ));
                let entry = container.get_mut(service);
                entry.was_used = true;
                entry.slot = Slot::Initializing(Arc::clone(&attempt));
                Ok(attempt)
            }
            _ => Err(Error::new(service.name(), Reason::ShutDown)),
        }
    }

    /// Returns an error if calls outside scopes are refused and `container` is the process's.
    ///
    /// Services that are shutting down may still use their dependencies.
    pub(crate) fn check_scope(&self, id: ContainerId, service: &Descriptor) -> Result<(), Error> {
        if self.is_scope_required && id == ContainerId::PROCESS && !is_shutting_down() {
            return Err(Error::new(service.name(), Reason::OutsideScope));
        }
        Ok(())
    }

    /// Makes a running attempt, and those that it waits for, as patient as a further caller.
    pub(crate) fn add_retry(&self, attempt: &Arc<Attempt>, retry: Option<Retry>) {
        let mut seen = HashSet::new();
        let mut pending = vec![attempt];
        while let Some(attempt) = pending.pop() {
            if retry.is_some() && !attempt.has_own_retry && seen.insert(attempt.id) {
                attempt.add_retry(retry);
                let awaited = self.wait_edges.get(&attempt.id).into_iter().flatten();
                let is_declared = |next: &&Arc<Attempt>| attempt.missing.contains(&next.service);
                pending.extend(awaited.filter(is_declared));
            }
        }
    }

    /// Marks a start as failed. Gives up those of its attempts that have exceeded their `init_timeout`.
    pub(crate) fn fail_start(&mut self, run: &StartRun, is_part: impl Fn(&Attempt) -> bool) {
        run.fail();
        let container = self.container(run.context.container);
        for (_, entry) in container.into_iter().flat_map(Container::entries) {
            if let Slot::Initializing(attempt) = &entry.slot
                && attempt.is_overdue()
                && is_part(attempt)
            {
                attempt.abandon();
            }
        }
    }

    /// Ends an attempt: stores the instance, or makes the service idle again.
    ///
    /// The outcome is `ShutDown` if the attempt was given up; then the caller must shut the instance down.
    pub(crate) fn finish_attempt(&mut self, attempt: &Attempt, result: Outcome) -> FinishedAttempt {
        let service = attempt.service;
        let start = attempt.take_start();
        let visibility = self.visibility();
        let container = self.containers.get_mut(&attempt.container).filter(|container| {
            container.get(service).is_some_and(
                |entry| matches!(&entry.slot, Slot::Initializing(current) if current.id == attempt.id),
            )
        });
        let shut_down = || Error::new(service.name(), Reason::ShutDown);
        let (outcome, previous_error) = match (container, result) {
            (Some(container), Ok(instance)) if !attempt.is_abandoned() => {
                publish(container, service, Some(instance), visibility);
                let entry = container.set_ready(service, instance);
                entry.timing = attempt.timing.get().copied();
                entry.start.clone_from(&start);
                (Ok(instance), entry.failure.take())
            }
            (Some(container), result) => {
                let error = result.err().unwrap_or_else(shut_down);
                container.release_dependencies(service);
                let entry = container.get_mut(service);
                entry.slot = Slot::Idle;
                entry.timing = attempt.timing.get().copied();
                let previous_error = entry.failure.replace(Box::new(error.clone()));
                (Err(error), previous_error)
            }
            (None, Ok(_)) => (Err(shut_down()), None),
            (None, Err(error)) => (Err(error), None),
        };
        attempt.set_outcome(&outcome);
        FinishedAttempt {
            outcome,
            previous_error,
            failed_start: start.filter(|start| start.attempt_ends()),
        }
    }

    fn visibility(&self) -> Visibility {
        if self.is_scope_required {
            Visibility::Hidden
        } else if self.hiding_scopes > 0 {
            Visibility::OutsideScopes
        } else {
            Visibility::Everywhere
        }
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
            publish(container, service, None, Visibility::Hidden);
            let attempt = Attempt::new(
                next_id,
                container.context(),
                service,
                container.policy(service),
                false,
                Vec::new(),
                Origin::default(),
            );
            container.get_mut(service).slot = Slot::Stopping {
                attempt: Arc::new(attempt),
                instance,
                finished: false,
            };
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
        let service = attempt.service;
        if attempt.id == dependent.id {
            return Some(Error::new(service.name(), Reason::SelfDependency));
        }
        let waits = self.waits_between(attempt, dependent)?;
        let container = self.container(attempt.container)?;
        let mut path = vec![service.name()];
        for pair in waits.windows(2) {
            // A task waits for the dependencies of its dependencies itself.
            let between = container.between(pair[0], pair[1]).into_iter();
            path.extend(between.chain([pair[1]]).map(Descriptor::name));
        }
        path.push(service.name());
        Some(Error::new(
            service.name(),
            Reason::CircularDependency(path.into()),
        ))
    }

    /// Returns the services on the shortest path of waits from one attempt to another, or `None` if there is none.
    fn waits_between(&self, from: &Attempt, to: &Attempt) -> Option<Vec<&'static Descriptor>> {
        let mut found_by = HashMap::from([(from.id, (from.id, from.service))]);
        let mut pending = VecDeque::from([from.id]);
        while let Some(id) = pending.pop_front() {
            if id == to.id {
                let mut path = Vec::new();
                let mut step = id;
                loop {
                    let (previous, service) = *found_by.get(&step)?;
                    path.push(service);
                    if step == from.id {
                        path.reverse();
                        return Some(path);
                    }
                    step = previous;
                }
            }
            for next in self.wait_edges.get(&id).into_iter().flatten() {
                if let hash_map::Entry::Vacant(unseen) = found_by.entry(next.id) {
                    unseen.insert((id, next.service));
                    pending.push_back(next.id);
                }
            }
        }
        None
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
    ) -> Context {
        let id = ContainerId(self.next_id());
        let scope = Arc::new(ScopeState::new());
        let mut container = Container::new(id, Some(Arc::clone(&scope)), environment);
        for (service, instance) in provided {
            publish(&container, service, Some(instance), Visibility::Hidden);
            // A fake is ready at once. Its background thread is not started, so the shutdown must not wait for it.
            container.set_ready(service, instance).background = None;
        }
        self.containers.insert(id, container);
        self.change_hiding(true);
        Context::of_scope(id, scope)
    }

    /// Removes and returns the container of a scope that has ended. The caller must drop it after unlocking the engine.
    #[must_use = "its contents have destructors of users"]
    pub(crate) fn remove_container(&mut self, id: ContainerId) -> Option<Container> {
        let container = (id != ContainerId::PROCESS).then(|| self.containers.remove(&id))??;
        if let Some(scope) = &container.scope {
            scope.end();
            self.update_hiding(scope);
        }
        Some(container)
    }

    /// Hides or shows the process's instances after a scope has ended or a thread has entered or left an ended one.
    pub(super) fn update_hiding(&mut self, scope: &ScopeState) {
        if let Some(hides) = scope.take_hiding_change() {
            self.change_hiding(hides);
        }
    }

    fn change_hiding(&mut self, hides: bool) {
        let before = self.visibility();
        self.hiding_scopes = if hides {
            self.hiding_scopes + 1
        } else {
            self.hiding_scopes - 1
        };
        if self.visibility() != before {
            self.publish_all();
        }
    }

    /// Refuses calls outside scopes from now on.
    pub(crate) fn require_scope(&mut self) {
        self.is_scope_required = true;
        self.publish_all();
    }

    fn publish_all(&self) {
        let visibility = self.visibility();
        let process = self.container(ContainerId::PROCESS);
        for (service, entry) in process.into_iter().flat_map(Container::entries) {
            if let Slot::Ready(instance) = entry.slot {
                service.publish(Some(instance), visibility);
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

/// Makes an instance known to guarded calls, or with `None` sends them to the slow path.
fn publish(
    container: &Container,
    service: &Descriptor,
    instance: Option<&'static dyn Instance>,
    visibility: Visibility,
) {
    match &container.scope {
        Some(scope) => scope.set_ready(service, instance),
        None => service.publish(instance, visibility),
    }
}

/// The result of an attempt, and the work that follows without the engine's lock.
pub(crate) struct FinishedAttempt {
    pub(crate) outcome: Outcome,
    /// The error of the attempt before. Its destructor is user code.
    pub(crate) previous_error: Option<Box<Error>>,
    /// The failed start whose last attempt this was.
    pub(crate) failed_start: Option<Arc<StartRun>>,
}
