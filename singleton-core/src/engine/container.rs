//! What is known of every service in one set of instances, and who holds on to whom.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::sync::Arc;

use super::attempt::{Attempt, Timing};
use super::supervision::{Check, Supervision};
use crate::error::Error;
use crate::service::{Descriptor, Instance, Stop};
use crate::sync::Mutex;

/// Names a realm; ids are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RealmId(pub(super) u64);

impl RealmId {
    /// The process's own instances, outside of any test scope.
    pub(crate) const PROCESS: RealmId = RealmId(0);
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
        over: bool,
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

/// One service in one realm.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) slot: Slot,
    pub(crate) provided: Option<Provided>,
    /// What it holds on to: what it required or used while it was initialising, once each.
    pub(crate) uses: Vec<&'static Descriptor>,
    /// How many services hold on to it.
    pub(crate) users: usize,
    pub(crate) timing: Option<Timing>,
    /// Why the last attempt failed, if it did.
    pub(crate) failure: Option<Box<Error>>,
    pub(crate) check: Option<Arc<Check>>,
    pub(crate) background: Option<Arc<Supervision>>,
}

pub(crate) struct Realm {
    entries: ByService<Entry>,
    /// Services in the order in which they became ready.
    pub(crate) started: Vec<&'static Descriptor>,
    /// Undeclared uses that were logged already.
    reported: HashSet<(&'static Descriptor, &'static Descriptor)>,
    /// Requested when nothing starts any more.
    pub(crate) closing: Arc<Stop>,
    /// Held by the one who shuts services down.
    pub(crate) shutting_down: Arc<Mutex<()>>,
    /// Environment variables that differ from the process's; `None` is one that is not set.
    pub(crate) environment: HashMap<OsString, Option<OsString>>,
}

impl Realm {
    pub(crate) fn new(environment: HashMap<OsString, Option<OsString>>) -> Self {
        Realm {
            entries: ByService::default(),
            started: Vec::new(),
            reported: HashSet::new(),
            closing: Arc::new(Stop::new()),
            shutting_down: Arc::new(Mutex::new(())),
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
    pub(crate) fn start(
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

    /// Lets `user` hold on to `used` if that one is ready.
    pub(crate) fn link(&mut self, user: &'static Descriptor, used: &'static Descriptor) {
        let ready = self
            .get(used)
            .is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)));
        if !ready || user == used || self.get_mut(user).uses.contains(&used) {
            return;
        }
        self.get_mut(user).uses.push(used);
        self.get_mut(used).users += 1;
    }

    /// Lets `user`, which holds on to nothing yet, hold on to what it requires; gives what of it is not ready.
    pub(crate) fn link_declared(&mut self, user: &'static Descriptor) -> Vec<&'static Descriptor> {
        let mut missing = Vec::new();
        let mut requirements = self.requirements(user).peekable();
        if requirements.peek().is_none() {
            return missing;
        }
        let mut uses = std::mem::take(&mut self.get_mut(user).uses);
        for requirement in requirements {
            let entry = self.get_mut(requirement);
            if matches!(entry.slot, Slot::Ready(_)) {
                entry.users += 1;
                uses.push(requirement);
            } else {
                missing.push(requirement);
            }
        }
        self.get_mut(user).uses = uses;
        missing
    }

    /// Lets the service hold on to nothing any more; gives those whom nobody else holds on to now.
    pub(crate) fn let_go(&mut self, service: &'static Descriptor) -> Vec<&'static Descriptor> {
        let uses = std::mem::take(&mut self.get_mut(service).uses);
        uses.into_iter()
            .filter(|used| {
                let entry = self.get_mut(used);
                entry.users -= 1;
                entry.users == 0
            })
            .collect()
    }

    /// Tells whether `user` is seen for the first time to use `used` before that one is ready.
    pub(crate) fn is_news(&mut self, user: &'static Descriptor, used: &'static Descriptor) -> bool {
        let ready = self
            .get(used)
            .is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)));
        !ready && self.reported.insert((user, used))
    }

    /// Instances that were provided for a scope did not start after what they require: only now it
    /// is known what of it there is.
    pub(crate) fn link_requirements(&mut self) {
        for position in 0..self.started.len() {
            let service = self.started[position];
            let unlinked =
                |entry: &Entry| matches!(entry.slot, Slot::Ready(_)) && entry.uses.is_empty();
            if self.get(service).is_some_and(unlinked) {
                self.link_declared(service);
            }
        }
    }

    /// Forgets of what has been shut down that it had started.
    pub(crate) fn forget_stopped(&mut self) {
        let entries = &self.entries;
        let is_ready = |service: &Descriptor| {
            let entry = entries.get(service);
            entry.is_some_and(|entry| matches!(entry.slot, Slot::Ready(_)))
        };
        self.started.retain(|service| is_ready(service));
    }
}

/// A value for some of the services, found without a search by their numbers.
pub(crate) struct ByService<V> {
    places: Vec<Option<(&'static Descriptor, V)>>,
}

impl<V> Default for ByService<V> {
    fn default() -> Self {
        ByService { places: Vec::new() }
    }
}

impl<V> ByService<V> {
    pub(crate) fn get(&self, service: &Descriptor) -> Option<&V> {
        let place = self.places.get(service.number.get())?;
        place.as_ref().map(|(_, value)| value)
    }

    /// The place of the service's value, where there is none yet.
    pub(crate) fn place(
        &mut self,
        service: &'static Descriptor,
    ) -> &mut Option<(&'static Descriptor, V)> {
        let number = service.number.get();
        if number >= self.places.len() {
            self.places.resize_with(number + 1, || None);
        }
        &mut self.places[number]
    }

    pub(crate) fn get_or_default(&mut self, service: &'static Descriptor) -> &mut V
    where
        V: Default,
    {
        let place = self.place(service);
        &mut place.get_or_insert_with(|| (service, V::default())).1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Descriptor, &V)> {
        let known = self.places.iter().flatten();
        known.map(|(service, value)| (*service, value))
    }
}
